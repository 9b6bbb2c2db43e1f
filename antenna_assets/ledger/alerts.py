"""Alerts in PostgreSQL: how far was looked, what is known of users' periods, alerts and their notices.

The rule is in `domain/alert_rule.py`; `operations/alerts/watch.py` looks.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import class_row

from antenna_assets.domain.alert_rule import Alert, Event, PeriodUsage, follow
from antenna_assets.ledger.outbox import Level, NewNotice, write_notices

PERIODS = ("hour", "day", "month")

NEWS = timedelta(minutes=15)
"""An alert is raised until so long after the end of its period; what is found later is history."""

_LONGEST = {"hour": timedelta(hours=1), "day": timedelta(days=2), "month": timedelta(days=33)}
"""No period lasts longer, whatever its zone does."""

ALERTS_OF_HOURS = (
    "WITH hours AS (SELECT * FROM unnest(%(hours)s::timestamptz[]) AS hour)"
    " SELECT period, starts, id FROM hours JOIN alert ON period = 'hour' AND ends = hour + interval '1 hour'"
    # Without an end, all alerts since an old hour would be looked at.
    " UNION SELECT period, starts, id FROM hours JOIN alert ON period <> 'hour'"
    "  AND ends > hour AND ends < hour + %(longest)s AND starts < hour + interval '1 hour'"
)
"""The users' periods with an alert that some hours are part of; its parameters are in `alerts_of_hours`."""

_ALERTS_OF_PERIODS = """
    SELECT DISTINCT alert.period, starts, id
    FROM ledger.period_certificate AS issued
    -- In all zones.
    CROSS JOIN LATERAL (
        SELECT issued.day::timestamp AT TIME ZONE 'UTC' - interval '14 hours' AS first,
            ledger.next_period(issued.period, issued.day)::timestamp AT TIME ZONE 'UTC' + interval '12 hours'
                AS last
    ) AS span
    JOIN alert ON alert.period <> 'hour' AND (issued.period = 'day' OR alert.period = 'month')
        AND ends > first AND ends < first + %(longest)s AND starts < last
    WHERE issued.number > %(after)s
"""

_HEADROOM = (
    "id, (extract(epoch FROM starts) * 1000000)::bigint, (extract(epoch FROM ends) * 1000000)::bigint,"
    " headroom"
)
"""The attributes of `UserHeadroom`."""

_WATCHED_USAGE = (
    f"SELECT {_HEADROOM}, noted, id, starts, ends, quota, published, live, exact, complete, was_published,"  # noqa: S608
    " percents, cool_down FROM ledger.watched_usage(%s, %s, %s, %s)"
)


@dataclass(frozen=True)
class AlertHead:
    """How far the watch has looked: a batch, a certificate, the users' version and its time, and when.

    Attributes:
        period_certificate: the newest one of days and months.
        basis: see `reach_basis`; None: not known.
    """

    batch: int
    certificate: int
    period_certificate: int
    users_version: int
    users_changed_at: datetime | None
    looked_at: datetime
    basis: str | None


class UserHeadroom(NamedTuple):
    """With how many more bytes a user reaches the next percentage of a quota; fewer change nothing.

    Attributes:
        starts, ends: the period, in microseconds since 1970; None: any, as there is no quota.
        headroom: bytes; 0: unknown.
    """

    id: str
    starts: int | None
    ends: int | None
    headroom: int


@dataclass(frozen=True)
class UserPeriod:
    """A row of `ledger.watched_usage` that an alert may come of."""

    id: str
    starts: datetime
    ends: datetime
    quota: int | None
    published: Any
    live: Any
    exact: bool
    complete: bool
    was_published: bool
    percents: list[int]
    cool_down: timedelta

    def usage(self, now: datetime, closed_before: datetime) -> PeriodUsage:
        """The period as the rule takes it; see `follow_users`."""
        return PeriodUsage(
            int(self.published),
            int(self.live),
            self.quota,
            complete=self.complete,
            over=self.complete or self.ends <= max(closed_before, now - NEWS),
            current=now < self.ends + NEWS and not self.was_published,
            exact=self.exact,
        )


def read_alert_head(connection: psycopg.Connection) -> AlertHead:
    """How far the watch has looked."""
    with connection.cursor(row_factory=class_row(AlertHead)) as cursor:
        heads = cursor.execute(
            "SELECT batch, certificate, period_certificate, users_version, users_changed_at, looked_at, basis"
            " FROM ledger.alert_head"
        ).fetchall()
    if not heads:
        raise psycopg.DataError("ledger.alert_head is empty: expected its one row")
    return heads[0]


def move_alert_head(connection: psycopg.Connection, head: AlertHead) -> None:
    """Write how far the watch has looked, in the transaction that has written what it saw."""
    connection.execute(
        "UPDATE ledger.alert_head SET batch = %s, certificate = %s, period_certificate = %s,"
        " users_version = %s, users_changed_at = %s, looked_at = %s, basis = %s",
        [
            head.batch,
            head.certificate,
            head.period_certificate,
            head.users_version,
            head.users_changed_at,
            head.looked_at,
            head.basis,
        ],
    )


