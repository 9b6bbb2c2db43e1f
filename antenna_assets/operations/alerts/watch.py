"""`antenna alerts watch`: looks at what landed, was published, and changed of quotas, and keeps the alerts.

Recovery, for an operator:

- **Prepared.** Nothing. Alerts, their notices and how far was looked are written in one transaction.
- **After a crash.** Start it again, here or elsewhere: it looks on from there. What it missed meanwhile is
  history by then and raises nothing, unless its period still runs.
- **Several at once.** The second one waits until the first one has ended.
- **The stream and runs** never wait for it: it locks none of their rows.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import astuple, dataclass
from datetime import datetime, timedelta

import psycopg
import pyarrow as pa
from psycopg import sql

from antenna_assets.clients.advisory_locks import ALERTS, try_lock
from antenna_assets.clients.clock import database_now
from antenna_assets.domain.counted import counted
from antenna_assets.domain.hours import HOUR, MICROSECOND, hour_of
from antenna_assets.engines.contract import Dataset, Engine
from antenna_assets.engines.duckdb import DuckDBEngine
from antenna_assets.errors import AntennaError, EngineError
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.alerts import (
    NEWS,
    PERIODS,
    AlertHead,
    UserHeadroom,
    alerts_of_hours,
    alerts_of_periods,
    follow_users,
    headroom_basis,
    headroom_of_all,
    move_alert_head,
    reach_basis,
    reached_in_ended,
    read_alert_head,
    restated,
)
from antenna_assets.ledger.live_tables import live_tables_left_out
from antenna_assets.ledger.publications import ForgottenMeanwhile, require_nobody_forgotten
from antenna_assets.operations.alerts.headroom import SLOT, Headroom, Landed
from antenna_assets.operations.alerts.resuming import Waiting, open_connection, resuming

BATCHES = 200
"""The most micro-batches of one look: what a look reads is bounded."""

USERS = 10_000
"""The most users that one statement asks about, and whose changed quotas are asked about one by one."""

OVERLAP = timedelta(minutes=1)
"""Changes of quotas are looked for from so long before the newest that is known, as clocks are set back."""

MEMORY = "256MiB"
"""DuckDB's memory limit: it sums up three columns of one look's files."""

PAUSE_SECONDS = 1.0
"""Between two looks, if nothing was left."""

_LANDED = pa.schema([("id", pa.string()), ("timestamp", pa.timestamp("us", tz="UTC")), ("bytes", pa.int64())])
_BY_USER = pa.schema([("id", pa.string()), ("slot", pa.int64()), ("bytes", pa.int64())])
_SUMS = f"""
SELECT id, epoch_us(timestamp) // {SLOT} AS slot, sum(bytes)::BIGINT AS bytes
FROM landed GROUP BY ALL
"""  # noqa: S608


class WatchRunning(AntennaError):
    """Another watch holds the lock."""


@dataclass(frozen=True)
class Look:
    """What one look has seen: micro-batches, certificates, users' periods, and the notices that were due."""

    batches: int
    certificates: int
    users: int
    notices: int


class Periods:
    """Users' periods to look at, each once: by period, an instant within, and user."""

    def __init__(self) -> None:
        self._users: dict[tuple[str, datetime], set[str]] = defaultdict(set)

    def add(self, period: str, within: datetime, users: Iterable[str]) -> None:
        self._users[period, within].update(users)

    def add_alerts(self, alerts: Iterable[tuple[str, datetime, str]]) -> None:
        """Add those of alerts: each with its period, the beginning of that, and its user."""
        for period, starts, user in alerts:
            self.add(period, starts, [user])

    def pieces(self) -> Iterable[tuple[str, datetime, list[str]]]:
        """Period, instant and users, so many at a time."""
        for (period, within), users in sorted(self._users.items()):
            ordered = sorted(users)
            for start in range(0, len(ordered), USERS):
                yield period, within, ordered[start : start + USERS]


