"""What a rule of alerts would have sent of published periods, without sending anything."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Literal

import psycopg

from antenna_assets.domain.alert_rule import is_reached
from antenna_assets.domain.hours import HOUR, MICROSECOND, hour_key


@dataclass(frozen=True)
class Rule:
    """A rule to try.

    Attributes:
        percents: None: those of each user's rule in force.
        cool_down: None: that of each user's rule in force.
    """

    percents: Sequence[int] | None = None
    cool_down: timedelta | None = None


Published = Literal["yes", "in part", "no", "no longer kept"]
"""Whether the users' bytes of a period are published: of a month perhaps those of some days only, and those
of an hour may be no longer kept (ANTENNA_KEEP_USER_HOURS)."""


@dataclass(frozen=True)
class PastPeriod:
    """A period that a rule was tried on.

    Attributes:
        published: of one that is not, or no longer kept, nothing is known.
        users: how many would have got a notice, by percentage.
        quiet: how many would not, as another notice had come within the cool-down.
    """

    name: str
    published: Published = "yes"
    users: Counter[int] = field(default_factory=Counter)
    quiet: Counter[int] = field(default_factory=Counter)


_USED = {
    "hour": "SELECT id, sum_user_bytes AS bytes FROM bytes_agg_user_1h WHERE date = %(at)s",
    "day": "SELECT id, sum_user_bytes AS bytes FROM bytes_agg_user_1d WHERE day = %(at)s",
    "month": "SELECT id, sum(sum_user_bytes) AS bytes FROM bytes_agg_user_1d"
    " WHERE day >= %(at)s AND day < ledger.next_period('month', %(at)s) GROUP BY id",
}
"""The published bytes of each user in a period."""

_PUBLISHED = {
    "hour": "SELECT CASE WHEN NOT EXISTS (SELECT FROM ledger.publication_head"
    "  WHERE asset = 'bytes_agg_user_1h' AND hour = %(at)s) THEN 'no'"
    " WHEN %(at)s < kept_from AND NOT EXISTS (SELECT FROM bytes_agg_user_1h WHERE date = %(at)s)"
    "  THEN 'no longer kept' ELSE 'yes' END FROM ledger.user_hours",
    "day": "SELECT CASE WHEN EXISTS (SELECT FROM ledger.period_state WHERE period = 'day' AND day = %(at)s)"
    " THEN 'yes' ELSE 'no' END",
    "month": "SELECT CASE"
    " WHEN EXISTS (SELECT FROM ledger.period_state WHERE period = 'month' AND day = %(at)s) THEN 'yes'"
    " WHEN EXISTS (SELECT FROM ledger.period_state WHERE period = 'day' AND day >= %(at)s"
    "  AND day < ledger.next_period('month', %(at)s)) THEN 'in part' ELSE 'no' END",
}

_QUOTAS = {
    "hour": "ledger.quotas_at('hour', %(end)s::timestamptz - interval '1 microsecond')",
    "day": "ledger.quotas_at_end('day', %(at)s)",
    "month": "ledger.quotas_at_end('month', %(at)s)",
}
"""The quotas that a period is published by: a user with a zone of its own has its own end of the period."""

_REACHED = """
    SELECT used.id, used.bytes, in_force.quota, rule.percents, rule.cool_down
    FROM ({used}) AS used
    JOIN {quotas} AS in_force USING (id)
    LEFT JOIN user_metadata AS users USING (id)
    CROSS JOIN LATERAL (
        SELECT coalesce(%(percents)s::integer[], closest.percents) AS percents,
            coalesce(%(cool_down)s::interval, closest.cool_down) AS cool_down
        FROM alert_rule AS closest
        WHERE closest.period = %(period)s AND (closest.user_id = used.id OR closest.user_id IS NULL)
            AND (closest.plan = users.plan OR closest.plan IS NULL)
        ORDER BY closest.user_id NULLS LAST, closest.plan NULLS LAST LIMIT 1
    ) AS rule
    WHERE in_force.quota IS NOT NULL AND used.bytes > 0
        AND used.bytes::numeric * 100
            >= in_force.quota::numeric * (SELECT min(percent) FROM unnest(rule.percents) AS percent)
"""


def past_hours(connection: psycopg.Connection, hours: Sequence[datetime], rule: Rule) -> Iterator[PastPeriod]:
    """What a rule on hours would have sent of each hour, ascending."""
    ends = [(hour_key(hour), hour, hour + HOUR) for hour in hours]
    yield from _past(connection, "hour", ends, rule)


def past_periods(
    connection: psycopg.Connection,
    period: Literal["day", "month"],
    first: datetime,
    end: datetime,
    rule: Rule,
) -> Iterator[PastPeriod]:
    """What a rule on days or months would have sent of each that lies in a span, ascending.

    They are those of the billing zone, from the one that contains the instant `first` to the one in which the
    span ends; of a month what is published of it.
    """
    ends = connection.execute(
        "SELECT day::date::text, day::date, ledger.period_start(%(period)s,"
        "  ledger.next_period(%(period)s, day::date), zone)"
        " FROM ledger.billing_zone, generate_series(ledger.period_of(%(period)s, %(first)s, zone)::timestamp,"
        "  ledger.period_of(%(period)s, %(last)s, zone)::timestamp, ('1 ' || %(period)s)::interval) AS day"
        " ORDER BY 2",
        {"period": period, "first": first, "last": end - MICROSECOND},
    ).fetchall()
    yield from _past(connection, period, ends, rule)


def _past(
    connection: psycopg.Connection,
    period: str,
    periods: Sequence[tuple[str, date, datetime]],
    rule: Rule,
) -> Iterator[PastPeriod]:
    query = _REACHED.replace("{used}", _USED[period]).replace("{quotas}", _QUOTAS[period])
    noticed: dict[tuple[str, int], datetime] = {}
    for name, at, end in periods:
        values = {
            "period": period,
            "at": at,
            "end": end,
            "percents": None if rule.percents is None else list(rule.percents),
            "cool_down": rule.cool_down,
        }
        ((published,),) = connection.execute(_PUBLISHED[period].encode(), values).fetchall()
        found = PastPeriod(name, published)
        if published in {"no", "no longer kept"}:
            yield found
            continue
        for id_, used, quota, percents, cool_down in connection.execute(query.encode(), values):
            for percent in percents:
                if not is_reached(int(used), quota, percent):
                    continue
                before = noticed.get((id_, percent))
                if before is not None and end - before < cool_down:
                    found.quiet[percent] += 1
                else:
                    noticed[id_, percent] = end
                    found.users[percent] += 1
        yield found
