"""The hours of users in PostgreSQL: a partition of `bytes_agg_user_1h` for each day, dropped as a whole.

The lake keeps them: `enriched_usage` has every event of every user.
"""

from collections.abc import Sequence
from datetime import datetime

import psycopg


def make_user_days(connection: psycopg.Connection, hours: Sequence[datetime]) -> None:
    """Create the partitions that some hours need, before the transaction that fills them."""
    connection.execute("SELECT ledger.make_user_days(%s)", [list(hours)])


def keep_user_days(connection: psycopg.Connection, hours: Sequence[datetime]) -> None:
    """Let nobody drop the partitions of some hours until the caller's transaction ends.

    Those that were dropped since they were made are made again.
    """
    connection.execute("LOCK TABLE ONLY bytes_agg_user_1h IN ROW EXCLUSIVE MODE")
    make_user_days(connection, hours)


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
