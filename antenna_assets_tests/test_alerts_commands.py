"""`antenna allowance`, `antenna alerts watch`, `rules`, `rule` and `test` on a real ledger."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest

from antenna_assets.domain.hours import HOUR, hour_key, hour_of
from antenna_assets.settings import Settings
from antenna_assets_tests.alerting import Alerting, well_within_an_hour
from antenna_assets_tests.commands import antenna, refused

pytestmark = pytest.mark.services


@pytest.fixture
def world(settings: Settings, connection: psycopg.Connection) -> Iterator[Alerting]:
    """A user `ann` with 1,000 bytes an hour, now."""
    made = Alerting(connection, settings.home / "lake", well_within_an_hour(connection))
    made.user("ann", 1000)
    yield made
    made.engine.close()


def test_an_allowance_is_a_table_and_an_exit_code(world: Alerting) -> None:
    world.land(("ann", world.now, 400))
    yes, no = antenna("allowance", "ann", "--bytes", "600"), antenna("allowance", "ann", "--bytes", "601")
    unknown = antenna("allowance", "eve", "--period", "day")
    assert (yes.returncode, no.returncode, unknown.returncode) == (0, 3, 4)
    assert [" ".join(line.split()) for line in yes.stdout.splitlines() if line.strip()][3:8] == [
        "answer allowed",
        "requested 600 bytes",
        "quota 1,000 bytes",
        "used 400 bytes: 0 published, 400 live",
        f"remaining 600 bytes until {hour_of(world.now) + HOUR:%Y-%m-%d %H:%M} UTC",
    ]
    assert "over quota" in no.stdout
    assert "unknown user" in unknown.stdout


def test_an_allowance_in_json_has_every_field(world: Alerting) -> None:
    world.land(("ann", world.now, 400))
    found = json.loads(antenna("allowance", "ann", "--json").stdout)
    assert {
        name: found[name] for name in ("user", "answer", "allowed", "quota", "used", "remaining", "exact")
    } == {
        "user": "ann",
        "answer": "allowed",
        "allowed": True,
        "quota": 1000,
        "used": 400,
        "remaining": 600,
        "exact": True,
    }
    assert found["starts"] == hour_of(world.now).isoformat()


def test_a_look_says_what_it_saw(world: Alerting) -> None:
    world.land(("ann", world.now, 900))
    assert antenna("alerts", "watch", "--once").stdout == "1 batch, 0 certificates: 3 notices\n"
    assert antenna("alerts", "watch", "--once").stdout == "0 batches, 0 certificates: 0 notices\n"


def test_rules_are_set_listed_and_removed(world: Alerting) -> None:
    world.connection.execute("INSERT INTO plan VALUES ('small')")
    assert (
        antenna("alerts", "rule", "--period", "hour", "--percents", "100,75", "--plan", "small").returncode
        == 0
    )
    assert (
        antenna(
            "alerts", "rule", "--period", "day", "--percents", "90", "--user", "ann", "--cool-down", "6 hours"
        ).returncode
        == 0
    )
    listed = [
        " ".join(line.split()) for line in antenna("alerts", "rules").stdout.splitlines() if line.strip()
    ]
    assert listed[2:7] == [
        "everybody hour 50, 80, 90, 100, 120 none",
        "everybody day 50, 80, 90, 100, 120 none",
        "everybody month 50, 80, 90, 100, 120 none",
        "plan small hour 75, 100 none",
        "user ann day 90 6 hours",
    ]
    assert antenna("alerts", "rule", "--period", "day", "--user", "ann", "--remove").returncode == 0
    assert "user ann" not in antenna("alerts", "rules").stdout


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--percents", "80", "--user", "eve"], "expected the id of a user in user_metadata, found 'eve'"),
        (["--percents", "80", "--plan", "big"], "expected the name of a plan in plan, found 'big'"),
        (["--remove"], "the rule for everybody cannot be removed"),
        (["--remove", "--user", "ann"], "user ann has no rule of its own for the hour"),
    ],
)
def test_a_rule_of_what_is_not_there_is_refused(arguments: list[str], message: str) -> None:
    assert message in refused("alerts", "rule", "--period", "hour", *arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--percents", "0"],
        ["--percents", "eighty"],
        ["--percents", "80", "--remove"],
        [],
        ["--percents", "80", "--cool-down", "soon"],
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused_before_anything_is_done(arguments: list[str]) -> None:
    done = antenna("alerts", "rule", "--period", "hour", *arguments)
    assert done.returncode == 2
    assert "expected" in done.stderr


def test_a_rule_is_tried_on_published_hours(world: Alerting) -> None:
    first = hour_of(world.now) - 4 * HOUR
    world.user("bob", 1000)
    for number, (ann, bob) in enumerate([(500, 0), (1200, 900), (10, 10)]):
        hour = first + number * HOUR
        world.land(("ann", hour, ann), ("bob", hour, bob))
        world.publish(hour)
    before = world.notices()
    last = hour_key(first + 2 * HOUR)
    done = antenna("alerts", "test", "--from", hour_key(first), "--to", last, "--percents", "50,100")
    rows = [line.split() for line in done.stdout.splitlines() if line.strip()]
    assert rows[1][:5] == ["hour", "50", "%", "100", "%"]
    assert [row for row in rows if row[0].startswith("20") or row[0] == "all"] == [
        [hour_key(first), "1", "0"],
        [hour_key(first + HOUR), "2", "1"],
        [last, "0", "0"],
        ["all", "3", "1"],
    ]
    cooled = antenna(
        "alerts", "test", "--from", hour_key(first), "--to", last, "--percents", "50", "--cool-down", "1 day"
    )
    rows = [line.split() for line in cooled.stdout.splitlines() if line.strip()]
    assert ["all", "2"] in rows
    assert ["in", "cool-downs", "1"] in rows
    assert world.notices() == before


def tried(*arguments: str) -> list[str]:
    """The lines that `antenna alerts test` prints, with single blanks."""
    done = antenna("alerts", "test", *arguments)
    assert done.returncode == 0, done.stderr
    return [" ".join(line.split()) for line in done.stdout.splitlines() if line.strip()]


def test_the_rules_in_force_are_tried_on_days(world: Alerting) -> None:
    day = hour_of(world.now).replace(hour=0) - timedelta(days=2)
    world.quota("ann", "day", 1000)
    world.publish_day(day.date(), {"ann": 950})
    assert f"{day.date()} 1 1 1" in tried("--from", hour_key(day), "--period", "day")


@pytest.mark.parametrize(
    ("zone", "first", "last", "days"),
    [
        ("Pacific/Auckland", "2026-10-28-12:00", "2026-10-28-12:00", ["2026-10-29"]),
        ("Pacific/Auckland", "2026-10-28-10:00", "2026-10-28-11:00", ["2026-10-28", "2026-10-29"]),
        ("America/New_York", "2026-10-28-03:00", "2026-10-28-03:00", ["2026-10-27"]),
        # Within this hour a day ends.
        ("Asia/Kathmandu", "2026-10-28-18:00", "2026-10-28-18:00", ["2026-10-28", "2026-10-29"]),
    ],
)
def test_a_rule_is_tried_on_the_days_of_the_billing_zone_that_the_hours_lie_in(
    world: Alerting, zone: str, first: str, last: str, days: list[str]
) -> None:
    world.connection.execute("UPDATE ledger.billing_zone SET zone = %s", [zone])
    world.quota("ann", "day", 1000)
    for day in (27, 28, 29, 30):
        world.publish_day(date(2026, 10, day), {"ann": 1000})
    lines = tried("--from", first, "--to", last, "--period", "day", "--percents", "100")
    assert [line for line in lines if line.startswith("20")] == [f"{day} 1" for day in days]


def test_a_rule_is_tried_on_the_month_of_the_billing_zone_that_the_hour_lies_in(world: Alerting) -> None:
    world.connection.execute("UPDATE ledger.billing_zone SET zone = 'Pacific/Auckland'")
    world.quota("ann", "month", 1000)
    world.publish_day(date(2026, 11, 1), {"ann": 1000})
    lines = tried("--from", "2026-10-31-12:00", "--period", "month", "--percents", "100")
    assert "2026-11-01 1 in part" in lines


def test_users_are_judged_at_the_end_of_their_own_day_as_it_is_published(world: Alerting) -> None:
    world.user("lord", 1000, zone="Australia/Lord_Howe")
    for user in ("ann", "lord"):
        world.quota(user, "day", 100)
        world.quota(user, "month", 100)
    # On Lord Howe Island the day is over at 13:00 UTC.
    for period in ("day", "month"):
        world.quota("lord", period, 10_000, datetime(2026, 10, 31, 20, tzinfo=UTC))
    world.publish_day(date(2026, 10, 31), {"ann": 101, "lord": 101})
    lines = tried("--from", "2026-10-31-12:00", "--period", "day", "--percents", "100")
    assert "2026-10-31 2" in lines
    lines = tried("--from", "2026-10-31-12:00", "--period", "month", "--percents", "100")
    assert "2026-10-01 2 in part" in lines
    assert "published: 0 of 1 month; 1 in part, of which the days that are published count" in lines


def test_what_is_not_published_is_not_said_to_be_without_alerts(world: Alerting) -> None:
    hour = hour_of(world.now) - 3 * HOUR
    world.land(("ann", hour, 1200))
    world.publish(hour)
    assert tried("--from", "2020-01-01-00:00", "--to", "2020-01-01-01:00") == [
        "published: 0 of 2 hours; what would have been raised in 2 of them is not known"
    ]
    assert tried("--from", "2020-01-31-00:00", "--period", "day") == [
        "published: 0 of 1 day; what would have been raised in 1 of them is not known"
    ]
    assert tried("--from", "2020-01-31-23:00", "--to", "2020-02-01-00:00", "--period", "month") == [
        "published: 0 of 2 months; what would have been raised in 2 of them is not known"
    ]
    lines = tried("--from", hour_key(hour), "--to", hour_key(hour + HOUR), "--percents", "100")
    assert f"{hour_key(hour)} 1 yes" in lines
    assert f"{hour_key(hour + HOUR)} - no" in lines
    assert lines[-1] == "published: 1 of 2 hours; what would have been raised in 1 of them is not known"


def test_an_hour_whose_users_are_no_longer_kept_is_not_said_to_be_without_alerts(world: Alerting) -> None:
    hour = hour_of(world.now) - 3 * HOUR
    world.land(("ann", hour, 1200))
    world.publish(hour)
    world.connection.execute("DELETE FROM bytes_agg_user_1h")
    world.connection.execute("UPDATE ledger.user_hours SET kept_from = %s", [hour + HOUR])
    assert tried("--from", hour_key(hour)) == [
        "published: 1 of 1 hour; of 1 PostgreSQL no longer keeps the users;"
        " what would have been raised in 1 of them is not known"
    ]
