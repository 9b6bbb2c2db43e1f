"""Writing a judged micro-batch as parquet files: accepted events by hour, rejected messages with reasons.

The layout is that of every reader (`streaming/read_back.py` reads it back, and syncs it). The folder is an
attempt's (`storage/attempt.py`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from antenna_assets.domain.landing import REJECTED_FOLDER
from antenna_assets.domain.schema import LANDED_SCHEMA, REJECTED_SCHEMA
from antenna_assets.engines.duckdb import IN_PROCESS, PARQUET, quoted
from antenna_assets.engines.duckdb_files import register_stores, writes_ended
from antenna_assets.errors import EngineError
from antenna_assets.failpoints import commit_point
from antenna_assets.storage.attempt import LakeUnwritable
from antenna_assets.storage.disk import is_full, write_failure_message
from antenna_assets.storage.paths import file_errors, is_store_error, lake_path

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY = "256MiB"
"""DuckDB's memory limit: what it writes is given as Arrow tables, and an hour's columns are small."""

FEW_HOURS = 8
"""As many hours are written one by one: DuckDB takes twice the time for a write that it partitions."""


class Lander:
    """Writes judged messages into a lake; a context manager, used by one thread.

    Args:
        lake: the lake's root.
    """

    def __init__(self, lake: str) -> None:
        import duckdb

        self._lake = lake
        self._database: DuckDBPyConnection = duckdb.connect(
            ":memory:", config={**IN_PROCESS, "memory_limit": MEMORY, "temp_directory": ""}
        )
        self._database.execute("SET TimeZone = 'UTC'")

    def __enter__(self) -> "Lander":
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def write(self, folder: str, accepted: pa.Table, rejected: pa.Table) -> None:
        """Write the files of an attempt; what has no rows has no file.

        Args:
            folder: the attempt's, relative to the lake's root; nothing is in it yet.
            accepted: the columns of `LANDED_SCHEMA` and `hour`, the name of the hour's folder.
            rejected: the columns of `REJECTED_SCHEMA`.

        Raises:
            LakeUnwritable: the lake's disk is full, or fails.
        """
        target = f"{self._lake}/{folder}"
        with self._lake_errors(), writes_ended(target):
            root = lake_path(target)
            if isinstance(root, Path):
                root.mkdir(parents=True)
            register_stores(self._database, [f"{target}/"])
            if accepted.num_rows:
                self._write_hours(target, accepted)
            commit_point("stream.land.accepted")
            if rejected.num_rows:
                select = f"SELECT {', '.join(REJECTED_SCHEMA.names)} FROM judged"  # noqa: S608
                self._copy(select, rejected, _file(target, REJECTED_FOLDER), PARQUET)
            commit_point("stream.land.written")

    def _write_hours(self, target: str, accepted: pa.Table) -> None:
        """Write a file for each hour; of many hours DuckDB may write more than one each."""
        columns = ", ".join(LANDED_SCHEMA.names)
        hours = pc.unique(accepted["hour"]).to_pylist()
        if len(hours) > FEW_HOURS:
            select = f"SELECT {columns}, hour FROM judged"  # noqa: S608
            self._copy(select, accepted, target, f"{PARQUET}, PARTITION_BY (hour), {_NAMED}")
            return
        for hour in hours:
            select = f"SELECT {columns} FROM judged WHERE hour = {quoted(hour)}"  # noqa: S608
            self._copy(select, accepted, _file(target, f"hour={hour}"), PARQUET)

    def _copy(self, select: str, judged: pa.Table, target: str, options: str) -> None:
        self._database.register("judged", judged)
        try:
            self._database.execute(f"COPY ({select}) TO {quoted(target)} ({options})")
        finally:
            # It holds the messages.
            self._database.unregister("judged")

    @contextmanager
    def _lake_errors(self) -> Iterator[None]:
        import duckdb

        try:
            yield
        except file_errors(duckdb.Error) as error:
            of_files = isinstance(error, file_errors(duckdb.IOException)) or is_store_error(error)
            if of_files or is_full(error):
                raise LakeUnwritable(write_failure_message("the lake", self._lake, error)) from error
            raise EngineError(f"DuckDB: {error}") from error


def _file(target: str, folder: str) -> str:
    """The path of the file for one folder of an attempt; on a disk the folder is made."""
    file = lake_path(target) / folder / "part-0.parquet"
    if isinstance(file, Path):
        file.parent.mkdir()
    return str(file)


# OVERWRITE_OR_IGNORE: DuckDB's check of the new folder fails on object stores, which have no folders.
_NAMED = "FILENAME_PATTERN 'part-{i}', OVERWRITE_OR_IGNORE"
