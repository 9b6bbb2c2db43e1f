"""Days and months with something left to publish: candidates for the sensor `ended_periods`.

A day is due when all hours that it touches, in any time zone in use, are closed and published; a month, when
all of its days are published and up to date. Hours that the ledger does not have count as empty.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import psycopg

from antenna_assets.clients.advisory_locks import ZONES
from antenna_assets.domain.periods import Period
from antenna_assets.ledger.failing import MOST_ATTEMPTS


@dataclass(frozen=True)
class PeriodCandidate:
    """A period to publish: a partition of Dagster's, in no running run and not waiting for a retry.

    Attributes:
        attempts: the runs that failed since it was last published.
        waits_until: of one that is published already: not before; None: it need not wait.
    """

    period: Period
    day: date
    attempts: int = 0
    waits_until: datetime | None = None


# `held`: periods of runs in progress, and those that wait for a retry or are stuck. A failure in the future:
# the clock was set back.
_DAYS = """
    WITH span AS MATERIALIZED (
        -- West of the billing zone the first hour may be one of the evening before.
        SELECT billing.zone, closed_to,
            greatest(%(first)s, (SELECT min(ledger.period_of('day', oldest, used))
                FROM ledger.zones_in_use() AS used)) AS first,
            least(%(end)s, ledger.period_of('day', closed_to, zone)) AS end_
        FROM ledger.billing_zone AS billing, (
            SELECT min(hour) AS oldest,
                max(hour) FILTER (WHERE closed_at IS NOT NULL) + interval '1 hour' AS closed_to
            FROM ledger.hour
        ) AS hours
    ), held AS MATERIALIZED (
        SELECT day FROM ledger.failing_period WHERE period = 'day'
            AND ((next_attempt > %(now)s AND ended <= %(now)s) OR attempts >= %(most)s)
        UNION SELECT unnest(%(running)s::date[])
    ), unsettled AS MATERIALIZED (
        SELECT hour FROM ledger.hour_state, span WHERE NOT published AND hour < closed_to
    ), blocked AS MATERIALIZED (
        SELECT DISTINCT (hour AT TIME ZONE zone)::date AS day FROM unsettled, span
    ), unpublished AS MATERIALIZED (
        -- The exact bounds, over all zones, are looked up for few of them only.
        SELECT day FROM (
            SELECT generate_series(first::timestamp, end_ - interval '1 day', '1 day')::date AS day FROM span
        ) AS over
        WHERE NOT EXISTS (SELECT FROM held WHERE held.day = over.day)
            AND NOT EXISTS (SELECT FROM blocked WHERE blocked.day = over.day)
            AND NOT EXISTS (
                SELECT FROM ledger.period_head AS head WHERE head.period = 'day' AND head.day = over.day)
    ), chosen AS (
        (SELECT day FROM unpublished ORDER BY day LIMIT %(limit)s)
        UNION (SELECT day FROM unpublished ORDER BY day DESC LIMIT 2)
    ), found AS (
        SELECT chosen.day, NULL::timestamptz AS published_at, hours.first_hour, hours.end_hour
        FROM chosen, LATERAL ledger.day_hours(chosen.day) AS hours
        UNION ALL
        SELECT state.day, published_at, first_hour, end_hour FROM ledger.period_state AS state
        WHERE period = 'day' AND NOT settled AND state.day >= %(first)s AND state.day < %(end)s
            AND NOT EXISTS (SELECT FROM held WHERE held.day = state.day)
    )
    SELECT found.day, coalesce(attempts, 0), published_at
    FROM span CROSS JOIN found
    LEFT JOIN ledger.failing_period AS failing ON failing.period = 'day' AND failing.day = found.day
    WHERE end_hour <= closed_to AND NOT EXISTS (
        SELECT FROM unsettled WHERE unsettled.hour >= first_hour AND unsettled.hour < end_hour)
    ORDER BY found.day
