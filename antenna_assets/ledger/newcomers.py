"""Publishing hours again in which a newcomer was unknown.

A user is a newcomer when its row of `user_metadata` came after hours were published. Publications are
searched in the order of their numbers, a bounded part at each tick of the sensor, so that neither five years
of hours nor a million newcomers make a tick slow.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import psycopg

from antenna_assets.domain.lifetimes import LONGEST_RUN
from antenna_assets.ledger.hours_to_publish import ask_for_hours_again

LONGEST_TRANSACTION = timedelta(hours=1)
"""Publications are numbered and timed before they are committed."""

HOURS_PER_TICK = 2_000
ROWS_PER_TICK = 500_000
"""How much a tick looks at, at most: publications, and the users or newcomers in them."""

# The condition is that of the index `publication_with_unknown_users`.
_WITH_UNKNOWN_USERS = (
    "asset = 'bytes_agg_user_1h' AND content -> 'unknown_users' ->> 'users' IS DISTINCT FROM '0'"
)

_SEARCHED_FOR = "arrived_at <= (SELECT arrived_until FROM ledger.newcomer_search)"


def ask_for_hours_of_newcomers(connection: psycopg.Connection, now: datetime) -> list[datetime]:
    """Search some more publications for newcomers; returns the hours that are asked for again.

    Hours whose users PostgreSQL no longer keeps (`ANTENNA_KEEP_USER_HOURS`) are left as they are.

    Args:
        now: by PostgreSQL's clock.
    """
    if connection.execute("SELECT EXISTS (SELECT FROM ledger.newcomer)").fetchone() != (True,):
        return []
    with connection.transaction():
        ((searched_to,),) = connection.execute(
            "SELECT publication FROM ledger.newcomer_search FOR UPDATE"
        ).fetchall()
        found = _publications(connection, searched_to) if _searching(connection) else []
        if not found:
            searched_to = _begin_round(connection, now)
            found = _publications(connection, searched_to)
        part = _affordable(connection, found)
        hours = _hours_with_newcomers(connection, sorted({hour for _, hour, _ in part}))
        if hours:
            ask_for_hours_again(connection, hours)
        connection.execute(
            "UPDATE ledger.newcomer_search SET publication = %s", [part[-1][0] if part else searched_to]
        )
    return hours


def _publications(connection: psycopg.Connection, after: int) -> list[tuple[int, datetime, int]]:
    """The next publications that have unknown users: their number, hour and rows."""
    query = (
        f"SELECT number, hour, rows FROM ledger.publication WHERE {_WITH_UNKNOWN_USERS} AND number > %s"  # noqa: S608
        " ORDER BY number LIMIT %s"
    )
    return connection.execute(query.encode(), [after, HOURS_PER_TICK]).fetchall()


def _begin_round(connection: psycopg.Connection, now: datetime) -> int:
    """All publications are searched: who came long ago is done with; begin again for the others.

    Returns:
        The number of the publication to begin after: 0 if somebody is searched for the first time, else the
        last one from before anybody came.
    """
    # A run reads its users when it begins, and may publish hours without the newcomers until it ends.
    done = (
        "DELETE FROM ledger.newcomer WHERE id IN (SELECT id FROM ledger.newcomer"  # noqa: S608
        f"  WHERE arrived_at < %s AND {_SEARCHED_FOR} LIMIT %s)"
    )
    connection.execute(done.encode(), [now - LONGEST_RUN, ROWS_PER_TICK])
    # Nobody comes who arrived before: arrivals are in the order of their commits.
    ((waiting, earliest),) = connection.execute(
        "WITH there AS (SELECT min(arrived_at) AS earliest, max(arrived_at) AS latest FROM ledger.newcomer),"
        " before AS (SELECT arrived_until FROM ledger.newcomer_search),"
        " begun AS (UPDATE ledger.newcomer_search SET arrived_until = latest FROM there"
        "  WHERE latest IS NOT NULL)"
        " SELECT latest > arrived_until, earliest FROM there, before"
    ).fetchall()
    if waiting or earliest is None:
        return 0
    query = (
        f"SELECT number FROM ledger.publication WHERE {_WITH_UNKNOWN_USERS} AND committed_at < %s"  # noqa: S608
        " ORDER BY number DESC LIMIT 1"
    )
    row = connection.execute(query.encode(), [earliest - LONGEST_TRANSACTION]).fetchone()
    return row[0] if row else 0


def _searching(connection: psycopg.Connection) -> int:
    """How many newcomers are searched for, as far as a tick looks."""
    query = (
        f"SELECT count(*) FROM (SELECT FROM ledger.newcomer WHERE {_SEARCHED_FOR} LIMIT %s)"  # noqa: S608
        " AS first"
    )
    return connection.execute(query.encode(), [ROWS_PER_TICK + 1]).fetchall()[0][0]


def _affordable(
    connection: psycopg.Connection, found: Sequence[tuple[int, datetime, int]]
) -> Sequence[tuple[int, datetime, int]]:
    """The first of some publications, at least one: either all users of an hour are looked at, or all
    newcomers are looked up in it."""
    newcomers, left = _searching(connection), ROWS_PER_TICK
    for number, (_, _, rows) in enumerate(found):
        left -= min(rows, newcomers)
        if left < 0:
            return found[: max(number, 1)]
    return found


def _hours_with_newcomers(connection: psycopg.Connection, hours: Sequence[datetime]) -> list[datetime]:
    """Those of some hours in which a newcomer has bytes as an unknown user."""
    query = (
        "SELECT hour FROM unnest(%(hours)s::timestamptz[]) AS hour WHERE EXISTS ("  # noqa: S608
        "  SELECT FROM bytes_agg_user_1h AS used JOIN ledger.newcomer USING (id)"
        # Else every partition is looked at.
        "  WHERE used.date = hour AND used.date = ANY(%(hours)s) AND used.email IS NULL"
        f"  AND {_SEARCHED_FOR}) ORDER BY hour"
    )
    rows = connection.execute(query.encode(), {"hours": list(hours)})
    return [hour for (hour,) in rows]
