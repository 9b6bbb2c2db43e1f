"""What users have used of their periods, in any order of landing, publishing, sweeping and dropping.

An oracle in plain Python has the events as they landed, and knows which of them each table has. It shares no
code and no time zones with what it checks.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest

from antenna_assets.domain.hours import HOUR, hour_of
from antenna_assets.domain.lifetimes import LIVE_RETENTION, LONGEST_RUN
from antenna_assets.domain.schema import LIVE_TABLES
from antenna_assets.ledger.commit import Observation, commit_batch, commit_heartbeat
from antenna_assets.ledger.live_tables import note_live_tables
from antenna_assets.ledger.periods_to_publish import period_candidates
from antenna_assets.operations.sweep.retention import drop_live_windows
from antenna_assets_tests import alerting
from antenna_assets_tests.alerting import EPOCH, WINDOW, Alerting

pytestmark = pytest.mark.services

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
LATENESS = timedelta(minutes=1)

BEGIN = datetime(2026, 10, 27, 18, 7, tzinfo=UTC)
"""Clocks were set before in Berlin and on Lord Howe Island, and are set five days later in St. John's."""

ZONES = [
    "UTC",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Europe/Berlin",
    "Pacific/Kiritimati",
    "America/St_Johns",
]
"""A user lives in each. Days begin at any quarter of an hour in UTC."""

AGES = [0, 0, 1, 30, 100, 160, 166, 168, 175, 200, 240, 400]
"""How many hours late an event is. Live windows take those of 168."""

# Since the beginning of an hour, or of the user's day.
OFFSETS = [
    timedelta(0),
    timedelta(microseconds=-1),
    MINUTE,
    14 * MINUTE,
    15 * MINUTE,
    30 * MINUTE,
    45 * MINUTE,
    HOUR - timedelta(microseconds=1),
]

Step = tuple[str, Any]
Spans = dict[tuple[str, str, datetime], datetime]
"""User, period and its beginning, with its end."""


def script_of(chance: random.Random) -> list[Step]:
    """Most begin with some days that are published, of which no live windows are left."""

    def event() -> tuple[int, int, timedelta, bool]:
        return (
            chance.randrange(len(ZONES)),
            chance.choice(AGES),
            chance.choice(OFFSETS),
            chance.random() < 0.6,
        )

    def step() -> Step:
        what = chance.choices(
            ["land", "late", "publish", "seal", "days", "catch_up", "sweep", "drop", "live", "wait"],
            [3, 6, 5, 1, 2, 2, 2, 1, 0.7, 3],
        )[0]
        return what, {
            "land": lambda: [event() for _ in range(chance.randint(1, 3))],
            "late": lambda: (chance.randrange(10), chance.randint(-3, 10)),
            "publish": lambda: chance.choice(["all", "all", "late", "old", "some", "first"]),
            "seal": lambda: chance.randrange(4),
            "days": lambda: chance.choice(["all", "first", "last", "second"]),
            "drop": lambda: chance.choice([7, 8, 20]),
            "wait": lambda: chance.choice([1, 30, 60, 330, 600, 1440, 3000, 10_100]),
        }.get(what, lambda: 0)()

    begun = [("land", [event() for _ in range(chance.randint(1, 5))])]
    if chance.random() < 0.8:
        begun += [("catch_up", 0), ("sweep", 0)]
    return begun + [step() for _ in range(chance.randint(5, 14))]


@dataclass
class Landed:
    """An event, and whether a live window has it."""

    user: str
    time: datetime
    bytes: int
    live: bool


