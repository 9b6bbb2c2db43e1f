"""The embedded engine: DuckDB in this process, spilling to disk beyond its memory limit.

It keeps no data between calls and downloads no extension.
"""

import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from antenna_assets.domain.lifetimes import SAFE_AGE
from antenna_assets.engines.contract import (
    BATCH_ROWS,
    FOLDER_AND_NAME,
    Dataset,
    WrittenFile,
    check_types,
    checked_table,
)
from antenna_assets.engines.duckdb_files import register_stores, writes_ended
from antenna_assets.engines.output import files_with_rows, new_folder
from antenna_assets.errors import EngineError
from antenna_assets.storage.disk import FREE_SPACE_HINT, free, is_full
from antenna_assets.storage.paths import file_errors, is_store_error, reason_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

_PREFIX = "antenna-duckdb-"

IN_PROCESS: Mapping[str, Any] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    # Otherwise a missing table would be looked up among this module's variables.
    "python_enable_replacements": False,
    # The order of rows means nothing here, and keeping it costs memory.
    "preserve_insertion_order": False,
}
"""The configuration of every DuckDB of this system."""

MAX_FILE_SIZE = 512 * 2**20
"""Bytes after which the next file is begun, so that many workers can read a big hour."""


ROW_GROUP = 122_880
"""Rows of a row group of the files that DuckDB writes, unless it is told otherwise."""

EMBEDDED_MEMORY = "3GiB"
"""Memory limit of a run: with Python and Dagster it stays below 4 GiB, however large its hours are."""

PARQUET = "FORMAT parquet, PARQUET_VERSION v2, COMPRESSION zstd, COMPRESSION_LEVEL 1"
"""Options of written files.

Measured for an hour of 1M events: 25 % less CPU than version 1 at zstd's level 3, and 10 % fewer bytes.
"""


