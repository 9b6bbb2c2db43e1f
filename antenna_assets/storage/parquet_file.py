"""Reading a Parquet file of the lake into a table.

In the calling thread alone. A thread of Arrow needs the GIL to read from a Python file, and also to release
bytes that Python owns, a moment after the table is complete; at the end of the process that aborts it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from antenna_assets.storage.paths import LakePath


def read_table(path: "LakePath", columns: Sequence[str] | None = None) -> pa.Table:
    """Return the rows of a file, with all columns or those named.

    Raises:
        FileNotFoundError, OSError, pa.ArrowException: the file is missing or cannot be read.
    """
    with path.open("rb") as file:
        data = file.read()
    # Not `pq.read_table`: a scan of a dataset starts a thread whatever it is told.
    with pq.ParquetFile(pa.BufferReader(data), pre_buffer=False) as parquet:
        return parquet.read(None if columns is None else list(columns), use_threads=False)
