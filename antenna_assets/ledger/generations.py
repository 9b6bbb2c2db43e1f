"""Generations: append-only snapshots of an hour, each its landed files up to one batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row

from antenna_assets.domain.hours import hour_key
from antenna_assets.ledger.errors import HourExpired, LedgerError


@dataclass(frozen=True)
class Generation:
    """A snapshot of an hour: its landed files of all batches up to `up_to_batch`."""

    hour: datetime
    generation: int
    up_to_batch: int
    rows: int
    bytes: int


def read_generation(connection: psycopg.Connection, hour: datetime, generation: int) -> Generation:
    """Read a sealed generation.

    Raises:
        LedgerError: there is none with this number.
    """
    return read_generations(connection, {hour: generation})[hour]


def read_generations(
    connection: psycopg.Connection, numbers: Mapping[datetime, int]
) -> dict[datetime, Generation]:
    """Read the sealed generation of each hour that has this number.

    Raises:
        LedgerError: an hour has none with its number.
    """
    found = find_generations(connection, numbers)
    return {hour: generation_of(found, hour, number) for hour, number in numbers.items()}


def find_generations(
    connection: psycopg.Connection, numbers: Mapping[datetime, int]
) -> dict[datetime, Generation]:
    """As `read_generations`, without the hours that have none with their number."""
    with connection.cursor(row_factory=class_row(Generation)) as cursor:
        rows = cursor.execute(
            "SELECT hour, generation, up_to_batch, rows, bytes FROM ledger.hour_generation"
            " JOIN unnest(%s::timestamptz[], %s::integer[]) AS wanted (hour, generation)"
            " USING (hour, generation)",
            [[*numbers], [*numbers.values()]],
        ).fetchall()
    return {row.hour: row for row in rows}


def generation_of(found: Mapping[datetime, Generation], hour: datetime, number: int) -> Generation:
    """The generation of an hour among those that were found.

    Raises:
        LedgerError: it has none with this number.
    """
    if hour not in found:
        raise LedgerError(
            f"expected generation {number} of {hour_key(hour)} in ledger.hour_generation, found none"
        )
    return found[hour]


def require_unexpired(connection: psycopg.Connection, hours: Sequence[datetime]) -> None:
    """Require that no landed file of the hours is past its retention.

    Raises:
        HourExpired: names the first such hour.
    """
    row = connection.execute(
        "SELECT min(hour) FROM (SELECT hour FROM ledger.expired_file WHERE hour = ANY(%(hours)s)"
        " UNION ALL SELECT hour FROM ledger.expired_hour WHERE hour = ANY(%(hours)s)) AS expired",
        {"hours": list(hours)},
    ).fetchone()
    if row is not None and row[0] is not None:
        raise hour_expired(row[0])


def expired_before(connection: psycopg.Connection) -> datetime | None:
    """The end of the newest hour that is past its retention; events before it are rejected."""
    row = connection.execute(
        "SELECT interval '1 hour' + greatest("
        " (SELECT max(hour) FROM ledger.expired_file), (SELECT max(hour) FROM ledger.expired_hour))"
    ).fetchone()
    return row[0] if row else None


def hour_expired(hour: datetime) -> HourExpired:
    """The error of an hour whose files are past their retention."""
    return HourExpired(
        f"the landed files of {hour_key(hour)} are past the horizon and were swept: the hour stays as it is "
        "published, as it could only be rebuilt in part"
    )