class DuckDBEngine:
    """DuckDB in memory: one database, whose memory limit all calls share, and a connection for each call.

    Args:
        threads: None means one per core.
        memory_limit: the most that it may use, as DuckDB writes it: `2GB`. Never more than 80 % of what the
            machine or container has, which is also what None means.
        temp_directory: where to spill; None: the system's folder for temporary files. Each engine makes its
            own folder in it, since the spill files of two databases have the same names.
    """

    name = "duckdb"

    def __init__(
        self, threads: int | None = None, memory_limit: str | None = None, temp_directory: str | None = None
    ) -> None:
        self._options = dict(IN_PROCESS)
        if threads is not None:
            self._options["threads"] = threads
        self._memory_limit = memory_limit
        self._spill_in = temp_directory
        # The Arrow type of values of DuckDB's types, by their names.
        self._types: dict[str, pa.DataType] = {}
        self._lock = Lock()
        self._database: DuckDBPyConnection | None = None
        self._spill: tempfile.TemporaryDirectory[str] | None = None
        self._closed = False

    def write(
        self, sql: str, inputs: Mapping[str, Dataset], schema: pa.Schema, target: str
    ) -> list[WrittenFile]:
        """See `Engine.write`."""
        with new_folder(target), writes_ended(target), self._connection(inputs, target) as connection:
            select = _over(inputs, sql)
            check_types(self._schema(connection, connection.sql(select)), schema)
            # OVERWRITE_OR_IGNORE: DuckDB's check of the new folder fails on object stores, which have no
            # folders.
            written = connection.execute(
                f"COPY ({select}\n) TO {quoted(target)} ({PARQUET}, RETURN_STATS,"
                f" FILE_SIZE_BYTES {MAX_FILE_SIZE}, FILENAME_PATTERN 'part-{{i}}', OVERWRITE_OR_IGNORE)"
            ).fetchall()
            return files_with_rows(
                (
                    WrittenFile(path, rows, size, _null_counts(statistics))
                    for path, rows, size, _, statistics, *_ in written
                ),
                schema,
            )

    def read(self, sql: str, inputs: Mapping[str, Dataset], schema: pa.Schema) -> pa.Table:
        """See `Engine.read`."""
        with self._connection(inputs) as connection:
            result = connection.sql(_over(inputs, sql))
            # Before a row is computed: otherwise a value that does not fit a wrong type would be reported
            # first.
            check_types(self._schema(connection, result), schema)
            return checked_table(result.to_arrow_table(), schema)

    @contextmanager
    def stream(
        self, sql: str, inputs: Mapping[str, Dataset], schema: pa.Schema, scratch: str
    ) -> Iterator[Iterator[pa.RecordBatch]]:
        """See `Engine.stream`."""
        del scratch  # It spills by itself.
        with self._connection(inputs) as connection:
            result = connection.sql(_over(inputs, sql))
            check_types(self._schema(connection, result), schema)
            batches = self._checked(result.to_arrow_reader(BATCH_ROWS), schema)
            first = next(batches, None)
            yield chain([] if first is None else [first], batches)

    def _schema(self, connection: "DuckDBPyConnection", result: "DuckDBPyRelation") -> pa.Schema:
        """The columns of a result, of which nothing is computed."""
        for type_ in map(str, result.types):
            if type_ not in self._types:
                null = connection.sql(f"SELECT CAST(NULL AS {type_})").to_arrow_table()
                self._types[type_] = null.schema.field(0).type
        names = zip(result.columns, map(str, result.types), strict=True)
        return pa.schema([(name, self._types[type_]) for name, type_ in names])

    def _checked(self, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The batches, with the errors of an engine: whoever reads them is outside of `_connection`."""
        with self._errors():
            for one in batches:
                yield from checked_table(pa.table(one), schema).to_batches()

    def close(self) -> None:
        """See `Engine.close`."""
        with self._lock:
            self._closed = True
            if self._database is not None and self._spill is not None:
                self._database.close()
                self._spill.cleanup()
                self._database = self._spill = None

    @contextmanager
    def _connection(self, inputs: Mapping[str, Dataset], *targets: str) -> "Iterator[DuckDBPyConnection]":
        """A connection for a query over the inputs; those without files are registered as empty tables."""
        files = [file for dataset in inputs.values() for file in dataset.files]
        with self._errors(), self._cursor([*targets, *files]) as connection:
            for name, dataset in inputs.items():
                if not dataset.files:
                    connection.register(name, dataset.columns.empty_table())
            yield connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        import duckdb

        try:
            yield
        except file_errors(duckdb.Error) as error:
            raise EngineError(f"DuckDB: {self._message(error)}") from error

    def _message(self, error: Exception) -> str:
        """The message of a failure, with what to do if a disk is full."""
        import duckdb

        if isinstance(error, duckdb.OutOfMemoryException) and self._spill is not None:
            # The other lines are about tuning a database.
            first, folder = str(error).splitlines()[0], self._spill.name
            return f"{first} Beyond its memory it spills to {folder} ({free(folder)}): free space there"
        if is_store_error(error):
            return reason_of(error)
        return f"{error}; {FREE_SPACE_HINT}" if is_full(error) else str(error)

    def _cursor(self, places: list[str]) -> "DuckDBPyConnection":
        import duckdb

        with self._lock:
            if self._closed:
                raise EngineError("this engine was closed; make a new one")
            if self._database is None:
                if self._spill_in is not None:
                    Path(self._spill_in).mkdir(parents=True, exist_ok=True)
                    _remove_stale_spill(Path(self._spill_in))
                self._spill = tempfile.TemporaryDirectory(prefix=_PREFIX, dir=self._spill_in)
                self._database = duckdb.connect(
                    ":memory:", config={**self._options, "temp_directory": self._spill.name}
                )
                self._database.execute("SET GLOBAL TimeZone = 'UTC'")
                # Spark's name for it.
                self._database.execute("CREATE MACRO unix_micros(instant) AS epoch_us(instant)")
                if self._memory_limit is not None:
                    _lower_memory_limit(self._database, self._memory_limit)
            register_stores(self._database, places)
            return self._database.cursor()


def _null_counts(statistics: Mapping[str, Any]) -> dict[str, int]:
    return {name.strip('"'): int(of["null_count"]) for name, of in statistics.items()}


def _remove_stale_spill(folder: Path) -> None:
    """Remove the spill folders of killed engines: those older than any run may be."""
    for left in folder.glob(f"{_PREFIX}*"):
        with suppress(FileNotFoundError):  # Another engine removes it at this moment.
            if time.time() - left.stat().st_mtime > SAFE_AGE.total_seconds():
                shutil.rmtree(left, ignore_errors=True)


def _lower_memory_limit(connection: "DuckDBPyConnection", limit: str) -> None:
    row = connection.execute(
        "SELECT parse_formatted_bytes(?) < parse_formatted_bytes(current_setting('memory_limit'))", [limit]
    ).fetchone()
    if row == (True,):
        connection.execute("SET memory_limit = ?", [limit])


def _over(inputs: Mapping[str, Dataset], sql: str) -> str:
    """A SELECT over its inputs: to define each as a view would open its files once more."""
    named = [
        f"{_identifier(name)} AS NOT MATERIALIZED ({_rows_of(dataset)})"
        for name, dataset in inputs.items()
        if dataset.files
    ]
    return f"WITH {', '.join(named)} SELECT * FROM (\n{sql}\n)" if named else sql  # noqa: S608


def _rows_of(dataset: Dataset) -> str:
    columns = ", ".join(_identifier(column) for column in dataset.schema.names)
    if dataset.file_column is not None:
        columns += f", regexp_extract(filename, '{FOLDER_AND_NAME}') AS {_identifier(dataset.file_column)}"
    files = ", ".join(quoted(_literal(file)) for file in dataset.files)
    # Quoted names instead of parameters: it becomes a part of other statements.
    return f"SELECT {columns} FROM read_parquet([{files}], hive_partitioning = false)"  # noqa: S608


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def quoted(text: str) -> str:
    """A text literal of DuckDB's SQL."""
    return "'" + text.replace("'", "''") + "'"


def _literal(path: str) -> str:
    """The pattern that matches this path alone."""
    return re.sub(r"[*?[]", r"[\g<0>]", path)
