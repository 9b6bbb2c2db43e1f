"""Which published verdicts a change of quotas concerns: who would be over, or over no more, in which hours.

Computed in PostgreSQL from the published tables, after the change and in its transaction.
"""

from dataclasses import dataclass
from datetime import datetime

import psycopg

SHOWN = 20
"""How many verdicts are listed; the rest is counted."""


@dataclass(frozen=True)
class Verdict:
    """A user in an hour whose verdict differs.

    Attributes:
        quota: by which the hour is judged now; None: unlimited, or none.
        over: whether the user is over it; before it was the opposite.
    """

    hour: datetime
    user: str
    bytes: int
    quota: int | None
    over: bool


@dataclass(frozen=True)
class Verdicts:
    """The published hours that a change concerns.

    Attributes:
        hours: those in which a user that it concerns has bytes, ascending.
        over: how many users are over in an hour where they were not.
        no_longer: how many are over no more.
        shown: the first of both, by hour and user.
        without_users: hours that cannot be judged here, as PostgreSQL no longer keeps their users.
    """

    hours: list[datetime]
    over: int = 0
    no_longer: int = 0
    shown: tuple[Verdict, ...] = ()
    without_users: int = 0


CONCERNED = (
    "CREATE TEMP TABLE quota_concerned (id text NOT NULL, since timestamptz NOT NULL, until timestamptz)"
    " ON COMMIT DROP"
)
"""Whose quotas changed, from an instant on and until before another one (null: until now)."""

LAST_JUDGED = "(SELECT coalesce(ledger.last_instant(max(hour)), '-infinity') FROM ledger.quota_hour)"
"""The last instant by whose quota a published hour is judged: later changes concern none."""


def find_verdicts(connection: psycopg.Connection) -> Verdicts:
    """Compare the verdicts of the rows of `quota_concerned` with those that are published, hour by hour."""
    connection.execute("ANALYZE quota_concerned")
    connection.execute(
        "CREATE TEMP TABLE quota_verdict ON COMMIT DROP AS"
        " SELECT side.hour, used.id, used.sum_user_bytes AS bytes, of_then.quota,"
        "  over.id IS NOT NULL AS was_over,"
        "  coalesce(used.sum_user_bytes > of_then.quota, false) AS is_over"
        " FROM quota_concerned AS concerned"
        " JOIN ledger.quota_hour AS side ON ledger.last_instant(side.hour) >= concerned.since"
        "  AND (concerned.until IS NULL OR ledger.last_instant(side.hour) < concerned.until)"
        " JOIN bytes_agg_user_1h AS used ON used.date = side.hour AND used.id = concerned.id"
        " JOIN user_metadata AS users ON users.id = used.id"
        " LEFT JOIN users_over_quota_1h AS over ON over.date = side.hour AND over.id = used.id"
        " CROSS JOIN LATERAL ledger.quota_at(used.id, 'hour', ledger.last_instant(side.hour)) AS of_then"
    )
    hours = connection.execute("SELECT DISTINCT hour FROM quota_verdict ORDER BY hour").fetchall()
    ((over, no_longer),) = connection.execute(
        "SELECT count(*) FILTER (WHERE is_over), count(*) FILTER (WHERE was_over) FROM quota_verdict"
        " WHERE is_over <> was_over"
    ).fetchall()
    shown = connection.execute(
        "SELECT hour, id, bytes, quota, is_over FROM quota_verdict WHERE is_over <> was_over"
        " ORDER BY hour, id LIMIT %s",
        [SHOWN],
    ).fetchall()
    ((without_users,),) = connection.execute(
        "SELECT count(*) FROM ledger.quota_hour AS side, ledger.user_hours AS kept"
        " WHERE side.hour < kept.kept_from"
        " AND ledger.last_instant(side.hour) >= (SELECT min(since) FROM quota_concerned)"
        " AND NOT EXISTS (SELECT FROM bytes_agg_user_1h AS used WHERE used.date = side.hour)"
    ).fetchall()
    return Verdicts(
        [hour for (hour,) in hours], over, no_longer, tuple(Verdict(*row) for row in shown), without_users
    )