def look(
    connection: psycopg.Connection,
    engine: Engine,
    lake: str,
    headroom: Headroom,
    now: datetime | None = None,
) -> Look:
    """Look at everything that is new since the last look, and write the alerts and notices that it makes.

    All of it is one transaction with one snapshot: what the stream counts and what is published are seen as
    they fit each other.

    Args:
        lake: the lake's root.
        headroom: of the looks before, on the same connection; it is brought up to date.
        now: None: PostgreSQL's clock.

    Raises:
        ForgottenMeanwhile: a user was forgotten since the connection was opened.
        EngineError: a landed file cannot be read.
            After each of them nothing was written.
    """
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        # Before the snapshot, in which the fence of `forget-user` is looked up at the end: forgetting waits
        # for who has this lock, and a snapshot that is taken later sees a fence that was raised before.
        connection.execute("LOCK TABLE ledger.alert_head IN ROW EXCLUSIVE MODE")
        now, before = now or database_now(connection), read_alert_head(connection)
        stream = connection.execute("SELECT batch, low_watermark FROM ledger.head").fetchone()
        newest, watermark = stream or (before.batch, None)
        version, changed_at = connection.execute(
            "SELECT version, changed_at FROM ledger.users_version"
        ).fetchall()[0]
        # A ledger that was restored from a backup counts its batches anew.
        first = min(before.batch, newest)
        basis = reach_basis(connection)
        certificate, period_certificate = _newest_certificates(connection)
        head = AlertHead(
            min(newest, first + BATCHES), certificate, period_certificate, version, changed_at, now, basis
        )
        certified = _hours_certified_since(connection, before.certificate)
        headroom.rest_on(headroom_basis(connection))
        if restated(connection, certified):
            headroom.forget()
        periods = Periods()
        longer = _longer_quotas(connection)
        for hour, landed in _landed(connection, engine, lake, first, head.batch, now, longer=longer):
            _add_touched(connection, periods, headroom, hour, landed, now, longer=longer)
        _add_published(connection, periods, certified, now)
        periods.add_alerts(alerts_of_periods(connection, before.period_certificate))
        _add_ended(connection, periods, max(watermark or now - NEWS, now - NEWS))
        changed: dict[str, list[str]] | None = {}
        if version != before.users_version:
            known = min(before.users_changed_at or before.looked_at, before.looked_at)
            changed = _changed(connection, known - OVERLAP, now)
        if changed is None:
            headroom.forget()
        if changed is None or before.basis not in (None, basis):
            _add_reached(connection, periods, headroom, now, longer=longer)
        if changed:
            _add_changed(connection, periods, changed, now)
        users, followed = 0, []
        for period, within, some in periods.pieces():
            users += len(some)
            found = follow_users(connection, some, period, within, now=now, closed_before=watermark or within)
            followed.append((period, found))
            commit_point("alerts.followed")
        move_alert_head(connection, head)
        require_nobody_forgotten(connection)
        commit_point("alerts.written")
    # Not before: of an alert that was not written after all, the user is asked about again.
    for period, found in followed:
        headroom.keep(period, found.headroom)
    commit_point("alerts.committed")
    notices = sum(found.notices for _, found in followed)
    return Look(head.batch - first, head.certificate - before.certificate, users, notices)


def fill(connection: psycopg.Connection, headroom: Headroom, now: datetime | None = None) -> None:
    """Ask for everybody's headroom at once, which is far quicker than of each who gets bytes.

    What the next look finds to have landed may be counted already: then it asks earlier than it must.
    """
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        now = now or database_now(connection)
        headroom.rest_on(headroom_basis(connection))
        # Sums of an hour are short, and everybody begins a new one soon.
        for period in PERIODS[1:] if _longer_quotas(connection) else ():
            _keep_all(connection, headroom, period, now)
        headroom.filled = True


def _keep_all(connection: psycopg.Connection, headroom: Headroom, period: str, now: datetime) -> list[str]:
    """Keep everybody's headroom in the running periods; who has reached a percentage."""
    reached = []

    def noted() -> Iterator[UserHeadroom]:
        for one in headroom_of_all(connection, period, now):
            if not one.headroom:
                reached.append(one.id)
            yield one

    headroom.keep(period, noted())
    return reached


def _newest_certificates(connection: psycopg.Connection) -> tuple[int, int]:
    """The numbers of the newest one of hours, and of days and months."""
    return connection.execute(
        "SELECT hours.number, periods.number"
        " FROM ledger.certificate_head AS hours, ledger.period_certificate_head AS periods"
    ).fetchall()[0]


def _longer_quotas(connection: psycopg.Connection) -> bool:
    """Whether anybody has a quota of a day or a month."""
    return connection.execute(
        "SELECT EXISTS (SELECT FROM user_quota_change WHERE period <> 'hour')"
        " OR EXISTS (SELECT FROM plan_quota_change WHERE period <> 'hour')"
    ).fetchall()[0][0]


