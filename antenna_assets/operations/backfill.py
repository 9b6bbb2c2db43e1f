"""The preview of a backfill: what publishing an hour now would change in the serving tables. Nothing is
changed.

The hour's transformations run over all its landed files and the present users; the result is compared row by
row.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg import sql

from antenna_assets.domain.differences import differences
from antenna_assets.domain.schema import (
    ENRICHED_USAGE,
    HOURLY_TABLES,
    LANDED_SCHEMA,
    PERSONAL,
    RAW_PARQUET,
    USERS,
    ServingTable,
)
from antenna_assets.engines.contract import Dataset, Engine
from antenna_assets.engines.transforms import transform
from antenna_assets.ledger.errors import HourExpired
from antenna_assets.ledger.files import files_of_hour
from antenna_assets.ledger.generations import require_unexpired
from antenna_assets.publishing.lake import Lake
from antenna_assets.publishing.users import write_users

Row = tuple[str | int | None, ...]


@dataclass(frozen=True)
class RowChange:
    """A row of a table before and after, without its key; None where there is no row."""

    table: str
    key: str
    before: Row | None
    after: Row | None


@dataclass(frozen=True)
class HourChanges:
    """The changes that publishing would make to an hour.

    Attributes:
        refused: why the hour cannot be published again; None if it can.
        published: the generation in the tables; None if the hour was never wholly published.
        next_generation: the generation that it would have.
        rows: the rows that differ, by table and key.
    """

    hour: datetime
    published: int | None
    next_generation: int
    rows: Sequence[RowChange] = ()
    refused: str | None = None

    def of_table(self, table: str) -> list[RowChange]:
        """Return the changes to one table."""
        return [row for row in self.rows if row.table == table]


@contextmanager
def current_users(connection: psycopg.Connection, lake: Lake) -> Iterator[str]:
    """Write the present users to a parquet file for the engine, removed after the block; yields its path."""
    with lake.scratch() as folder:
        file = f"{folder}/users.parquet"
        write_users(connection, file)
        yield file


def changes(
    connection: psycopg.Connection, lake: Lake, engine: Engine, users_file: str, hour: datetime
) -> HourChanges:
    """Return what publishing a closed hour would change.

    Raises:
        EngineError: a landed file cannot be read.
    """
    published, next_generation = _generations(connection, hour)
    try:
        require_unexpired(connection, [hour])
    except HourExpired as expired:
        return HourChanges(hour, published, published or 0, refused=str(expired))
    rows = tuple(
        RowChange(name, *change)
        for name, after in _computed(connection, lake, engine, users_file, hour).items()
        for change in differences(_stored(connection, HOURLY_TABLES[name], hour), after)
    )
    return HourChanges(hour, published, next_generation, rows)


def _generations(connection: psycopg.Connection, hour: datetime) -> tuple[int | None, int]:
    return connection.execute(
        "SELECT (SELECT max(generation) FROM ledger.certificate AS certified"
        "  WHERE certified.hour = state.hour),"
        " generation + dirty::int FROM ledger.hour_state AS state WHERE hour = %s",
        [hour],
    ).fetchall()[0]


def _computed(
    connection: psycopg.Connection, lake: Lake, engine: Engine, users_file: str, hour: datetime
) -> dict[str, dict[str, Row]]:
    """Return the rows that each table would have, by key."""
    files = files_of_hour(connection, hour)
    landed = Dataset([f"{lake.root}/{file.path}" for file in files], LANDED_SCHEMA)
    with lake.scratch() as folder:
        raw = engine.write(transform("raw_parquet"), {"landed": landed}, RAW_PARQUET, f"{folder}/raw")
        inputs = {
            "raw_parquet": Dataset([file.path for file in raw], RAW_PARQUET),
            "user_metadata": Dataset([users_file], USERS),
        }
        usage = engine.write(transform("enriched_usage"), inputs, ENRICHED_USAGE, f"{folder}/usage")
        enriched = {"enriched_usage": Dataset([file.path for file in usage], ENRICHED_USAGE)}
        return {
            name: {
                key: tuple(values)
                for key, *values in zip(
                    *engine.read(transform(name), enriched, table.columns).to_pydict().values(), strict=True
                )
            }
            for name, table in HOURLY_TABLES.items()
        }


def _stored(connection: psycopg.Connection, table: ServingTable, hour: datetime) -> dict[str, Row]:
    query = sql.SQL("SELECT {} FROM {} WHERE date = %s").format(
        sql.SQL(", ").join(map(sql.Identifier, table.columns.names)), sql.Identifier(table.name)
    )
    return {key: tuple(values) for key, *values in connection.execute(query, [hour]).fetchall()}


def shown(table: ServingTable, row: Row | None) -> str:
    """Format a row without personal data: `quota 5,000, sum_user_bytes 6,120`."""
    if row is None:
        return "no row"
    values = zip(table.columns.names[1:], row, strict=True)
    return ", ".join(
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}"
        for name, value in values
        if name not in PERSONAL
    )
