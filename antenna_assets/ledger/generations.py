"""Generations: the snapshots of an hour, each its landed files up to one batch. Append-only.

A generation is sealed in `seal.py`; what landed for it is in `landing.py`.
"""

from collections.abc import Sequence
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
    """A generation that was sealed before.

    Raises:
        LedgerError: it was not.
    """
    with connection.cursor(row_factory=class_row(Generation)) as cursor:
        found = cursor.execute(
            "SELECT hour, generation, up_to_batch, rows, bytes FROM ledger.hour_generation"
            " WHERE hour = %s AND generation = %s",
            [hour, generation],
        ).fetchone()
    if found is None:
        raise LedgerError(
            f"the ledger names generation {generation} of {hour_key(hour)} but does not hold it"
        )
    return found


def require_unexpired(connection: psycopg.Connection, hours: Sequence[datetime]) -> None:
    """Stop if landed files of one of the hours are past their retention.

    Raises:
        HourExpired: names the first such hour.
    """
    row = connection.execute(
        "SELECT min(hour) FROM (SELECT hour FROM ledger.expired_file WHERE hour = ANY(%(hours)s)"
        " UNION ALL SELECT hour FROM ledger.expired_hour WHERE hour = ANY(%(hours)s)) AS expired",
        {"hours": list(hours)},
    ).fetchone()
    if row is not None and row[0] is not None:
        raise _hour_expired(row[0])


def expired_before(connection: psycopg.Connection) -> datetime | None:
    """The end of the newest hour that is past its retention: no event before it is accepted any more."""
    row = connection.execute(
        "SELECT greatest((SELECT max(hour) FROM ledger.expired_file), (SELECT max(hour) FROM ledger.expired_hour))"
        " + interval '1 hour'"
    ).fetchone()
    return row[0] if row else None


def _hour_expired(hour: datetime) -> HourExpired:
    return HourExpired(
        f"the landed files of {hour_key(hour)} are past the horizon and were swept: the hour stays as it is published "
        "and is not built again from a part of itself"
    )
