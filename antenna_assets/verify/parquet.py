"""Reading parquet files to recompute: rows, bytes and a hash over events, in DuckDB.

What the results are compared with is not here. The hash is DuckDB's own and is compared only with another one of the
same run, never stored.
"""

from collections.abc import Sequence
from glob import escape
from typing import Any

from antenna_assets.domain.schema import LANDED_SCHEMA
from antenna_assets.engines.duckdb_files import register_stores
from antenna_assets.storage.paths import file_errors, lake_path, reason_of

EVENT_COLUMNS = ", ".join(LANDED_SCHEMA.names)


class Parquet:
    """One DuckDB for a whole verification. Paths are taken literally; an empty list of files is an empty result."""

    def __init__(self) -> None:
        import duckdb

        self.connection = duckdb.connect()
        self.connection.execute("SET TimeZone = 'UTC'")

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What a query raises, with the errors of the stores that were asked by now."""
        import duckdb

        return file_errors(duckdb.Error)

    def close(self) -> None:
        """Give back what DuckDB holds."""
        self.connection.close()

    def rows(self, query: str, paths: Sequence[str], *values: Any) -> list[tuple]:
        """The result of a query whose first parameter is the list of files.

        Raises:
            duckdb.Error: a file is not there or cannot be read; `self.errors` is what to catch.
        """
        register_stores(self.connection, paths)
        files = [escape(path) for path in paths]
        return self.connection.execute(query, [files, *values]).fetchall() if files else []

    def unreadable(self, paths: Sequence[str]) -> dict[str, str]:
        """The files that cannot be read to their end, each with the reason."""
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
        """Rows, bytes, and a hash of all events that does not depend on their order."""
        found = self.rows(
            f"SELECT count(*), coalesce(sum(bytes), 0), coalesce(sum(hash({EVENT_COLUMNS})), 0)"  # noqa: S608
            " FROM read_parquet(?, hive_partitioning = false)",
            paths,
        )
        return found[0] if found else (0, 0, 0)

    def only_in(self, paths: Sequence[str], others: Sequence[str]) -> str | None:
        """The coordinates of a row that `paths` hold more often than `others` do; None if there is none."""
        if not paths:
            return None
        register_stores(self.connection, [*paths, *others])
        select = f"SELECT {EVENT_COLUMNS} FROM read_parquet(?, hive_partitioning = false)"  # noqa: S608
        query = f"({select} EXCEPT ALL {select})" if others else f"({select})"
        parameters = [[escape(path) for path in paths]] + (
            [[escape(path) for path in others]] if others else []
        )
        rows = self.connection.execute(
            f"SELECT kafka_partition, kafka_offset FROM {query} ORDER BY ALL LIMIT 1",  # noqa: S608
            parameters,
        ).fetchall()
        return f"the row of partition {rows[0][0]}, offset {rows[0][1]}" if rows else None