def _landed(
    connection: psycopg.Connection,
    engine: Engine,
    lake: str,
    after: int,
    until: int,
    now: datetime,
    *,
    longer: bool,
) -> Iterator[tuple[datetime, list[Landed]]]:
    """What landed with some batches, by hour, of hours that can be part of a running period."""
    oldest = now - timedelta(days=32) if longer else _running(now)
    rows = connection.execute(
        "SELECT hour, array_agg(path) FROM ledger.file"
        " WHERE kind = 'landed' AND batch > %s AND batch <= %s AND hour > %s GROUP BY hour ORDER BY hour",
        [after, until, oldest],
    )
    for hour, paths in rows.fetchall():
        files = Dataset([f"{lake}/{path}" for path in paths], _LANDED)
        found = engine.read(_SUMS, {"landed": files}, _BY_USER)
        yield hour, list(zip(*(column.to_pylist() for column in found.columns), strict=True))


def _running(now: datetime) -> datetime:
    """Later hours are running, or ended so recently that their alerts are news."""
    return now - HOUR - NEWS


def _add_touched(
    connection: psycopg.Connection,
    periods: Periods,
    headroom: Headroom,
    hour: datetime,
    landed: list[Landed],
    now: datetime,
    *,
    longer: bool,
) -> None:
    """Add the users of events that landed, as far as they have used up their headroom."""
    if hour > _running(now):
        periods.add("hour", hour, headroom.spend("hour", landed))
    if longer:
        asked = {period: headroom.spend(period, landed) for period in PERIODS[1:]}
        if not any(asked.values()):
            return
        ends = [hour + HOUR - MICROSECOND] if _a_day_begins_within(connection, hour) else []
        for period, users in asked.items():
            for within in (hour, *ends):
                periods.add(period, within, users)


def _a_day_begins_within(connection: psycopg.Connection, hour: datetime) -> bool:
    """Whether a day begins between an hour's first instant and its end, in any zone that users have."""
    return connection.execute(
        "SELECT EXISTS (SELECT FROM ledger.zones_in_use() AS zone"
        " CROSS JOIN LATERAL (SELECT (%(hour)s AT TIME ZONE 'UTC')::date) AS of_hour (day)"
        # East of Greenwich a day begins on the day before.
        " CROSS JOIN LATERAL (VALUES (day), (day + 1)) AS days (near)"
        " CROSS JOIN LATERAL ledger.period_start('day', near, zone) AS begins"
        " WHERE begins > %(hour)s AND begins < %(hour)s + interval '1 hour')",
        {"hour": hour},
    ).fetchall()[0][0]


def _hours_certified_since(connection: psycopg.Connection, number: int) -> list[datetime]:
    rows = connection.execute("SELECT DISTINCT hour FROM ledger.certificate WHERE number > %s", [number])
    return [hour for (hour,) in rows]


def _add_published(
    connection: psycopg.Connection, periods: Periods, hours: Sequence[datetime], now: datetime
) -> None:
    """Add those who may be confirmed or corrected by hours that were certified.

    Those are who has an alert in one, or is over quota in one that is news.
    """
    periods.add_alerts(alerts_of_hours(connection, hours))
    # Without live sums nothing was raised by them.
    table = (
        "bytes_agg_user_1h" if "bytes_agg_user" in live_tables_left_out(connection) else "users_over_quota_1h"
    )
    users = sql.SQL("SELECT id FROM {} WHERE date = %s").format(sql.Identifier(table))
    for hour in hours:
        if hour + HOUR + NEWS > now:
            periods.add("hour", hour, [id_ for (id_,) in connection.execute(users, [hour])])


def _add_ended(connection: psycopg.Connection, periods: Periods, before: datetime) -> None:
    """Add the alerts whose periods have ended and that are not resolved."""
    ended = connection.execute(
        "SELECT DISTINCT period, starts, id FROM alert WHERE NOT resolved AND ends <= %s", [before]
    )
    periods.add_alerts(ended)


def _add_reached(
    connection: psycopg.Connection, periods: Periods, headroom: Headroom, now: datetime, *, longer: bool
) -> None:
    """Add who may be at a percentage that nobody was told of, since rules, or quotas of the past or of many
    users, are others: what reaches it may have landed long ago. So everybody is asked about, which fills the
    headroom."""
    _add_open(connection, periods)
    moved = connection.execute(
        "SELECT id FROM ledger.newest_zones() WHERE from_day > (%s AT TIME ZONE 'UTC')::date - 40", [now]
    ).fetchall()
    running, *ended = _running_and_news(connection, now)
    for period in PERIODS if longer else PERIODS[:1]:
        # Nobody's zone counts for hours, and whoever has moved lately is not among all.
        elsewhere = [] if period == "hour" else [id_ for (id_,) in moved]
        periods.add(period, running, _keep_all(connection, headroom, period, now) + elsewhere)
        for since in ended:
            periods.add(period, since, reached_in_ended(connection, period, now, since) + elsewhere)
    headroom.filled = True


