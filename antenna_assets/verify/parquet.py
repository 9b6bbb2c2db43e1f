"""Rows, bytes and a hash of the events in parquet files, read with DuckDB.

The hash is DuckDB's own: it is only compared with others of the same process, never stored.
"""

from collections.abc import Sequence
from glob import escape
from typing import Any

from antenna_assets.domain.schema import LANDED_SCHEMA
from antenna_assets.engines.duckdb_files import register_stores
from antenna_assets.storage.paths import file_errors, lake_path, reason_of

EVENT_COLUMNS = ", ".join(LANDED_SCHEMA.names)


class Parquet:
    """One DuckDB connection for a whole verification. Paths are literal; no files give no rows."""

    def __init__(self) -> None:
        import duckdb

        self.connection = duckdb.connect()
        self.connection.execute("SET TimeZone = 'UTC'")

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """The exceptions of a query, those of the object stores used so far included."""
        import duckdb

        return file_errors(duckdb.Error)

    def close(self) -> None:
        """Release what DuckDB holds."""
        self.connection.close()

    def rows(self, query: str, paths: Sequence[str], *values: Any) -> list[tuple]:
        """Return the rows of a query whose first parameter is the list of files.

        Raises:
            duckdb.Error: a file is missing or unreadable; catch `self.errors`.
        """
        register_stores(self.connection, paths)
        files = [escape(path) for path in paths]
        return self.connection.execute(query, [files, *values]).fetchall() if files else []

    def unreadable(self, paths: Sequence[str]) -> dict[str, str]:
        """Return the files that cannot be read to their end, each with the reason."""
        query = f"SELECT sum(hash({EVENT_COLUMNS})) FROM read_parquet(?, hive_partitioning = false)"  # noqa: S608
        try:
            self.rows(query, paths)
        except self.errors:
            return {path: reason for path in paths if (reason := self._reason(query, path))}
        return {}

    def _reason(self, query: str, path: str) -> str | None:
        if not lake_path(path).exists():
            return "no file"
        try:
            self.rows(query, [path])
        except self.errors as error:
            return reason_of(error)
        return None

    def events(self, paths: Sequence[str]) -> tuple[int, int, int]:
        """Return rows, bytes, and a hash of all events that is independent of their order."""
        found = self.rows(
            f"SELECT count(*), coalesce(sum(bytes), 0), coalesce(sum(hash({EVENT_COLUMNS})), 0)"  # noqa: S608
            " FROM read_parquet(?, hive_partitioning = false)",
            paths,
        )
        return found[0] if found else (0, 0, 0)

    def only_in(self, paths: Sequence[str], others: Sequence[str]) -> str | None:
        """Name a row that `paths` hold more often than `others`, by its coordinates; None if none."""
        if not paths:
            return None
        register_stores(self.connection, [*paths, *others])
        select = f"SELECT {EVENT_COLUMNS} FROM read_parquet(?, hive_partitioning = false)"  # noqa: S608
        query = f"({select} EXCEPT ALL {select})" if others else f"({select})"
        parameters = [[escape(path) for path in files] for files in (paths, others) if files]
        rows = self.connection.execute(
            f"SELECT kafka_partition, kafka_offset FROM {query} ORDER BY ALL LIMIT 1",  # noqa: S608
            parameters,
        ).fetchall()
        return f"the row of partition {rows[0][0]}, offset {rows[0][1]}" if rows else None
