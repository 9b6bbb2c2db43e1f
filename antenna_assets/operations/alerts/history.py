"""What a rule of alerts would have sent of published periods, without sending anything."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

import psycopg
from psycopg import sql

from antenna_assets.domain.alert_rule import is_reached
from antenna_assets.domain.hours import hour_key


@dataclass(frozen=True)
class Rule:
    """A rule to try.

    Attributes:
        percents: None: those of each user's rule in force.
        cool_down: None: that of each user's rule in force.
    """

    percents: Sequence[int] | None = None
    cool_down: timedelta | None = None


@dataclass(frozen=True)
class PastPeriod:
    """A published period.

    Attributes:
        users: how many would have got a notice, by percentage.
        quiet: how many would not, as another notice had come within the cool-down.
    """

    name: str
    users: Counter[int] = field(default_factory=Counter)
    quiet: Counter[int] = field(default_factory=Counter)


_REACHED = """
    SELECT used.id, used.{sum}, in_force.quota, rule.percents, rule.cool_down
    FROM {table} AS used
    JOIN ledger.quotas_at(%(period)s, %(last)s) AS in_force USING (id)
    LEFT JOIN user_metadata AS users USING (id)
    CROSS JOIN LATERAL (
        SELECT coalesce(%(percents)s::integer[], closest.percents) AS percents,
            coalesce(%(cool_down)s::interval, closest.cool_down) AS cool_down
        FROM alert_rule AS closest
        WHERE closest.period = %(period)s AND (closest.user_id = used.id OR closest.user_id IS NULL)
            AND (closest.plan = users.plan OR closest.plan IS NULL)
        ORDER BY closest.user_id NULLS LAST, closest.plan NULLS LAST LIMIT 1
    ) AS rule
    WHERE used.{key} = %(at)s AND in_force.quota IS NOT NULL AND used.{sum} > 0
        AND used.{sum}::numeric * 100
            >= in_force.quota::numeric * (SELECT min(percent) FROM unnest(rule.percents) AS percent)
"""


def past_hours(
    connection: psycopg.Connection, hours: Sequence[datetime], rule: Rule
) -> Iterator[PastPeriod]:
    """What a rule on hours would have sent of each published hour, ascending."""
    query = sql.SQL(_REACHED).format(
        table=sql.Identifier("bytes_agg_user_1h"),
        key=sql.Identifier("date"),
        sum=sql.Identifier("sum_user_bytes"),
    )
    last = {hour: hour + timedelta(hours=1, microseconds=-1) for hour in hours}
    yield from _past(connection, query, "hour", [(hour_key(hour), hour, last[hour]) for hour in hours], rule)


def past_days(connection: psycopg.Connection, days: Sequence[date], rule: Rule) -> Iterator[PastPeriod]:
    """What a rule on days would have sent of each published day, ascending."""
    query = sql.SQL(_REACHED).format(
        table=sql.Identifier("bytes_agg_user_1d"),
        key=sql.Identifier("day"),
        sum=sql.Identifier("sum_user_bytes"),
    )
    rows = connection.execute(
        "SELECT day, ledger.period_start('day', day + 1, (SELECT zone FROM ledger.billing_zone))"
        " - interval '1 microsecond' FROM unnest(%s::date[]) AS day ORDER BY day",
        [list(days)],
    ).fetchall()
    yield from _past(connection, query, "day", [(day.isoformat(), day, last) for day, last in rows], rule)


def _past(
    connection: psycopg.Connection,
    query: sql.Composed,
    period: str,
    periods: Sequence[tuple[str, date, datetime]],
    rule: Rule,
) -> Iterator[PastPeriod]:
    noticed: dict[tuple[str, int], datetime] = {}
    for name, at, last in periods:
        found = PastPeriod(name)
        values = {
            "period": period,
            "at": at,
            "last": last,
            "percents": None if rule.percents is None else list(rule.percents),
            "cool_down": rule.cool_down,
        }
        for id_, used, quota, percents, cool_down in connection.execute(query, values):
            for percent in percents:
                if not is_reached(int(used), quota, percent):
                    continue
                before = noticed.get((id_, percent))
                if before is not None and last - before < cool_down:
                    found.quiet[percent] += 1
                else:
                    noticed[id_, percent] = last
                    found.users[percent] += 1
        yield found