def _add_open(connection: psycopg.Connection, periods: Periods) -> None:
    periods.add_alerts(
        connection.execute("SELECT DISTINCT period, starts, id FROM alert WHERE NOT resolved").fetchall()
    )


def _changed(connection: psycopg.Connection, after: datetime, now: datetime) -> dict[str, list[str]] | None:
    """Who may have other quotas, by period, with newcomers, who have theirs since ever; None if they are so
    many that everybody can be asked about instead."""
    newcomers = connection.execute(
        "SELECT id FROM ledger.newcomer WHERE arrived_at > %s LIMIT %s", [after, USERS + 1]
    ).fetchall()
    changed = {}
    for period in PERIODS:
        rows = connection.execute(
            "SELECT id FROM ledger.quotas_changed(%s, %s, %s) LIMIT %s", [period, after, now, USERS + 1]
        ).fetchall()
        changed[period] = [id_ for (id_,) in (*rows, *newcomers)]
        if len(changed[period]) > USERS:
            return None
    return changed


def _add_changed(
    connection: psycopg.Connection, periods: Periods, changed: Mapping[str, Sequence[str]], now: datetime
) -> None:
    """Add who may have other quotas, and the open alerts: a quota may have been changed for the time before,
    too."""
    _add_open(connection, periods)
    for period, users in changed.items():
        for within in _running_and_news(connection, now):
            periods.add(period, within, users)


def _running_and_news(connection: psycopg.Connection, now: datetime) -> list[datetime]:
    """Instants of the running periods, and of those that ended so recently that their alerts are news."""
    hour = hour_of(now)
    ended = hour_of(now - NEWS) != hour or _a_day_begins_within(connection, hour)
    return [now, now - NEWS] if ended else [now]


class Watch:
    """Looks again and again, on one connection, and goes on after PostgreSQL was away.

    Args:
        lake: the lake's root.
        say: takes one line of progress.
        stop: set it to stop after the look in progress.
    """

    def __init__(
        self, postgres_url: str, lake: str, *, say: Callable[[str], None], stop: threading.Event
    ) -> None:
        self._url = postgres_url
        self._lake = lake
        self._say = say
        self._stop = stop
        self._waiting = Waiting(say)

    def once(self) -> Look:
        """Look at everything that is new by now.

        Raises:
            WatchRunning: another watch is running, and does it.
            DatabaseError, EngineError: see `look`.
        """
        seen, headroom = Look(0, 0, 0, 0), Headroom()
        with (
            open_connection(self._url, "watch") as connection,
            closing(DuckDBEngine(memory_limit=MEMORY)) as engine,
        ):
            if not try_lock(connection, ALERTS):
                raise WatchRunning("another `antenna alerts watch` is running, and looks at what is new")
            while not self._stop.is_set():
                one = look(connection, engine, self._lake, headroom)
                seen = Look(*(sum(pair) for pair in zip(astuple(seen), astuple(one), strict=True)))
                if one.batches < BATCHES:
                    break
        return seen

    def run(self) -> None:
        """Look until stopped.

        Raises:
            DatabaseUnfit, psycopg.Error: what waiting cannot repair.
        """
        with closing(DuckDBEngine(memory_limit=MEMORY)) as engine:
            resuming(lambda: self._run(engine), self._waiting, self._stop)

    def _run(self, engine: Engine) -> None:
        while not self._stop.is_set():
            with open_connection(self._url, "watch") as connection, suppress(ForgottenMeanwhile):
                if self._has_lock(connection):
                    self._look_on(connection, engine)

    def _look_on(self, connection: psycopg.Connection, engine: Engine) -> None:
        """Look until stopped.

        Raises:
            ForgottenMeanwhile: a user was forgotten: the next connection is younger.
        """
        headroom = Headroom()
        while not self._stop.is_set():
            if not headroom.filled:
                fill(connection, headroom)
            try:
                seen = look(connection, engine, self._lake, headroom)
            except EngineError as error:
                # A lake that is away, or a file that was merged and swept: the next look reads its new name.
                self._waiting.began(str(error))
                self._stop.wait(PAUSE_SECONDS)
                continue
            self._waiting.ended()
            if seen.notices:
                self._say(counted(seen.notices, "notice"))
            if seen.batches < BATCHES:
                self._stop.wait(PAUSE_SECONDS)

    def _has_lock(self, connection: psycopg.Connection) -> bool:
        """Whether this is the only watch, after waiting until it is; False if stopped before."""
        other = False
        while not try_lock(connection, ALERTS):
            if not other:
                self._say("another watch is running; this one takes over when it ends")
                other = True
            if self._stop.wait(PAUSE_SECONDS):
                return False
        self._say("watching")
        return True
