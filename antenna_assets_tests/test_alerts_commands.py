"""`antenna allowance`, `antenna alerts watch`, `rules`, `rule` and `test` on a real ledger."""

import json
from collections.abc import Iterator
from datetime import timedelta

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


def test_the_rules_in_force_are_tried_on_days(world: Alerting) -> None:
    day = hour_of(world.now).replace(hour=0) - timedelta(days=2)
    world.quota("ann", "day", 1000)
    world.connection.execute("SELECT ledger.make_user_months(%s)", [[day.date()]])
    world.connection.execute(
        "INSERT INTO bytes_agg_user_1d VALUES (%s, 'ann', %s, NULL, 950)", [day.date(), day]
    )
    done = antenna("alerts", "test", "--from", hour_key(day), "--period", "day")
    assert [day.date().isoformat(), "1", "1", "1"] in [line.split() for line in done.stdout.splitlines()]
