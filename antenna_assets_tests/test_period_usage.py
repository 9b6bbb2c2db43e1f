"""What users have used of any period, in any state of publishing, against a loop in plain Python."""

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from antenna_assets.domain.hours import HOUR
from antenna_assets_tests import alerting
from antenna_assets_tests.alerting import Alerting

pytestmark = pytest.mark.services

ZONES = [
    "UTC",
    "Asia/Kathmandu",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "America/St_Johns",
    "Pacific/Chatham",
    "Europe/Berlin",
]
"""A user lives in each: days begin at 00:00, 18:15, 18:30, 13:00, 03:30, 10:15 and 23:00 in UTC."""

FIRST = datetime(2026, 11, 20, tzinfo=UTC)
HOURS = 72
DAYS = [date(2026, 11, 20), date(2026, 11, 21)]
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


@pytest.fixture
def world(connection: psycopg.Connection, tmp_path: Path) -> Iterator[Alerting]:
    made = Alerting(connection, tmp_path, FIRST + HOURS * HOUR)
    for zone in ZONES:
        made.user(zone, None, zone=zone)
    yield made
    made.engine.close()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("events", [40, 400])
def test_every_byte_is_in_the_period_of_its_instant_and_in_no_other(
    world: Alerting, events: int, seed: int
) -> None:
    """Some hours and days are published, and some of them have late rows; of 40 events many hours are empty."""
    chance = random.Random(seed)
    land(world, chance, events)
    known = [hour for (hour,) in world.connection.execute("SELECT hour FROM ledger.hour ORDER BY hour")]
    for hour in known:
        if chance.random() < 0.7:
            world.publish(hour)
    days = DAYS[: seed % 3]
    if days:
        # All that days touch, in any zone.
        for hour in known:
            if hour < FIRST + 52 * HOUR:
                world.publish(hour)
    for day in days:
        world.publish_day(day, used_on(world, day))
    if seed % 2:
        land(world, chance, 5)
    for _ in range(40):
        user, period = chance.choice(ZONES), chance.choice(["hour", "day", "month"])
        within = FIRST + chance.randrange(HOURS * 60) * MINUTE
        ((starts, ends, used, exact),) = world.connection.execute(
            "SELECT starts, ends, published + live, exact FROM ledger.period_usage_at(%s, %s, %s, %s)",
            [user, period, within, world.now],
        ).fetchall()
        expected = sum(bytes_ for id_, time, bytes_ in world.events if id_ == user and starts <= time < ends)
        assert (used, exact) == (expected, True), (user, period, starts, ends)


@pytest.mark.parametrize("dropped", [False, True], ids=["users kept", "users of hours dropped"])
def test_what_was_used_becomes_no_less_by_a_row_that_is_too_late_for_live_sums(
    world: Alerting, *, dropped: bool
) -> None:
    """Until its hour and its day are published again, the month has what was published, and is not exact."""
    days = [FIRST - (12 - number) * DAY for number in range(12)]
    for day in days:
        world.land(("UTC", day, 100))
        world.publish(day)
    for day in days:
        world.publish_day(day.date(), {"UTC": 100})
    world.now = FIRST
    world.connection.execute("DELETE FROM bytes_agg_user WHERE date < %s", [FIRST - 7 * DAY])
    if dropped:
        world.connection.execute("SELECT ledger.drop_user_days(%s)", [FIRST - 3 * DAY])
    used = "SELECT published + live, exact FROM ledger.period_usage_at('UTC', 'month', %(now)s, %(now)s)"
    assert world.connection.execute(used, {"now": FIRST}).fetchall() == [(1200, True)]
    world.land(("Asia/Kolkata", days[0], 1))
    assert world.connection.execute(used, {"now": FIRST}).fetchall() == [(1200, False)]
    world.publish(days[0])
    assert world.connection.execute(used, {"now": FIRST}).fetchall() == [(1200, not dropped)]
    world.publish_day(days[0].date(), {"UTC": 100}, generation=2)
    assert world.connection.execute(used, {"now": FIRST}).fetchall() == [(1200, True)]


def test_a_window_that_goes_on_beyond_a_period_has_no_bytes_of_the_next_one(
    world: Alerting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 30 minutes, and midnight in Kathmandu is 18:15."""
    midnight = FIRST + 18 * HOUR + 15 * MINUTE
    world.connection.execute("DELETE FROM ledger.live_window")
    world.connection.execute(
        "INSERT INTO ledger.live_window (name, length) VALUES ('bytes_agg_user', '30 minutes')"
    )
    monkeypatch.setattr(alerting, "WINDOW", 30 * MINUTE)
    used = "SELECT published + live, exact FROM ledger.period_usage_at('Asia/Kathmandu', 'day', %s, %s)"
    world.land(("Asia/Kathmandu", midnight - 20 * MINUTE, 3), ("Asia/Kathmandu", midnight - 14 * MINUTE, 10))
    within = midnight - MINUTE
    assert world.connection.execute(used, [within, within]).fetchall() == [(13, False)]
    world.land(("Asia/Kathmandu", midnight + MINUTE, 900))
    assert world.connection.execute(used, [within, midnight + 2 * MINUTE]).fetchall() == [(3, False)]


def land(world: Alerting, chance: random.Random, number: int) -> None:
    """Events of all users, most of them within minutes of an hour or a quarter."""
    world.land(
        *(
            (
                chance.choice(ZONES),
                FIRST + chance.randrange(HOURS * 4) * 15 * MINUTE + chance.choice([0, 1, 14]) * MINUTE,
                chance.randint(1, 1000),
            )
            for _ in range(number)
        )
    )


def used_on(world: Alerting, day: date) -> dict[str, int]:
    """The bytes of each user on a day in its zone."""
    spans = world.connection.execute(
        "SELECT zone, ledger.period_start('day', %(day)s, zone), ledger.period_start('day', %(day)s + 1, zone)"
        " FROM unnest(%(zones)s::text[]) AS zone",
        {"day": day, "zones": ZONES},
    ).fetchall()
    return {
        zone: sum(bytes_ for id_, time, bytes_ in world.events if id_ == zone and starts <= time < ends)
        for zone, starts, ends in spans
    }
