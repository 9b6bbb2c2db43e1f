"""The preview of a backfill: what publishing an hour now would change in the serving tables. Nothing is
changed.

The hour's transformations run over all its landed files and the present users with the quotas of then; the
engine compares the result with the tables, whatever number of users an hour has.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

import psycopg

from antenna_assets.domain.schema import (
    ENRICHED_USAGE,
    HOURLY_TABLES,
    LANDED_SCHEMA,
    PERSONAL,
    RAW_PARQUET,
    ServingTable,
)
from antenna_assets.engines.contract import Dataset, Engine
from antenna_assets.engines.transforms import transform
from antenna_assets.ledger.errors import HourExpired
from antenna_assets.ledger.files import files_of_hour
from antenna_assets.ledger.generations import require_unexpired
from antenna_assets.publishing.csv_rows import stored_rows, write_parquet
from antenna_assets.publishing.differing_rows import (
    Row,
    differing_columns,
    differing_rows,
    differing_select,
)
from antenna_assets.publishing.lake import Lake
from antenna_assets.publishing.users import UsersOfRun

SHOWN = 20
"""How many rows of one table and hour are listed; the rest is counted."""


@dataclass(frozen=True)
class RowChange:
    """A row of a table before and after, without its key; None where there is no row."""

    key: str
    before: Row | None
    after: Row | None


@dataclass(frozen=True)
class TableChanges:
    """The rows of a table that differ: how many, and the first ones by key."""

    count: int
    shown: Sequence[RowChange]


@dataclass(frozen=True)
class HourChanges:
    """The changes that publishing would make to an hour.

    Attributes:
        refused: why the hour cannot be published again; None if it can.
        published: the generation in the tables; None if the hour was never wholly published.
        next_generation: the generation that it would have.
        tables: the tables of which rows differ, by name.
    """

    hour: datetime
    published: int | None
    next_generation: int
    tables: Mapping[str, TableChanges] = field(default_factory=dict)
    refused: str | None = None


@contextmanager
def current_users(
    connection: psycopg.Connection,
    lake: Lake,
    hours: Sequence[datetime],
    *,
    judged_at: datetime | None = None,
) -> Iterator[UsersOfRun]:
    """The present users, in files for the engine that are removed after the block.

    Args:
        judged_at: judge the hours by the quotas of this instant instead of those of then.
    """
    with lake.scratch() as folder:
        yield UsersOfRun(connection, folder, hours, judged_at=judged_at)


def changes(
    connection: psycopg.Connection, lake: Lake, engine: Engine, users: UsersOfRun, hour: datetime
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
    with lake.scratch() as folder:
        usage = _usage(connection, lake, engine, users, hour, folder)
        found = {
            name: _differences(connection, engine, table, usage, hour, f"{folder}/{name}.parquet")
            for name, table in HOURLY_TABLES.items()
        }
    tables = {name: changed for name, changed in found.items() if changed.count}
    return HourChanges(hour, published, next_generation, tables)


def _generations(connection: psycopg.Connection, hour: datetime) -> tuple[int | None, int]:
    return connection.execute(
        "SELECT (SELECT max(generation) FROM ledger.certificate AS certified"
        "  WHERE certified.hour = state.hour),"
        " generation + dirty::int FROM ledger.hour_state AS state WHERE hour = %s",
        [hour],
    ).fetchall()[0]


def _usage(
    connection: psycopg.Connection, lake: Lake, engine: Engine, users: UsersOfRun, hour: datetime, folder: str
) -> Dataset:
    """What `enriched_usage` would have of the hour, in files of a folder."""
    landed_files = [f"{lake.root}/{file.path}" for file in files_of_hour(connection, hour)]
    landed = Dataset(landed_files, LANDED_SCHEMA)
    raw = engine.write(transform("raw_parquet"), {"landed": landed}, RAW_PARQUET, f"{folder}/raw")
    files = [file.path for file in raw]
    inputs = {"raw_parquet": Dataset(files, RAW_PARQUET), **users.of([hour], files, engine).inputs(hour)}
    usage = engine.write(transform("enriched_usage"), inputs, ENRICHED_USAGE, f"{folder}/usage")
    return Dataset([file.path for file in usage], ENRICHED_USAGE)


def _differences(
    connection: psycopg.Connection,
    engine: Engine,
    table: ServingTable,
    usage: Dataset,
    hour: datetime,
    stored: str,
) -> TableChanges:
    """Compare a table with what it would have.

    Args:
        stored: where to write what it has now.
    """
    write_parquet(stored, stored_rows(connection, table, hour), table.columns)
    inputs = {"enriched_usage": usage, "stored": Dataset([stored], table.columns)}
    query = f"WITH computed AS (\n{transform(table.name)}\n) {differing_select(table, SHOWN)}"
    found = engine.read(query, inputs, differing_columns(table)).to_pylist()
    count, rows = differing_rows(row.values() for row in found)
    return TableChanges(count, [RowChange(row.key, row.stored, row.computed) for row in rows])


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