def headroom_basis(connection: psycopg.Connection) -> str:
    """What everybody's headroom rests on: what was asked with another basis may be wrong."""
    return connection.execute("SELECT ledger.headroom_basis()").fetchall()[0][0]


def reach_basis(connection: psycopg.Connection) -> str:
    """What it rests on who has reached a percentage, besides bytes, users and quotas from now on."""
    return connection.execute("SELECT ledger.reach_basis()").fetchall()[0][0]


def headroom_of_all(connection: psycopg.Connection, period: str, now: datetime) -> Iterator[UserHeadroom]:
    """The headroom of all users at once, in their running periods. In a transaction.

    It is 0 of those who have reached a percentage that nobody may have been told of. Who has an alert in its
    period is not among them, nor who has moved to another zone lately.
    """
    with connection.cursor(name="headroom") as rows:
        rows.itersize = 10_000
        rows.execute(f"SELECT {_HEADROOM} FROM ledger.headroom_of_all(%s, %s)", [period, now])  # noqa: S608
        yield from map(UserHeadroom._make, rows)


def reached_in_ended(
    connection: psycopg.Connection, period: str, now: datetime, since: datetime
) -> list[str]:
    """Who has reached a percentage in a period that has ended since an instant."""
    rows = connection.execute(
        "SELECT id FROM ledger.headroom_of_all(%s, %s, %s) WHERE headroom = 0", [period, now, since]
    )
    return [id_ for (id_,) in rows]


def restated(connection: psycopg.Connection, hours: Sequence[datetime]) -> bool:
    """Whether one of some hours was ever published with fewer or more bytes than had landed of it.

    Once it is published again, users have used more without anything that landed.
    """
    return connection.execute(
        "SELECT EXISTS (SELECT FROM ledger.publication AS published"
        " JOIN ledger.hour_generation AS sealed USING (hour, generation)"
        " WHERE hour = ANY(%s) AND asset = 'bytes_agg_user_1h' AND published.bytes <> sealed.bytes)",
        [list(hours)],
    ).fetchall()[0][0]


def alerts_of_hours(
    connection: psycopg.Connection, hours: Sequence[datetime]
) -> list[tuple[str, datetime, str]]:
    """The users' periods with an alert that some hours are part of: period, its beginning, user."""
    return connection.execute(ALERTS_OF_HOURS, {"hours": hours, "longest": _LONGEST["month"]}).fetchall()


def alerts_of_periods(connection: psycopg.Connection, after: int) -> list[tuple[str, datetime, str]]:
    """The alerts of days and months that were certified after a certificate, and of months with such days.

    Those of the days beside them may be among them.
    """
    return connection.execute(_ALERTS_OF_PERIODS, {"after": after, "longest": _LONGEST["month"]}).fetchall()


@dataclass(frozen=True)
class Followed:
    """How many notices were written, and the headroom of all who were asked about."""

    notices: int
    headroom: Sequence[UserHeadroom]


def follow_users(
    connection: psycopg.Connection,
    users: Sequence[str],
    period: str,
    within: datetime,
    *,
    now: datetime,
    closed_before: datetime,
) -> Followed:
    """Bring the alerts of some users in one period up to date, and write the notices that are due.

    Args:
        period: hour, day or month.
        within: an instant of it.
        closed_before: every event of an earlier instant is counted, unless it is late.
    """
    rows = connection.execute(_WATCHED_USAGE, [list(users), period, within, now]).fetchall() if users else []
    headroom = [UserHeadroom._make(row[:4]) for row in rows]
    found = [UserPeriod(*row[5:]) for row in rows if row[4]]
    if not found:
        return Followed(0, headroom)
    known = _alerts_of(connection, period, found)
    cooling = _cooling(connection, period, found, now)
    rests_on = _newest_published(connection, {(one.starts, one.ends) for one in found})
    notices: list[NewNotice] = []
    changed: list[tuple] = []
    for one in found:
        usage = one.usage(now, closed_before)
        before = known.get((one.id, one.starts), {})
        for percent in sorted({*one.percents, *before}):
            alert, quiet = before.get(percent, (None, False))
            after, events = follow(alert, usage, percent)
            if after is None or not events:
                continue
            if alert is None:
                quiet = (one.id, percent) in cooling
            changed.append(_row(one, period, percent, after, quiet, now))
            if not quiet:
                first = after.notices - len(events) + 1
                notices += [
                    _notice(
                        one, period, percent, event, after, number, usage, rests_on[one.starts, one.ends], now
                    )
                    for number, event in enumerate(events, first)
                ]
    _store(connection, changed)
    return Followed(write_notices(connection, notices), headroom)


