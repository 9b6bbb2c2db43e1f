"""Reading a Parquet file of the lake into a table.

The bytes are read in Python first: Arrow's threads would need the GIL to read from a Python file, and abort
the process if it exits at that moment.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

_SMALL = 2**20
"""Bytes of a file for which starting threads takes longer than reading it."""

if TYPE_CHECKING:
    from antenna_assets.storage.paths import LakePath


def read_table(path: "LakePath", columns: Sequence[str] | None = None) -> pa.Table:
    """Return the rows of a file, with all columns or those named.

    Raises:
        FileNotFoundError, OSError, pa.ArrowException: the file is missing or cannot be read.
    """
    with path.open("rb") as file:
        data = file.read()
    return pq.ParquetFile(pa.BufferReader(data)).read(
        None if columns is None else list(columns), use_threads=len(data) > _SMALL
    )
