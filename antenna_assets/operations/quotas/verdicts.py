"""Which published verdicts a change of quotas concerns: who would be over, or over no more, in which hours,
days or months.

Computed in PostgreSQL from the published tables, after the change and in its transaction.
"""

from dataclasses import dataclass
from datetime import date, datetime

import psycopg

from antenna_assets.domain.periods import Period

SHOWN = 20
"""How many verdicts are listed; the rest is counted."""


@dataclass(frozen=True)
class Verdict:
    """A user in an hour, a day or a month whose verdict differs.

    Attributes:
        when: the hour, the day, or the first day of the month.
        quota: by which it is judged now; None: unlimited, or none.
        over: whether the user is over it; before it was the opposite.
    """

    when: date
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


@dataclass(frozen=True)
class PeriodVerdicts:
    """The published days or months that a change concerns.

    Attributes:
        days: those in which a user that it concerns has bytes, ascending; of months their first days.
        over: how many users are over in one where they were not.
        no_longer: how many are over no more.
        shown: the first of both, by day and user.
        what_if_first: the first one of a dry run that shows the quotas as if they had held in the newest
            ones; None if the verdicts are those that do change.
    """

    days: list[date]
    over: int = 0
    no_longer: int = 0
    shown: tuple[Verdict, ...] = ()
    what_if_first: date | None = None


CONCERNED = (
    "CREATE TEMP TABLE quota_concerned (id text NOT NULL, since timestamptz NOT NULL, until timestamptz)"
    " ON COMMIT DROP",
    "CREATE TEMP TABLE quota_period_concerned (id text NOT NULL, period text NOT NULL,"
    " since timestamptz NOT NULL, until timestamptz, first date) ON COMMIT DROP",
)
"""Whose quotas changed, from an instant on and until before another one (null: until now): those of hours,
and those of days and months, which are looked at from the day `first` on (null: all)."""

LAST_JUDGED = "(SELECT coalesce(ledger.last_instant(max(hour)), '-infinity') FROM ledger.quota_hour)"
"""The last instant by whose quota a published hour is judged: later changes concern none."""


