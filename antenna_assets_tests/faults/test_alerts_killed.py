"""`antenna alerts watch` in a process of its own: killed at its points and at any moment, beside events that land."""

import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime

import psycopg
import pytest

from antenna_assets.clients.clock import database_now
from antenna_assets.domain.hours import hour_of
from antenna_assets.settings import Settings
from antenna_assets_tests.alerting import Alerting
from antenna_assets_tests.commands import antenna
from antenna_assets_tests.faults.live import wait_until
from antenna_assets_tests.faults.processes import Process

pytestmark = pytest.mark.services

WATCH = ("antenna_assets.cli", "alerts", "watch")
PERCENTS = (50, 80, 90, 100, 120)
QUOTAS = {"hour": 1000, "day": 3000}
POINTS = {"alerts.followed", "alerts.written", "alerts.committed"}


@pytest.fixture
def world(settings: Settings, connection: psycopg.Connection) -> Iterator[Alerting]:
    made = Alerting(connection, settings.home / "lake", database_now(connection))
    for number in range(20):
        made.user(f"user-{number}", QUOTAS["hour"])
        # A watch that begins asks at once for everybody who has one.
        made.quota(f"user-{number}", "day", QUOTAS["day"])
    yield made
    made.engine.close()


def land(world: Alerting, chosen: random.Random) -> None:
    world.now = database_now(world.connection)
    world.land(*((f"user-{chosen.randrange(20)}", world.now, chosen.randrange(1, 90)) for _ in range(5)))


def require_each_once(world: Alerting) -> None:
    """Each percentage that was reached is raised by one notice; the numbers of an alert's notices have no gap."""
    used: dict[tuple[str, str, datetime], int] = defaultdict(int)
    for user, moment, bytes_ in world.events:
        used[user, "hour", hour_of(moment)] += bytes_
        used[user, "day", hour_of(moment).replace(hour=0)] += bytes_
    expected = {
        (*key, percent)
        for key, bytes_ in used.items()
        for percent in PERCENTS
        if bytes_ * 100 >= QUOTAS[key[1]] * percent
    }
    bodies = world.bodies()
    raised = Counter(
        (body["user"], body["period"], datetime.fromisoformat(body["starts"]), body["percent"])
        for body in bodies
        if body["type"] == "quota.raised"
    )
    assert raised == Counter(expected)
    assert len(expected) > 0


@pytest.mark.parametrize("point", sorted(POINTS))
def test_row_42_a_watch_that_dies_at_a_point_raises_each_alert_once(
    settings: Settings, world: Alerting, point: str
) -> None:
    world.land(("user-1", world.now, 850), ("user-2", world.now, 510))
    with Process(settings, WATCH, ANTENNA_CRASH_AT=point) as process:
        assert process.wait(120) == -9
    assert len(world.bodies()) == (3 if point == "alerts.committed" else 0)
    done = antenna("alerts", "watch", "--once")
    assert (done.returncode, done.stdout) == (
        0,
        "0 batches, 0 certificates: 0 notices\n"
        if point == "alerts.committed"
        else "1 batch, 0 certificates: 3 notices\n",
    )
    require_each_once(world)


@pytest.mark.timeout(1_500)
def test_row_42_a_watch_that_is_killed_at_any_moment_misses_and_repeats_nothing(
    settings: Settings, world: Alerting, proving: bool, record_property: Callable[[str, object], None]
) -> None:
    chosen, kills = random.Random(3), 0
    for _ in range(200 if proving else 4):
        with Process(settings, WATCH) as process:
            until = time.monotonic() + chosen.uniform(0.8, 2.5)
            while time.monotonic() < until:
                land(world, chosen)
                time.sleep(0.1)
            assert process.code is None, process.said
            kills += 1
    assert antenna("alerts", "watch", "--once").returncode == 0
    require_each_once(world)
    record_property("kills", kills)
    record_property("notices", len(world.bodies()))


def test_a_second_watch_waits_and_takes_over(settings: Settings, world: Alerting) -> None:
    with Process(settings, WATCH) as first, Process(settings, WATCH) as second:
        wait_until(lambda: all("watch" in one.said for one in (first, second)))
        wait_until(lambda: any("another watch is running" in one.said for one in (first, second)))
        looking, waiting = (first, second) if "another" in second.said else (second, first)
        assert "another watch is running" in waiting.said
        assert "another watch is running, and looks" in antenna("alerts", "watch", "--once").stderr.replace(
            "`antenna alerts watch`", "watch"
        )
        looking.__exit__()
        wait_until(lambda: "watching" in waiting.said)
        world.land(("user-1", world.now, 500))
        wait_until(lambda: len(world.bodies()) > 0)
    require_each_once(world)