@dataclass
class Oracle:
    """Which tables have which events."""

    now: datetime
    landed: list[Landed] = field(default_factory=list)
    hours: dict[datetime, int] = field(default_factory=dict)
    """Of each published hour, how many events of all hours had landed by then."""
    days: dict[date, int] = field(default_factory=dict)
    """The same of each published day."""
    users_from: datetime = LONG_AGO
    left_out: bool = False
    newest: datetime = LONG_AGO
    kept_from: datetime = LONG_AGO
    most: dict[tuple[str, str, datetime], int] = field(default_factory=dict)

    @property
    def live_from(self) -> datetime:
        if self.left_out:
            return datetime.max.replace(tzinfo=UTC)
        return max(self.now - LIVE_RETENTION, self.kept_from)

    def of(self, user: str, starts: datetime, ends: datetime) -> Iterator[tuple[int, Landed]]:
        for number, event in enumerate(self.landed):
            if event.user == user and starts <= event.time < ends:
                yield number, event

    def truth(self, user: str, starts: datetime, ends: datetime) -> int:
        return sum(event.bytes for _, event in self.of(user, starts, ends))

    def rows(self, hour: datetime) -> int:
        return sum(hour_of(event.time) == hour for event in self.landed)

    def up_to_date(self, hour: datetime) -> bool:
        """Whether the published hour has all rows."""
        behind = self.landed[self.hours.get(hour, 0) :]
        return not any(hour_of(event.time) == hour for event in behind)

    def by_hours(self, user: str, starts: datetime, ends: datetime) -> tuple[int, bool]:
        """The bytes that hours and windows have of a part of a day, and whether these are all."""
        found, whole = 0, True
        hour = hour_of(starts)
        while hour < ends:
            cut = hour < starts or hour + HOUR > ends
            in_it = list(self.of(user, max(hour, starts), min(hour + HOUR, ends)))
            published = 0
            if not cut and hour >= self.users_from:
                known = self.hours.get(hour, 0)
                published = sum(event.bytes for number, event in in_it if number < known)
            counted = hour >= self.live_from or hour not in self.hours
            live = sum(event.bytes for _, event in in_it if event.live and counted)
            found += max(published, live)
            kept = not cut and hour >= self.users_from and hour in self.hours and self.up_to_date(hour)
            empty = not self.rows(hour) and hour < self.newest
            whole = whole and (kept or hour >= self.live_from or empty)
            hour += HOUR
        return found, whole

    def kept(self, user: str, period: str, starts: datetime, ends: datetime) -> tuple[int, bool]:
        """The bytes that all tables have of a period, and whether these are all."""
        if period == "hour":
            return self.by_hours(user, starts, ends)
        found, whole = 0, True
        zone = ZoneInfo(user)
        day = starts.astimezone(zone).date()
        while (begin := beginning(day, zone)) < ends:
            end = beginning(day + DAY, zone)
            bytes_, all_ = self.by_hours(user, begin, end)
            if day in self.days:
                in_it = list(self.of(user, begin, end))
                of_day = sum(event.bytes for number, event in in_it if number < self.days[day])
                # Near the hours whose users are dropped, a day of which some are empty may stay as it is.
                if not all_ or begin < self.users_from + 2 * DAY:
                    bytes_, all_ = of_day, self.clean(day)
            found, whole = found + bytes_, whole and all_
            day += DAY
        # The hours that its ends cut are of other periods as well.
        return found, whole

    def clean(self, day: date) -> bool:
        """Whether no hour that a published day touches in any zone has rows since."""
        first = hour_of(min(beginning(day, ZoneInfo(zone)) for zone in ZONES))
        last = max(beginning(day + DAY, ZoneInfo(zone)) for zone in ZONES)
        known = self.days[day]
        return not any(first <= hour_of(event.time) < last for event in self.landed[known:])


def beginning(day: date, zone: ZoneInfo) -> datetime:
    """Of a day. No clock is set at midnight in these zones."""
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


def span(user: str, period: str, instant: datetime) -> tuple[datetime, datetime]:
    """The period of an instant."""
    if period == "hour":
        return hour_of(instant), hour_of(instant) + HOUR
    zone = ZoneInfo(user)
    day = instant.astimezone(zone).date()
    if period == "day":
        return beginning(day, zone), beginning(day + DAY, zone)
    first = day.replace(day=1)
    return beginning(first, zone), beginning((first + 31 * DAY).replace(day=1), zone)