def find_verdicts(connection: psycopg.Connection) -> Verdicts:
    """Compare the verdicts of the rows of `quota_concerned` with those that are published, hour by hour."""
    connection.execute("ANALYZE quota_concerned")
    connection.execute(
        "CREATE TEMP TABLE quota_verdict ON COMMIT DROP AS"
        " SELECT side.hour AS at, used.id, used.sum_user_bytes AS bytes, of_then.quota,"
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
    hours, over, no_longer, shown = _summed_up(connection)
    ((without_users,),) = connection.execute(
        "SELECT count(*) FROM ledger.quota_hour AS side, ledger.user_hours AS kept"
        " WHERE side.hour < kept.kept_from"
        " AND ledger.last_instant(side.hour) >= (SELECT min(since) FROM quota_concerned)"
        " AND NOT EXISTS (SELECT FROM bytes_agg_user_1h AS used WHERE used.date = side.hour)"
    ).fetchall()
    return Verdicts(hours, over, no_longer, shown, without_users)


def _summed_up(connection: psycopg.Connection) -> tuple[list, int, int, tuple[Verdict, ...]]:
    """The hours or days of `quota_verdict`, how many verdicts changed to either side, and the first of both;
    the table is dropped."""
    when = connection.execute("SELECT DISTINCT at FROM quota_verdict ORDER BY at").fetchall()
    ((over, no_longer),) = connection.execute(
        "SELECT count(*) FILTER (WHERE is_over), count(*) FILTER (WHERE was_over) FROM quota_verdict"
        " WHERE is_over <> was_over"
    ).fetchall()
    shown = connection.execute(
        "SELECT at, id, bytes, quota, is_over FROM quota_verdict WHERE is_over <> was_over"
        " ORDER BY at, id LIMIT %s",
        [SHOWN],
    ).fetchall()
    connection.execute("DROP TABLE quota_verdict")
    return (
        [at for (at,) in when],
        over,
        no_longer,
        tuple(Verdict(at, id_, int(bytes_), quota, is_over) for at, id_, bytes_, quota, is_over in shown),
    )


_OVER = {
    "day": "SELECT id FROM users_over_quota_1d WHERE day = head.day AND id = used.id",
    "month": "SELECT id FROM users_over_quota_1mo WHERE month = head.day AND id = used.id",
}
"""Whether a user is over quota in a period as it is published."""

_PERIOD_VERDICTS = """
    CREATE TEMP TABLE quota_verdict ON COMMIT DROP AS
    WITH concerned AS MATERIALIZED (
        SELECT * FROM quota_period_concerned WHERE period = %(period)s
    ), head AS MATERIALIZED (
        -- In the westernmost zone a period ends 26 hours after its end in the easternmost.
        SELECT * FROM (
            SELECT day, following, ledger.period_start('day', following, zone) AS ends
            FROM ledger.period_head
            CROSS JOIN LATERAL ledger.next_period(period, day) AS following
            CROSS JOIN ledger.billing_zone
            WHERE period = %(period)s
        ) AS published WHERE ends > (SELECT min(since) FROM concerned) - interval '26 hours'
    ), used AS MATERIALIZED (
        SELECT head.day, used.id, sum(used.sum_user_bytes) AS bytes
        FROM (SELECT DISTINCT id FROM concerned) AS users CROSS JOIN head
        CROSS JOIN LATERAL generate_series(head.day::timestamp, head.following - interval '1 day', '1 day')
            AS of_day
        JOIN bytes_agg_user_1d AS used ON used.day = of_day::date AND used.id = users.id
        GROUP BY head.day, used.id
    ), moved AS MATERIALIZED (
        -- A period ends where the next one begins, as in `ledger.quotas_at_end`.
        SELECT used.day, used.id, head.following, (
            SELECT zone FROM user_zone_change AS change
            WHERE change.id = used.id AND from_day <= head.following ORDER BY from_day DESC LIMIT 1
        ) AS zone
        FROM used JOIN head USING (day) WHERE used.id IN (SELECT id FROM user_zone_change)
    ), zoned AS MATERIALIZED (
        SELECT following, zone, ledger.period_start('day', following, zone) AS ends
        FROM (SELECT DISTINCT following, zone FROM moved WHERE zone IS NOT NULL) AS zones
    ), own AS (
        SELECT moved.day, moved.id, zoned.ends FROM moved JOIN zoned USING (following, zone)
    )
    SELECT used.day AS at, used.id, used.bytes, of_then.quota, over.id IS NOT NULL AS was_over,
        coalesce(used.bytes > of_then.quota, false) AS is_over
    FROM used JOIN head USING (day) JOIN concerned ON concerned.id = used.id
    LEFT JOIN own ON own.day = used.day AND own.id = used.id
    CROSS JOIN LATERAL (SELECT coalesce(own.ends, head.ends) - interval '1 microsecond' AS instant) AS last
    LEFT JOIN LATERAL ({over}) AS over ON true
    CROSS JOIN LATERAL ledger.quota_at(used.id, %(period)s, last.instant) AS of_then
    WHERE last.instant >= concerned.since AND (concerned.until IS NULL OR last.instant < concerned.until)
        AND (concerned.first IS NULL OR used.day >= concerned.first)
"""


def find_period_verdicts(
    connection: psycopg.Connection, period: Period, what_if_first: date | None
) -> PeriodVerdicts:
    """Compare the verdicts of the rows of `quota_period_concerned` with those that are published."""
    connection.execute("ANALYZE quota_period_concerned")
    query = _PERIOD_VERDICTS.replace("{over}", _OVER[period])
    connection.execute(query.encode(), {"period": period})
    return PeriodVerdicts(*_summed_up(connection), what_if_first)
