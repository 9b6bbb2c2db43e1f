"""The watch against an oracle in plain Python: events, late ones, publications, quotas and kills in any order."""

from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import hour_of
from antenna_assets.operations.alerts.headroom import Headroom
from antenna_assets_tests.alerting import Alerting

pytestmark = pytest.mark.services

EVENING = datetime(2026, 11, 22, 17, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
# Midnight in Kathmandu is 18:15 in UTC.
ZONES = {"ann": ZoneInfo("UTC"), "bob": ZoneInfo("Asia/Kathmandu"), "cid": ZoneInfo("UTC")}
USERS = tuple(ZONES)
NEWCOMER = "cid"
PERCENTS = ((50, 80, 90, 100, 120), (30, 100), (70,))
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)

Step = tuple[str, int, int]

steps = st.lists(
    st.one_of(
        st.tuples(st.just("event"), st.integers(0, 2), st.integers(0, 60)),
        st.tuples(st.just("late"), st.integers(0, 2), st.integers(1, 60)),
        st.tuples(st.just("quota"), st.integers(0, 3), st.integers(0, 300)),
        # For the time before: of all periods that run.
        st.tuples(st.just("correct"), st.integers(0, 3), st.integers(0, 300)),
        st.tuples(st.just("rule"), st.integers(0, 3), st.integers(0, 2)),
        # Two of three have their metadata from the beginning.
        st.tuples(st.just("arrive"), st.just(0), st.just(0)),
        st.tuples(st.just("publish"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("restate"), st.integers(0, 2), st.integers(0, 150)),
        st.tuples(st.just("wait"), st.integers(1, 50), st.just(0)),
        st.tuples(st.just("look"), st.just(0), st.just(0)),
        st.tuples(st.just("kill"), st.integers(0, 1), st.just(0)),
        # With or without asking for everybody at once.
        st.tuples(st.just("restart"), st.integers(0, 1), st.just(0)),
    ),
    min_size=15,
    max_size=40,
)


class Killed(Exception):
    """The watch died at a failpoint."""


Key = tuple[str, str, datetime]
"""User, period and its beginning."""


@dataclass
class Oracle:
    """What must be known, from the facts alone. A period's quota is the newest of before its end."""

    now: datetime
    events: list[tuple[str, datetime, int]] = field(default_factory=list)
    quotas: dict[tuple[str, str], list[tuple[datetime, int]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    percents: dict[tuple[str, str], tuple[int, ...]] = field(
        default_factory=lambda: defaultdict(lambda: PERCENTS[0])
    )
    published: dict[datetime, tuple[dict[str, int], int]] = field(default_factory=dict)
    """Of each published hour: the sums, and how many events had landed."""
    seen_published: set[datetime] = field(default_factory=set)
    raised: set[tuple[Key, int]] = field(default_factory=set)

    def periods(self) -> dict[Key, datetime]:
        """The periods that have events, each with its end."""
        found = {}
        for user, time, _ in self.events:
            found[user, "hour", hour_of(time)] = hour_of(time) + HOUR
            local = time.astimezone(ZONES[user])
            begin, end = (
                datetime(local.year, local.month, local.day, tzinfo=ZONES[user]) + timedelta(days=days)
                for days in (0, 1)
            )
            found[user, "day", begin.astimezone(UTC)] = end.astimezone(UTC)
        return found

    def used(self, key: Key, end: datetime) -> int:
        user, _, begin = key
        used = 0
        for hour in {hour_of(time) for _, time, _ in self.events}:
            whole = begin <= hour and hour + HOUR <= end
            if whole and self.is_clean(hour):
                used += self.published[hour][0].get(user, 0)
            else:
                used += sum(
                    bytes_
                    for who, time, bytes_ in self.events
                    if who == user and hour_of(time) == hour and begin <= time < end
                )
        return used

    def is_clean(self, hour: datetime) -> bool:
        """Whether an hour is published with everything that landed."""
        landed = len([1 for _, time, _ in self.events if hour_of(time) == hour])
        return hour in self.published and self.published[hour][1] == landed

    def reached(self, key: Key, end: datetime, percent: int) -> bool:
        instant = min(self.now, end - timedelta(microseconds=1))
        quotas = sorted(
            (since, number) for number, (since, _) in enumerate(self.quotas[key[:2]]) if since <= instant
        )
        if not quotas:
            return False
        quota = self.quotas[key[:2]][quotas[-1][1]][1]
        used = self.used(key, end)
        return used > 0 and used * 100 >= quota * percent

    def look(self) -> None:
        """What a look has to raise: what is reached in periods that are news."""
        for key, end in self.periods().items():
            hours = [key[2] + number * HOUR for number in range(24)] if key[1] == "day" else [key[2]]
            if self.now < end + 15 * MINUTE and not self.seen_published.issuperset(hours):
                percents = self.percents[key[:2]]
                self.raised |= {(key, percent) for percent in percents if self.reached(key, end, percent)}
        self.seen_published = set(self.published)


def run(
    connection: psycopg.Connection, lake: Path, script: list[Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, oracle = Alerting(connection, lake, EVENING), Oracle(EVENING)
    for user in USERS:
        if user != NEWCOMER:
            arrive(world, oracle, user)
    for what, first, second in [*script, ("look", 0, 0)]:
        world.now += timedelta(seconds=1)
        if what == "wait":
            world.now += first * MINUTE
        oracle.now = world.now
        hour = hour_of(world.now) - first * HOUR
        if what in ("event", "late"):
            time = world.now if what == "event" else world.now - second * 3 * MINUTE
            event = (USERS[first], time, second)
            world.land(event)
            oracle.events.append(event)
        elif what == "quota":
            user, period = USERS[first % 2], ("hour", "day")[first // 2]
            world.quota(user, period, second, world.now)
            oracle.quotas[user, period].append((world.now, second))
        elif what == "correct":
            # Before all periods of the events, and after the quota that was there since ever.
            user, period = USERS[first % 2], ("hour", "day")[first // 2]
            since = LONG_AGO + (world.now - EVENING)
            world.quota(user, period, second, since)
            oracle.quotas[user, period].append((since, second))
        elif what == "rule":
            user, period = USERS[first % 2], ("hour", "day")[first // 2]
            oracle.percents[user, period] = PERCENTS[second]
            world.connection.execute(
                "INSERT INTO alert_rule (user_id, period, percents) VALUES (%s, %s, %s)"
                " ON CONFLICT (user_id, plan, period) DO UPDATE SET percents = excluded.percents",
                [user, period, list(PERCENTS[second])],
            )
        elif what == "arrive":
            if not oracle.quotas[NEWCOMER, "hour"]:
                arrive(world, oracle, NEWCOMER)
        elif what in ("publish", "restate") and hour < hour_of(world.now) and world.of_hour(hour):
            sums = world.of_hour(hour)
            if what == "restate":
                # What is published is never more than what landed.
                sums = {user: min(bytes_, second) for user, bytes_ in sums.items()}
            world.publish(hour, sums)
            landed = len([1 for _, time, _ in oracle.events if hour_of(time) == hour])
            oracle.published[hour] = (sums, landed)
        elif what == "look":
            world.look()
            oracle.look()
            check(world, oracle)
        elif what == "restart":
            world.headroom = Headroom()
            world.headroom.filled = bool(first)
        elif what == "kill":
            point = ("alerts.followed", "alerts.written")[first]

            def die(reached: str, point: str = point) -> None:
                if reached == point:
                    raise Killed

            with monkeypatch.context() as patched:
                patched.setattr("antenna_assets.operations.alerts.watch.commit_point", die)
                try:
                    world.look()
                    # It had nobody to look at.
                    oracle.look()
                except Killed:
                    pass
    world.engine.close()


def arrive(world: Alerting, oracle: Oracle, user: str) -> None:
    """A user gets its metadata, with quotas that hold since ever."""
    world.user(user, 100, zone=ZONES[user].key)
    world.quota(user, "day", 250)
    for period, quota in (("hour", 100), ("day", 250)):
        oracle.quotas[user, period].append((datetime.min.replace(tzinfo=UTC), quota))


def check(world: Alerting, oracle: Oracle) -> None:
    """Everything that had to be raised is, nothing else is, and the notices say what is true."""
    rows = world.connection.execute(
        "SELECT id, period, starts, percent, figure, used::int FROM alert"
    ).fetchall()
    assert {((user, period, starts), percent) for user, period, starts, percent, *_ in rows} == oracle.raised
    told: dict[tuple[Key, int], list[dict]] = defaultdict(list)
    for body in world.bodies():
        key = (body["user"], body["period"], datetime.fromisoformat(body["starts"]))
        told[key, body["percent"]].append(body)
    assert set(told) == oracle.raised
    ends = oracle.periods()
    for user, period, starts, percent, figure, used in rows:
        key, end = (user, period, starts), ends[user, period, starts]
        truth = oracle.reached(key, end, percent)
        assert (figure != "taken back") is truth
        notices = told[key, percent]
        assert [body["number"] for body in notices] == list(range(1, len(notices) + 1))
        assert datetime.fromisoformat(notices[0]["ends"]) == end
        kinds = [body["type"] for body in notices]
        assert kinds[0] == "quota.raised"
        assert notices[-1]["reached"] is truth
        assert kinds.count("quota.resolved") <= 1
        if oracle.now >= end + 15 * MINUTE:
            assert "quota.resolved" in kinds
        if truth and period == "hour" and oracle.is_clean(starts):
            assert (figure, used, notices[-1]["used"]) == ("published", oracle.used(key, end), used)


@pytest.mark.timeout(1_500)
def test_row_42_alerts_say_what_an_oracle_says(
    new_database: Callable[[str], AbstractContextManager[str]],
    migrated_template: str,
    monkeypatch: pytest.MonkeyPatch,
    proving: bool,
) -> None:
    @settings(
        max_examples=500 if proving else 25,
        derandomize=not proving,
        database=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(steps)
    def each(script: list[Step]) -> None:
        with new_database(migrated_template) as url, connect(url) as connection, TemporaryDirectory() as lake:
            run(connection, Path(lake), script, monkeypatch)

    each()