@dataclass
class Machine:
    """Does the steps of a script, each of which is a method, in the ledger and in the oracle."""

    world: Alerting
    oracle: Oracle

    def land(self, drawn: list[tuple[int, int, timedelta, bool]]) -> None:
        oracle = self.oracle
        batch = []
        for number, age, offset, at_midnight in drawn:
            user = ZONES[number]
            instant = oracle.now - age * HOUR
            base = span(user, "day", instant)[0] if at_midnight else hour_of(instant)
            time = min(base + offset, oracle.now)
            if time < oracle.now - 35 * DAY:
                time = oracle.now
            batch.append((user, time))
        self.land_at(batch)

    def late(self, drawn: tuple[int, int]) -> None:
        """A row of somebody near one that has landed."""
        oracle = self.oracle
        if oracle.landed:
            near = oracle.landed[drawn[0] % len(oracle.landed)].time
            time = min(near + drawn[1] * HOUR, oracle.now)
            if time >= oracle.now - 35 * DAY:
                self.land_at([(ZONES[len(oracle.landed) % len(ZONES)], time)])

    def land_at(self, drawn: list[tuple[str, datetime]]) -> None:
        world, oracle = self.world, self.oracle
        batch = []
        for user, time in drawn:
            batch.append((user, time, 3 ** (len(oracle.landed) % 20) + len(oracle.landed)))
            window = EPOCH + (time - EPOCH) // WINDOW * WINDOW
            live = not oracle.left_out and window >= oracle.now - LIVE_RETENTION
            oracle.landed.append(Landed(*batch[-1], live))
        world.land(*batch)

    def closed(self) -> list[datetime]:
        """Closed hours that are not published with all their rows."""
        return [
            hour
            for (hour,) in self.world.connection.execute(
                "SELECT hour FROM ledger.hour_state WHERE NOT published AND closed_at IS NOT NULL"
                " ORDER BY hour"
            )
        ]

    def publish(self, which: str) -> None:
        oracle = self.oracle
        hours = self.closed()
        chosen = {
            "all": hours,
            "old": [hour for hour in hours if hour < oracle.now - DAY],
            "late": [hour for hour in hours if hour in oracle.hours],
            "some": [hour for hour in hours if oracle.rows(hour)][::2],
            "first": hours[:1],
        }[which]
        world = self.world
        empty = [hour for hour in chosen if not oracle.rows(hour)]
        world.connection.execute(
            "WITH hours AS (SELECT hour, %(first)s + row_number() OVER (ORDER BY hour) AS number"
            "  FROM unnest(%(hours)s::timestamptz[]) AS hour"
            "), known AS (UPDATE ledger.hour SET generation = generation + 1 WHERE hour = ANY(%(hours)s)"
            "  RETURNING hour, generation"
            "), sealed AS (INSERT INTO ledger.hour_generation (hour, generation, up_to_batch, rows, bytes)"
            "  SELECT hour, generation, %(batch)s, 0, 0 FROM known"
            "), head AS (INSERT INTO ledger.publication_head (asset, hour, generation)"
            "  SELECT 'bytes_agg_user_1h', hour, generation FROM known"
            "  ON CONFLICT (asset, hour) DO UPDATE SET generation = excluded.generation"
            "), issued AS (INSERT INTO ledger.certificate"
            "  (number, hour, generation, users_version, issued_at, text, previous_sha256, sha256)"
            "  SELECT number, hour, generation, 1, %(now)s, '', '', '' FROM hours JOIN known USING (hour)"
            ") UPDATE ledger.certificate_head SET number = %(first)s + cardinality(%(hours)s::timestamptz[])",
            {"first": world._certificates, "hours": empty, "batch": world._batches, "now": oracle.now},
        )
        world._certificates += len(empty)
        for hour in chosen:
            if hour not in set(empty):
                world.publish(hour)
            oracle.hours[hour] = len(oracle.landed)

    def catch_up(self, _: int) -> None:
        self.publish("all")
        self.days("all")

    def seal(self, number: int) -> None:
        """A run that has died before it published what it had sealed."""
        hours = self.closed()
        if not hours:
            return
        self.world.connection.execute(
            "WITH sealed AS (UPDATE ledger.hour SET generation = generation + 1 WHERE hour = %s RETURNING *)"
            " INSERT INTO ledger.hour_generation (hour, generation, up_to_batch, rows, bytes)"
            " SELECT hour, generation, %s, rows, bytes FROM sealed",
            [hours[number % len(hours)], self.world._batches],
        )

    def days(self, which: str) -> None:
        world, oracle = self.world, self.oracle
        ready = [
            one.day
            for one in period_candidates(
                world.connection,
                "day",
                first=date(2026, 9, 1),
                end=date(2026, 12, 31),
                now=oracle.now,
                wait=timedelta(0),
                limit=60,
            )
        ]
        chosen = {"all": ready, "first": ready[:1], "last": ready[-1:], "second": ready[1:2]}[which]
        for day in chosen:
            sums = {}
            for user in ZONES:
                zone = ZoneInfo(user)
                if used := oracle.truth(user, beginning(day, zone), beginning(day + DAY, zone)):
                    sums[user] = used
            generation = (
                1
                + world.connection.execute(
                    "SELECT coalesce(max(generation), 0) FROM ledger.period_generation WHERE day = %s", [day]
                ).fetchall()[0][0]
            )
            world.publish_day(day, sums, generation=generation)
            oracle.days[day] = len(oracle.landed)

    def sweep(self, _: int) -> None:
        now = self.oracle.now
        drop_live_windows(self.world.connection, LIVE_TABLES["bytes_agg_user"], now=now)
        for event in self.oracle.landed:
            window = EPOCH + (event.time - EPOCH) // WINDOW * WINDOW
            if window < now - LIVE_RETENTION - LONGEST_RUN:
                event.live = False

    def drop(self, days: int) -> None:
        oracle = self.oracle
        until = oracle.now - days * DAY
        self.world.connection.execute("SELECT ledger.drop_user_days(%s)", [until])
        midnight = until.replace(hour=0, minute=0, second=0, microsecond=0)
        oracle.users_from = max(oracle.users_from, midnight)

    def live(self, _: int) -> None:
        """The stream starts again, and leaves the table out, or counts again."""
        oracle = self.oracle
        oracle.left_out = not oracle.left_out
        kept = {} if oracle.left_out else dict.fromkeys(LIVE_TABLES, WINDOW)
        note_live_tables(self.world.connection, kept)
        if not oracle.left_out:
            oracle.kept_from = hour_of(oracle.now) + HOUR
            self.world.connection.execute("UPDATE ledger.live_table SET kept_from = %s", [oracle.kept_from])

    def wait(self, minutes: int) -> None:
        self.oracle.now = self.world.now = self.oracle.now + minutes * MINUTE
        if self.oracle.landed:
            commit_heartbeat(
                self.world.connection,
                "devices",
                self.world._batches,
                Observation(self.oracle.now),
                lateness=LATENESS,
            )

    def spans(self) -> Spans:
        """The periods of all events and those that run, and the ones before."""
        oracle = self.oracle
        found: Spans = {}
        for user in {event.user for event in oracle.landed}:
            instants = {event.time for event in oracle.landed if event.user == user}
            instants.add(oracle.now)
            for instant in instants:
                for period in ("hour", "day", "month"):
                    starts, ends = span(user, period, instant)
                    found[user, period, starts] = ends
        return found

    def check(self, script: list[Step]) -> None:
        """Compare all periods with the events: all is counted once, nothing is lost that was."""
        oracle = self.oracle
        spans = self.spans()
        ((newest,),) = self.world.connection.execute("SELECT max(hour) FROM ledger.hour").fetchall()
        oracle.newest = newest or oracle.newest
        answers = self.world.connection.execute(
            "SELECT found.starts, found.ends, (found.published + found.live)::bigint, found.exact"
            " FROM unnest(%s::text[], %s::text[], %s::timestamptz[]) WITH ORDINALITY"
            " AS ask (id, period, at, number)"
            " CROSS JOIN LATERAL ledger.period_usage_at(ask.id, ask.period, ask.at, %s) AS found"
            " ORDER BY ask.number",
            [
                [user for user, _, _ in spans],
                [period for _, period, _ in spans],
                [starts for _, _, starts in spans],
                oracle.now,
            ],
        ).fetchall()
        problems = []
        for (key, ends), (starts_, ends_, used, exact) in zip(spans.items(), answers, strict=True):
            user, period, starts = key
            assert (starts_, ends_) == (starts, ends)
            truth = oracle.truth(user, starts, ends)
            kept, whole = oracle.kept(user, period, starts, ends)
            before = oracle.most.get(key, 0)
            said = (
                f"{user} {period} from {starts}, now {oracle.now}: {used} of {truth} bytes, exact {exact},"
                f" of {kept} that are kept, whole {whole}; {before} before"
            )
            if exact and used != truth:
                problems.append(f"exact, and not true: {said}")
            if used > truth:
                problems.append(f"too much: {said}")
            if used < min(before, kept):
                problems.append(f"less than before: {said}")
            if whole and not exact:
                problems.append(f"not exact: {said}")
            oracle.most[key] = max(before, used)
        assert not problems, "\n".join([f"after {script}:", *problems])


