"""A Parquet file of the lake as a table.

Its bytes are read before Arrow sees them: Arrow's own threads would ask for Python's lock to read from a Python file, and
abort a process that ends in that moment.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from antenna_assets.storage.paths import LakePath


def read_table(path: "LakePath", columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a file, of all columns or of those named.

    Raises:
        FileNotFoundError, OSError, pa.ArrowException: there is no such file, or it cannot be read.
    """
    with path.open("rb") as file:
        data = file.read()
    return pq.read_table(pa.BufferReader(data), columns=None if columns is None else list(columns))
