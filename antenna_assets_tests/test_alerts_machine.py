"""The watch against an oracle in plain Python: events, late ones, publications, quotas and kills in any order."""

from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import hour_of
from antenna_assets_tests.alerting import Alerting

pytestmark = pytest.mark.services

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
USERS = ("ann", "bob")
PERCENTS = (50, 80, 90, 100, 120)

Step = tuple[str, int, int]

steps = st.lists(
    st.one_of(
        st.tuples(st.just("event"), st.integers(0, 1), st.integers(0, 60)),
        st.tuples(st.just("late"), st.integers(0, 1), st.integers(1, 60)),
        st.tuples(st.just("quota"), st.integers(0, 1), st.integers(0, 150)),
        st.tuples(st.just("publish"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("restate"), st.integers(0, 2), st.integers(0, 150)),
        st.tuples(st.just("wait"), st.integers(1, 50), st.just(0)),
        st.tuples(st.just("look"), st.just(0), st.just(0)),
        st.tuples(st.just("kill"), st.integers(0, 1), st.just(0)),
    ),
    min_size=1,
    max_size=25,
)


class Killed(Exception):
    """The watch died at a failpoint."""


@dataclass
class Oracle:
    """What must be known, from the facts alone. An hour's quota is the newest of before its end."""

    now: datetime
    events: list[tuple[str, datetime, int]] = field(default_factory=list)
    quotas: dict[str, list[tuple[datetime, int]]] = field(default_factory=lambda: defaultdict(list))
    published: dict[datetime, tuple[dict[str, int], int]] = field(default_factory=dict)
    """Of each published hour: the sums, and how many events had landed."""
    seen_published: set[datetime] = field(default_factory=set)
    raised: set[tuple[str, datetime, int]] = field(default_factory=set)

    def used(self, user: str, hour: datetime) -> int:
        in_hour = [(who, bytes_) for who, time, bytes_ in self.events if hour_of(time) == hour]
        if hour in self.published and self.published[hour][1] == len(in_hour):
            return self.published[hour][0].get(user, 0)
        return sum(bytes_ for who, bytes_ in in_hour if who == user)

    def quota(self, user: str, hour: datetime) -> int:
        instant = min(self.now, hour + HOUR - timedelta(microseconds=1))
        return [quota for since, quota in self.quotas[user] if since <= instant][-1]

    def reached(self, user: str, hour: datetime, percent: int) -> bool:
        used, quota = self.used(user, hour), self.quota(user, hour)
        return used > 0 and used * 100 >= quota * percent

    def look(self) -> None:
        """What a look has to raise: what is reached in hours that are news."""
        for hour in {hour_of(time) for _, time, _ in self.events}:
            if self.now < hour + HOUR + 15 * MINUTE and hour not in self.seen_published:
                self.raised |= {
                    (user, hour, percent)
                    for user in USERS
                    for percent in PERCENTS
                    if self.reached(user, hour, percent)
                }
        self.seen_published = set(self.published)


def run(
    connection: psycopg.Connection, lake: Path, script: list[Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, oracle = Alerting(connection, lake, NOON), Oracle(NOON)
    for user in USERS:
        world.user(user, 100)
        oracle.quotas[user].append((datetime.min.replace(tzinfo=UTC), 100))
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
            world.quota(USERS[first], "hour", second, world.now)
            oracle.quotas[USERS[first]].append((world.now, second))
        elif what in ("publish", "restate") and hour < hour_of(world.now) and world.of_hour(hour):
            sums = world.of_hour(hour) if what == "publish" else dict.fromkeys(USERS, second)
            world.publish(hour, sums)
            landed = len([1 for _, time, _ in oracle.events if hour_of(time) == hour])
            oracle.published[hour] = (sums, landed)
        elif what == "look":
            world.look()
            oracle.look()
            check(world, oracle)
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


def check(world: Alerting, oracle: Oracle) -> None:
    """Everything that had to be raised is, nothing else is, and the notices say what is true."""
    rows = world.connection.execute("SELECT id, starts, percent, figure, used::int FROM alert").fetchall()
    assert {(user, hour, percent) for user, hour, percent, *_ in rows} == oracle.raised
    told: dict[tuple[str, datetime, int], list[dict]] = defaultdict(list)
    for body in world.bodies():
        told[body["user"], datetime.fromisoformat(body["starts"]), body["percent"]].append(body)
    assert set(told) == oracle.raised
    for user, hour, percent, figure, used in rows:
        truth = oracle.reached(user, hour, percent)
        assert (figure != "taken back") is truth
        notices = told[user, hour, percent]
        assert [body["number"] for body in notices] == list(range(1, len(notices) + 1))
        assert notices[0]["type"] == "quota.raised"
        assert notices[-1]["reached"] is truth
        kinds = [body["type"] for body in notices]
        assert kinds.count("quota.resolved") == (
            1 if oracle.now >= hour + HOUR + 15 * MINUTE else kinds.count("quota.resolved")
        )
        clean = hour in oracle.published and oracle.published[hour][1] == len(
            [1 for _, time, _ in oracle.events if hour_of(time) == hour]
        )
        if truth and clean:
            assert (figure, used, notices[-1]["used"]) == ("published", oracle.used(user, hour), used)


def test_alerts_say_what_an_oracle_says(
    new_database: Callable[[str], AbstractContextManager[str]],
    migrated_template: str,
    monkeypatch: pytest.MonkeyPatch,
    proving: bool,
) -> None:
    @settings(
        max_examples=1000 if proving else 40,
        derandomize=not proving,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(steps)
    def each(script: list[Step]) -> None:
        with new_database(migrated_template) as url, connect(url) as connection, TemporaryDirectory() as lake:
            run(connection, Path(lake), script, monkeypatch)

    each()