def run(
    connection: psycopg.Connection, lake: Path, script: list[Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = Oracle(BEGIN)
    world = Alerting(connection, lake, BEGIN)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(
                alerting,
                "commit_batch",
                lambda to, plan, content, seen, **others: (
                    commit_batch(
                        to, plan, replace(content, live={}) if oracle.left_out else content, seen, **others
                    ),
                    # Else the end of the transaction drops it, which here is that of the whole script.
                    to.execute("DROP TABLE IF EXISTS staged_bytes_agg_user"),
                ),
            )
            for user in ZONES:
                world.user(user, None, zone=user)
            machine = Machine(world, oracle)
            for number, (what, how) in enumerate(script):
                getattr(machine, what)(how)
                machine.check(script[: number + 1])
    finally:
        world.engine.close()


@pytest.mark.parametrize("tens", range(6))
def test_what_users_have_used_is_what_the_oracle_says(
    connection: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tens: int
) -> None:
    for seed in range(10 * tens, 10 * tens + 10):
        with connection.transaction(force_rollback=True):
            run(connection, tmp_path / str(seed), script_of(random.Random(seed)), monkeypatch)


ANYBODY, KATHMANDU = 0, 1
MIDNIGHT = (timedelta(0), True)
ON_THE_HOUR = (timedelta(0), False)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(
            [
                ("land", [(KATHMANDU, 240, *MIDNIGHT)]),
                ("catch_up", 0),
                ("sweep", 0),
                ("land", [(ANYBODY, 238, *ON_THE_HOUR)]),
                ("publish", "all"),
                ("days", "all"),
            ],
            id="an hour is published again, and its day later",
        ),
        pytest.param(
            [
                ("land", [(KATHMANDU, 160, *MIDNIGHT)]),
                ("catch_up", 0),
                ("wait", 480),
                ("sweep", 0),
                ("land", [(ANYBODY, 165, *ON_THE_HOUR)]),
                ("catch_up", 0),
            ],
            id="a late row of a day of which live windows have the end alone",
        ),
        pytest.param(
            [
                ("land", [(KATHMANDU, 240, *MIDNIGHT)]),
                ("catch_up", 0),
                ("sweep", 0),
                ("drop", 7),
                ("land", [(ANYBODY, 400, *ON_THE_HOUR)]),
                ("catch_up", 0),
            ],
            id="a late row from before the first day, and users of hours dropped",
        ),
    ],
)
def test_what_was_used_becomes_no_less(
    connection: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: list[Step]
) -> None:
    run(connection, tmp_path, script, monkeypatch)
