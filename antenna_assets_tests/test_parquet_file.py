"""Parquet files of the lake are read in the calling thread."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from antenna_assets.storage.parquet_file import read_table

TABLE = pa.table({"id": ["a", "b", "a"], "bytes": [1, 2, 3]})


def test_all_columns_are_read_or_those_that_are_named(tmp_path: Path) -> None:
    path = tmp_path / "some.parquet"
    pq.write_table(TABLE, path)
    assert read_table(path).to_pydict() == {"id": ["a", "b", "a"], "bytes": [1, 2, 3]}
    assert read_table(path, ["bytes"]).to_pydict() == {"bytes": [1, 2, 3]}


def test_a_process_may_end_right_after_it_has_read_a_file(tmp_path: Path) -> None:
    """No thread of Arrow is left, which would release bytes of Python while the interpreter ends, and abort it."""
    path = tmp_path / "some.parquet"
    pq.write_table(TABLE, path)
    script = (
        "import sys, pathlib, psutil; from antenna_assets.storage.parquet_file import read_table;"
        "before = psutil.Process().num_threads(); read_table(pathlib.Path(sys.argv[1]));"
        "print(psutil.Process().num_threads() - before)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("0", "")
