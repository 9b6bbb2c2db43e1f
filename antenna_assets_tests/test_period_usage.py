"""What users have used of any period, in any state of publishing, against a loop in plain Python."""

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from antenna_assets.domain.hours import HOUR
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
MINUTE = timedelta(minutes=1)


@pytest.fixture
def world(connection: psycopg.Connection, tmp_path: Path) -> Iterator[Alerting]:
    made = Alerting(connection, tmp_path, FIRST + HOURS * HOUR)
    for zone in ZONES:
        made.user(zone, None, zone=zone)
    yield made
    made.engine.close()


@pytest.mark.parametrize("seed", range(8))
def test_every_byte_is_in_the_period_of_its_instant_and_in_no_other(world: Alerting, seed: int) -> None:
    """Some hours and days are published, and some of them have late rows."""
    chance = random.Random(seed)
    land(world, chance, 400)
    for hour in [FIRST + number * HOUR for number in range(HOURS)]:
        if chance.random() < 0.7:
            world.publish(hour)
    days = DAYS[: seed % 3]
    if days:
        # All that days touch, in any zone.
        for hour in [FIRST + number * HOUR for number in range(52)]:
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
