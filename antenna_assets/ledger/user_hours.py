"""The hours of users in PostgreSQL: a partition of `bytes_agg_user_1h` for each day, dropped as a whole.

The lake keeps them: `enriched_usage` has every event of every user.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

import psycopg


def make_user_days(connection: psycopg.Connection, hours: Sequence[datetime]) -> None:
    """Create the partitions that some hours need, before the transaction that fills them."""
    connection.execute("SELECT ledger.make_user_days(%s)", [list(hours)])


@contextmanager
def keeping_user_days(connection: psycopg.Connection, hours: Sequence[datetime]) -> Iterator[None]:
    """A transaction with the partitions of some hours, which nobody drops until it ends."""
    while True:
        make_user_days(connection, hours)
        with connection.transaction():
            connection.execute("LOCK TABLE ONLY bytes_agg_user_1h IN ROW EXCLUSIVE MODE")
            # Not made here: to drop them takes the locks in the other order.
            if not _dropped(connection, hours):
                yield
                return


def _dropped(connection: psycopg.Connection, hours: Sequence[datetime]) -> bool:
    """Whether a sweep has dropped a partition since it was made."""
    return connection.execute(
        "SELECT EXISTS (SELECT FROM unnest(%s::timestamptz[]) AS hour"
        " WHERE hour >= coalesce((SELECT days_from FROM ledger.user_hours), '-infinity')"
        " AND to_regclass('bytes_agg_user_1h_' || to_char(hour AT TIME ZONE 'UTC', 'YYYYMMDD')) IS NULL)",
        [list(hours)],
    ).fetchall()[0][0]


def hours_without_users(connection: psycopg.Connection, hours: Sequence[datetime]) -> set[datetime]:
    """Those of some hours whose users were dropped, and were not published again since then."""
    rows = connection.execute(
        "SELECT hour FROM unnest(%(hours)s::timestamptz[]) AS hour"
        " WHERE hour < (SELECT kept_from FROM ledger.user_hours)"
        " AND NOT EXISTS (SELECT FROM bytes_agg_user_1h WHERE date = hour AND date = ANY(%(hours)s))",
        {"hours": list(hours)},
    )
    return {hour for (hour,) in rows}


def ended_user_days(connection: psycopg.Connection, until: datetime) -> list[int]:
    """The size in bytes of each partition whose days have ended by then."""
    rows = connection.execute(
        "SELECT pg_total_relation_size(partition) FROM ledger.user_days(%s)", [until]
    ).fetchall()
    return [size for (size,) in rows]


def drop_user_days(connection: psycopg.Connection, until: datetime) -> None:
    """Drop the partitions whose days have ended by then."""
    connection.execute("SELECT ledger.drop_user_days(%s)", [until])