"""

_MONTHS = """
    WITH held AS MATERIALIZED (
        SELECT day FROM ledger.failing_period WHERE period = 'month'
            AND ((next_attempt > %(now)s AND ended <= %(now)s) OR attempts >= %(most)s)
        UNION SELECT unnest(%(running)s::date[])
    ), oldest AS MATERIALIZED (
        SELECT ledger.period_of('day', min(hour), zone) AS day
        FROM ledger.hour, ledger.billing_zone GROUP BY zone
    ), whole AS MATERIALIZED (
        -- All of its days, from the ledger's first one on, are published and up to date.
        SELECT month AS day FROM (
            SELECT day, date_trunc('month', day::timestamp)::date AS month FROM ledger.period_state
            WHERE period = 'day' AND settled
        ) AS days, oldest
        WHERE days.day >= oldest.day GROUP BY month, oldest.day
        HAVING count(*) = ledger.next_period('month', month) - greatest(month, oldest.day)
    ), unpublished AS MATERIALIZED (
        SELECT day FROM whole WHERE day >= %(first)s AND day < %(end)s
            AND NOT EXISTS (SELECT FROM held WHERE held.day = whole.day)
            AND NOT EXISTS (
                SELECT FROM ledger.period_head AS head WHERE head.period = 'month' AND head.day = whole.day)
    ), found AS (
        (SELECT day, NULL::timestamptz AS published_at FROM unpublished ORDER BY day LIMIT %(limit)s)
        UNION (SELECT day, NULL FROM unpublished ORDER BY day DESC LIMIT 2)
        UNION ALL
        SELECT state.day, published_at FROM ledger.period_state AS state JOIN whole USING (day)
        WHERE period = 'month' AND NOT settled AND state.day >= %(first)s AND state.day < %(end)s
            AND NOT EXISTS (SELECT FROM held WHERE held.day = state.day)
    )
    SELECT found.day, coalesce(attempts, 0), published_at
    FROM found
    LEFT JOIN ledger.failing_period AS failing ON failing.period = 'month' AND failing.day = found.day
    ORDER BY found.day
"""

_QUERIES: dict[Period, str] = {"day": _DAYS, "month": _MONTHS}


def period_candidates(
    connection: psycopg.Connection,
    period: Period,
    *,
    first: date,
    end: date,
    running: Collection[date] = (),
    now: datetime,
    wait: timedelta,
    limit: int,
) -> list[PeriodCandidate]:
    """The periods from `first` to before `end` that a tick can choose from, ascending.

    These are the oldest unpublished ones, the newest two, and all that are to be published again.

    Args:
        running: of runs in progress, which are excluded.
        wait: how long a period stays as it is before it is published again.
        limit: the most that a tick asks for.
    """
    values = {
        "first": first,
        "end": end,
        "running": list(running),
        "now": now,
        "most": MOST_ATTEMPTS,
        "limit": limit + 1,
    }
    return [
        PeriodCandidate(period, day, attempts, _wait(published_at, attempts, now, wait))
        for day, attempts, published_at in connection.execute(_QUERIES[period].encode(), values)
    ]


def _wait(published_at: datetime | None, attempts: int, now: datetime, wait: timedelta) -> datetime | None:
    if published_at is None or attempts:
        return None
    until = published_at + wait
    # Published in the future: the clock was set back, and it does not wait for it to catch up.
    return until if published_at <= now < until else None


def ask_for_periods_again(connection: psycopg.Connection, period: Period, since: datetime) -> list[date]:
    """Have published periods that end after an instant published again with the quotas of now; returns them.

    For a quota that was changed for the past, in the transaction that changes it. A period ends when it does
    in the westernmost of the zones in use.

    It waits for who publishes a period now: the head of one that is published for the first time is not seen
    yet, and its quotas may be those of before.
    """
    connection.execute("SELECT pg_advisory_xact_lock(%s)", [ZONES])
    rows = connection.execute(
        "WITH held AS (SELECT period, day FROM ledger.period_head"
        "  WHERE period = %(period)s AND day >= ("
        "   SELECT min(ledger.period_of(%(period)s, %(since)s, zone)) FROM ledger.zones_in_use() AS zone)"
        "  ORDER BY day FOR UPDATE OF period_head)"
        " UPDATE ledger.period_head AS head SET asked_users_version = users.version"
        " FROM held, ledger.users_version AS users"
        " WHERE head.period = held.period AND head.day = held.day RETURNING head.day",
        {"period": period, "since": since},
    )
    return sorted(day for (day,) in rows)