def _alerts_of(
    connection: psycopg.Connection, period: str, users: Sequence[UserPeriod]
) -> dict[tuple[str, datetime], dict[int, tuple[Alert, bool]]]:
    """The alerts of users' periods, by percentage, each with whether it is quiet."""
    rows = connection.execute(
        "SELECT id, starts, percent, figure, used, quota, notices, resolved, quiet FROM alert"
        " JOIN unnest(%s::text[], %s::timestamptz[]) AS asked (id, starts) USING (id, starts)"
        " WHERE period = %s",
        [[one.id for one in users], [one.starts for one in users], period],
    )
    alerts: dict[tuple[str, datetime], dict[int, tuple[Alert, bool]]] = {}
    for id_, starts, percent, figure, used, quota, notices, resolved, quiet in rows:
        alert = Alert(figure, int(used), quota, notices, resolved)
        alerts.setdefault((id_, starts), {})[percent] = (alert, quiet)
    return alerts


@dataclass(frozen=True)
class _Published:
    """The newest published hour of a period, its generation and the number of its certificate; or none."""

    hour: datetime | None = None
    generation: int | None = None
    certificate: int | None = None


def _newest_published(
    connection: psycopg.Connection, periods: Collection[tuple[datetime, datetime]]
) -> dict[tuple[datetime, datetime], _Published]:
    rows = connection.execute(
        "SELECT starts, ends, newest.hour, newest.generation, newest.number"
        " FROM unnest(%s::timestamptz[], %s::timestamptz[]) AS asked (starts, ends)"
        " LEFT JOIN LATERAL (SELECT hour, generation, number FROM ledger.certificate"
        "  WHERE hour >= date_trunc('hour', starts, 'UTC') AND hour < ends"
        "  ORDER BY hour DESC, number DESC LIMIT 1) AS newest ON true",
        [[starts for starts, _ in periods], [ends for _, ends in periods]],
    )
    return {(starts, ends): _Published(*newest) for starts, ends, *newest in rows}


def _cooling(
    connection: psycopg.Connection, period: str, users: Sequence[UserPeriod], now: datetime
) -> set[tuple[str, int]]:
    """The users and percentages of which a notice was written within the cool-down."""
    asked = [one for one in users if one.cool_down]
    rows = connection.execute(
        "SELECT DISTINCT id, percent FROM alert"
        " JOIN unnest(%(ids)s::text[], %(cool_downs)s::interval[]) AS asked (id, cool_down) USING (id)"
        " WHERE period = %(period)s AND NOT quiet AND raised_at > %(now)s - cool_down"
        # As the index has it, so that not all that a user ever had are looked at.
        "  AND starts > %(now)s - cool_down - %(longest)s - %(news)s",
        {
            "ids": [one.id for one in asked],
            "cool_downs": [one.cool_down for one in asked],
            "period": period,
            "now": now,
            "longest": _LONGEST[period],
            "news": NEWS,
        },
    )
    return {(id_, percent) for id_, percent in rows}


def _row(
    one: UserPeriod, period: str, percent: int, alert: Alert, quiet: bool, now: datetime
) -> tuple[object, ...]:
    return (
        one.id,
        period,
        one.starts,
        percent,
        one.ends,
        alert.figure,
        alert.used,
        alert.quota,
        alert.notices,
        alert.resolved,
        quiet,
        now,
        now,
    )


def _store(connection: psycopg.Connection, rows: Iterable[tuple]) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO alert (id, period, starts, percent, ends, figure, used, quota, notices, resolved,"
            "  quiet, raised_at, changed_at)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (id, period, starts, percent) DO UPDATE SET figure = excluded.figure,"
            "  used = excluded.used, quota = excluded.quota, notices = excluded.notices,"
            "  resolved = excluded.resolved, changed_at = excluded.changed_at",
            list(rows),
        )


def _notice(
    one: UserPeriod,
    period: str,
    percent: int,
    event: Event,
    alert: Alert,
    number: int,
    usage: PeriodUsage,
    rests_on: _Published,
    now: datetime,
) -> NewNotice:
    """A notice of a change of an alert.

    Its id is made of what it is about, so the same change has the same one whenever and however often it is
    found. A receiver that knows no user learns none from it.
    """
    about = f"{one.id}\0{period}\0{one.starts.isoformat()}\0{percent}\0{number}"
    key = hashlib.sha256(about.encode()).hexdigest()[:32]
    quota = "no limit" if alert.quota is None else f"{alert.quota:,} bytes"
    per = "an hour" if period == "hour" else f"a {period}"
    words = "no longer at" if alert.figure == "taken back" else "at"
    return NewNotice(
        f"alert_{key}",
        f"quota.{event}",
        level_of(percent),
        {
            "type": f"quota.{event}",
            "summary": f"{one.id} {words} {percent} % of {quota} {per}: {event}",
            "user": one.id,
            "period": period,
            "starts": one.starts.isoformat(),
            "ends": one.ends.isoformat(),
            "percent": percent,
            "quota": alert.quota,
            "used": alert.used,
            "reached": alert.figure != "taken back",
            "confirmed": alert.figure == "published",
            "published": usage.published,
            "live": usage.live,
            "hour": rests_on.hour and rests_on.hour.isoformat(),
            "generation": rests_on.generation,
            "certificate": rests_on.certificate,
            "number": number,
            "at": now.isoformat(),
        },
        user=one.id,
    )


def level_of(percent: int) -> Level:
    """How urgent it is that so many percent of a quota are used."""
    if percent >= 100:
        return "critical"
    return "warning" if percent >= 80 else "info"
