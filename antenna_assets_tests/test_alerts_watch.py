"""The watch over alerts on a real ledger: what is raised, confirmed, corrected and resolved, and never twice."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from antenna_assets.ledger.alerts import ALERTS_OF_HOURS, alerts_of_hours
from antenna_assets.operations.alerts import watch
from antenna_assets.operations.alerts.watch import Look, fill
from antenna_assets.operations.forget.identity import Identity
from antenna_assets.operations.forget.tables import live_windows, remove_notices, rename, rows_with
from antenna_assets_tests.alerting import Alerting

pytestmark = pytest.mark.services

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def world(connection: psycopg.Connection, tmp_path: Path) -> Iterator[Alerting]:
    """A user `ann` with 1,000 bytes an hour, at 12:10."""
    made = Alerting(connection, tmp_path, NOON + 10 * MINUTE)
    made.user("ann", 1000)
    yield made
    made.engine.close()


def test_a_threshold_is_noticed_once_when_live_sums_reach_it(world: Alerting) -> None:
    world.land(("ann", NOON, 499), ("eve", NOON, 10**9))
    world.look()
    assert world.alerts() == []
    world.land(("ann", NOON + MINUTE, 1), ("ann", NOON + 6 * MINUTE, 300))
    assert world.look() == Look(1, 0, 1, 2)
    assert world.look() == Look(0, 0, 0, 0)
    world.land(("ann", NOON + 7 * MINUTE, 1))
    world.look()
    assert world.notices() == [("quota.raised", "ann", 50, 800), ("quota.raised", "ann", 80, 800)]


def test_an_hour_is_raised_resolved_and_confirmed(world: Alerting) -> None:
    world.land(("ann", NOON, 550))
    world.look()
    world.now = NOON + HOUR + 2 * MINUTE
    world.land(("ann", NOON + HOUR, 1))
    world.look()
    world.publish(NOON)
    world.look()
    assert world.notices() == [
        ("quota.raised", "ann", 50, 550),
        ("quota.resolved", "ann", 50, 550),
        ("quota.confirmed", "ann", 50, 550),
    ]
    assert world.alerts() == [("ann", "hour", 50, "published", 550, True)]
    bodies = world.bodies()
    assert [(body["confirmed"], body["reached"], body["number"]) for body in bodies] == [
        (False, True, 1),
        (False, True, 2),
        (True, True, 3),
    ]
    assert bodies[0] == {
        "type": "quota.raised",
        "summary": "ann at 50 % of 1,000 bytes an hour: raised",
        "user": "ann",
        "period": "hour",
        "starts": "2026-11-22T12:00:00+00:00",
        "ends": "2026-11-22T13:00:00+00:00",
        "percent": 50,
        "quota": 1000,
        "used": 550,
        "reached": True,
        "confirmed": False,
        "published": 0,
        "live": 550,
        "hour": None,
        "generation": None,
        "certificate": None,
        "number": 1,
        "at": "2026-11-22T12:10:00+00:00",
    }
    assert [bodies[2][name] for name in ("hour", "generation", "certificate")] == [
        "2026-11-22T12:00:00+00:00",
        1,
        1,
    ]


def test_the_last_events_of_an_hour_raise_what_they_reach_after_its_end(world: Alerting) -> None:
    world.now = NOON + HOUR + 30 * timedelta(seconds=1)
    world.land(("ann", NOON + 59 * MINUTE, 500), ("ann", NOON + HOUR, 10))
    world.look()
    assert world.notices() == [("quota.raised", "ann", 50, 500)]


def test_history_and_late_rows_raise_nothing(world: Alerting) -> None:
    # A backfill of yesterday, rows of an hour that ended twenty minutes ago, and late rows of a published one.
    yesterday, earlier = NOON - 24 * HOUR, NOON - HOUR
    world.now = NOON + 20 * MINUTE
    world.land(("ann", yesterday, 5000), ("ann", earlier, 5000))
    world.look()
    world.publish(yesterday)
    world.publish(earlier)
    world.look()
    world.land(("ann", NOON - MINUTE, 5000))
    world.look()
    assert world.notices() == []
    world.land(("ann", NOON, 10))
    world.now = NOON + HOUR + 2 * MINUTE
    world.publish(NOON)
    world.look()
    world.land(("ann", NOON, 5000))
    world.look()
    assert world.notices() == []


def test_a_restatement_corrects_an_alert_and_takes_it_back(world: Alerting) -> None:
    world.land(("ann", NOON, 550))
    world.look()
    world.now = NOON + HOUR + 2 * MINUTE
    world.publish(NOON)
    world.look()
    first = len(world.notices())
    world.land(("ann", NOON + MINUTE, 10))
    world.look()
    assert len(world.notices()) == first
    world.publish(NOON)
    world.look()
    world.publish(NOON, {"ann": 30})
    world.look()
    assert world.notices(first) == [("quota.corrected", "ann", 50, 560), ("quota.corrected", "ann", 50, 30)]
    assert world.alerts() == [("ann", "hour", 50, "taken back", 30, True)]


def test_a_smaller_quota_raises_and_a_larger_one_takes_back(world: Alerting) -> None:
    world.land(("ann", NOON, 400))
    world.look()
    world.quota("ann", "hour", 500, NOON + 9 * MINUTE + timedelta(seconds=30))
    world.look()
    assert world.notices() == [("quota.raised", "ann", 50, 400), ("quota.raised", "ann", 80, 400)]
    world.quota("ann", "hour", 600, NOON + 10 * MINUTE)
    world.look()
    assert world.notices(2) == [("quota.corrected", "ann", 80, 400)]
    world.quota("ann", "hour", None, NOON + 10 * MINUTE + timedelta(seconds=1))
    world.now += MINUTE
    world.look()
    assert world.notices(3) == [("quota.corrected", "ann", 50, 400)]


def test_an_alert_follows_a_quota_that_was_changed_for_the_time_before(world: Alerting) -> None:
    world.land(("ann", NOON, 600))
    world.look()
    world.quota("ann", "hour", 5000, NOON - 24 * HOUR)
    world.look()
    assert world.notices(1) == [("quota.corrected", "ann", 50, 600)]


def test_days_and_months_are_watched_in_the_users_zone(world: Alerting) -> None:
    world.user("bob", None, zone="Asia/Kathmandu")
    world.quota("bob", "day", 1000)
    world.quota("bob", "month", 2000)
    # Midnight in Kathmandu is 18:15 in UTC.
    six = NOON - 18 * HOUR
    world.land(("bob", six + 14 * MINUTE, 700), ("bob", six + 15 * MINUTE, 300))
    world.look()
    assert world.notices() == [("quota.raised", "bob", 50, 1000)]
    world.land(("bob", NOON, 200))
    world.look()
    assert world.notices(1) == [("quota.raised", "bob", 50, 500)]
    assert [(period, percent) for _, period, percent, *_ in world.alerts()] == [("day", 50), ("month", 50)]


@pytest.mark.parametrize(
    ("zone", "time", "periods"),
    [
        ("Asia/Kathmandu", NOON - 18 * HOUR, 4),
        ("Asia/Kathmandu", NOON - 17 * HOUR, 2),
        # Midnight is 23:00 in UTC.
        ("Europe/Berlin", NOON - 13 * HOUR, 2),
        ("Europe/Berlin", NOON - 14 * HOUR, 2),
        # Half an hour of summer time: midnight is 13:00 in UTC, and 13:30 in winter.
        ("Australia/Lord_Howe", NOON - 23 * HOUR, 2),
        ("Australia/Lord_Howe", datetime(2026, 6, 30, 13, tzinfo=UTC), 4),
        # Midnight is 03:30 in UTC.
        ("America/St_Johns", NOON - 33 * HOUR, 4),
        ("America/St_Johns", NOON - 34 * HOUR, 2),
    ],
)
def test_two_days_are_looked_at_only_of_an_hour_within_which_a_day_begins(
    world: Alerting, zone: str, time: datetime, periods: int
) -> None:
    world.user("bob", None, zone=zone)
    world.quota("bob", "day", 1000)
    world.now = time + 5 * HOUR
    world.land(("bob", time, 1))
    # Else it knows from its beginning on that nothing can change.
    world.headroom.filled = True
    assert world.look().users == periods


def test_the_closest_rule_counts(world: Alerting) -> None:
    world.connection.execute("INSERT INTO plan VALUES ('small')")
    world.user("bob", 1000, plan="small")
    world.user("cid", 1000, plan="small")
    world.connection.execute(
        "INSERT INTO alert_rule (user_id, plan, period, percents) VALUES (NULL, 'small', 'hour', '{70}'), ('cid', NULL, 'hour', '{75}')"
    )
    world.land(*((id_, NOON, 760) for id_ in ("ann", "bob", "cid")))
    world.look()
    assert [(user, percent) for _, user, percent, _ in world.notices()] == [
        ("ann", 50),
        ("bob", 70),
        ("cid", 75),
    ]


def test_within_a_cool_down_an_alert_is_recorded_without_a_notice(world: Alerting) -> None:
    world.connection.execute("UPDATE alert_rule SET percents = '{80}', cool_down = '3 hours'")
    for number in range(5):
        world.now = NOON + number * HOUR + 10 * MINUTE
        world.land(("ann", NOON + number * HOUR, 900))
        world.look()
    raised = [at["starts"][11:13] for at in world.bodies() if at["type"] == "quota.raised"]
    assert raised == ["12", "15"]
    assert len(world.alerts()) == 5


def test_of_the_alerts_that_are_kept_only_those_of_its_hours_are_looked_at(
    connection: psycopg.Connection,
) -> None:
    connection.execute(
        "INSERT INTO alert (id, period, starts, percent, ends, figure, used, notices, resolved, quiet,"
        "  raised_at, changed_at)"
        " SELECT 'user-' || number, 'hour', starts, 50, starts + interval '1 hour', 'published', 1, 1, true,"
        "  false, starts, starts"
        " FROM generate_series(1, 20000) AS number"
        " CROSS JOIN LATERAL (SELECT %s + number %% 1000 * interval '1 hour' AS starts) AS of_number",
        [NOON],
    )
    connection.execute("ANALYZE alert")
    hours = [NOON + 5 * HOUR, NOON - 24 * HOUR]
    explained = connection.execute(
        "EXPLAIN (ANALYZE, FORMAT JSON) " + ALERTS_OF_HOURS, {"hours": hours, "longest": timedelta(days=33)}
    ).fetchall()
    assert looked_at(explained[0][0][0]["Plan"]) == 20
    assert len(alerts_of_hours(connection, hours)) == 20


def looked_at(node: dict) -> float:
    """The rows of `alert` that a plan has read."""
    read = sum(map(looked_at, node.get("Plans", [])))
    if node.get("Relation Name") == "alert":
        removed = sum(node.get(f"Rows Removed by {name}", 0) for name in ("Filter", "Index Recheck"))
        read += node["Actual Loops"] * (node["Actual Rows"] + removed)
    return read


def test_without_live_sums_of_users_the_first_publication_raises(world: Alerting) -> None:
    world.connection.execute("INSERT INTO ledger.live_table VALUES ('bytes_agg_user', true, NULL)")
    world.land(("ann", NOON, 900))
    world.connection.execute("DELETE FROM bytes_agg_user")
    world.look()
    assert world.notices() == []
    world.now = NOON + HOUR + 3 * MINUTE
    world.publish(NOON)
    world.look()
    assert world.notices()[:2] == [("quota.raised", "ann", 50, 900), ("quota.confirmed", "ann", 50, 900)]


def test_more_than_one_look_can_take_is_looked_at_in_several(
    world: Alerting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antenna_assets.operations.alerts.watch.BATCHES", 2)
    for _ in range(5):
        world.land(("ann", NOON, 120))
    assert [world.look().batches for _ in range(4)] == [2, 2, 1, 0]
    assert world.notices() == [("quota.raised", "ann", 50, 600)]


def test_of_a_forgotten_user_nothing_is_raised_again_under_its_pseudonym(world: Alerting) -> None:
    identity = Identity("ann", "forgotten-1")
    world.connection.execute(
        "INSERT INTO alert_rule (user_id, period, percents) VALUES ('ann', 'day', '{70}')"
    )
    world.land(("ann", NOON, 850))
    world.look()
    first = len(world.notices())
    rename(world.connection, identity, live_windows(world.connection, "ann"))
    remove_notices(world.connection, "ann")
    assert rows_with(world.connection, "ann") == {}
    world.events = [("forgotten-1", *others) for _, *others in world.events]
    world.now = NOON + HOUR + 2 * MINUTE
    world.publish(NOON)
    world.look()
    assert [(kind, user) for kind, user, *_ in world.notices(first)] == [
        *[("quota.confirmed", "forgotten-1"), ("quota.resolved", "forgotten-1")] * 2
    ]
    # A second attempt, of what landed meanwhile.
    rename(world.connection, identity, live_windows(world.connection, "ann"))
    assert world.connection.execute(
        "SELECT count(*) FROM alert_rule WHERE user_id = 'forgotten-1'"
    ).fetchone() == (1,)


@pytest.mark.parametrize(
    ("zone", "minutes"), [("Asia/Kathmandu", 15), ("Asia/Kolkata", 30)], ids=["+05:45", "+05:30"]
)
def test_bytes_after_midnight_within_an_hour_are_not_of_the_day_before(
    world: Alerting, zone: str, minutes: int
) -> None:
    world.user("bob", None, zone=zone)
    world.quota("bob", "day", 2000)
    midnight = NOON + 6 * HOUR + minutes * MINUTE
    world.now = midnight - 5 * MINUTE
    world.land(("bob", midnight - 10 * MINUTE, 1100))
    world.look()
    assert world.notices() == [("quota.raised", "bob", 50, 1100)]
    world.now = midnight + 2 * MINUTE
    world.land(("bob", midnight + MINUTE, 800))
    world.look()
    world.now = NOON + 7 * HOUR + 2 * MINUTE
    world.land(("pad", NOON + 7 * HOUR, 1))
    world.publish(NOON + 6 * HOUR)
    world.look()
    # The end of the day, and nothing of the 800 bytes of the next one.
    assert world.notices(1) == [("quota.resolved", "bob", 50, 1100)]
    assert used(world, "day", midnight - HOUR) == (1100, True, "published and live")


def test_late_rows_of_a_published_day_count_at_once(world: Alerting) -> None:
    """Whether or not the day is published again, at 550 of 1,000 bytes half of the month's quota is used."""
    yesterday, now = NOON - 26 * HOUR, world.now
    world.user("bob", None)
    world.quota("bob", "month", 1000)
    world.now = yesterday + 10 * MINUTE
    world.land(("bob", yesterday, 400))
    world.look()
    world.now = now
    world.land(("pad", NOON, 1))
    world.publish(yesterday)
    day = yesterday.date()
    world.publish_day(day, {"bob": 400})
    world.look()
    assert used(world, "month", world.now) == (400, True, "published and live")
    world.land(("bob", yesterday + MINUTE, 150))
    world.look()
    assert used(world, "month", world.now) == (550, True, "published and live")
    assert world.notices() == [("quota.raised", "bob", 50, 550)]
    world.publish(yesterday)
    world.look()
    world.publish_day(day, {"bob": 550}, generation=2)
    world.land(("bob", NOON + MINUTE, 20))
    world.look()
    assert used(world, "month", world.now) == (570, True, "published and live")
    assert world.notices(1) == [("quota.confirmed", "bob", 50, 550)]


def used(world: Alerting, period: str, within: datetime) -> tuple:
    """What `bob` has used by now of a period, whether that is exact, and where it is from."""
    query = "SELECT published + live, exact, source FROM ledger.period_usage_at('bob', %s, %s, %s)"
    return world.connection.execute(query, [period, within, world.now]).fetchall()[0]


def test_late_rows_of_an_hour_that_was_empty_when_its_day_was_published_raise_what_they_reach(
    world: Alerting,
) -> None:
    world.quota("ann", "month", 1000)
    world.land(("ann", NOON - 12 * HOUR, 40))
    world.publish(NOON - 12 * HOUR)
    world.publish_day((NOON - 12 * HOUR).date(), {"ann": 40})
    world.now = NOON + 24 * HOUR
    world.look()
    world.land(("ann", NOON, 400))
    world.look()
    world.land(("ann", world.now, 60))
    world.look()
    assert world.notices() == [("quota.raised", "ann", 50, 500)]


def test_a_day_is_confirmed_when_it_is_published_and_corrected_when_it_is_again(world: Alerting) -> None:
    """A day in Nepal, most of whose bytes are in an hour that is of two days; then its quota is corrected."""
    world.user("bob", None, zone="Asia/Kathmandu")
    world.quota("bob", "day", 1000)
    midnight = NOON + 6 * HOUR + 15 * MINUTE
    world.now = midnight - 5 * MINUTE
    world.land(("bob", midnight - 10 * MINUTE, 550))
    world.look()
    world.now = NOON + 9 * HOUR
    world.land(("pad", NOON + 9 * HOUR, 1))
    world.publish(NOON + 6 * HOUR)
    world.look()
    assert world.notices() == [("quota.raised", "bob", 50, 550), ("quota.resolved", "bob", 50, 550)]
    world.publish_day(midnight.date(), {"bob": 550})
    world.look()
    assert world.notices(2) == [("quota.confirmed", "bob", 50, 550)]
    world.look()
    world.connection.execute("UPDATE user_quota_change SET quota = 5000 WHERE id = 'bob' AND period = 'day'")
    world.publish_day(midnight.date(), {"bob": 550}, generation=2)
    world.look()
    assert world.notices(3) == [("quota.corrected", "bob", 50, 550)]
    assert world.bodies()[3]["reached"] is False


@pytest.mark.parametrize("remembered", [True, False], ids=["remembered", "after a restart"])
def test_whoever_gets_metadata_after_its_bytes_is_told_of(world: Alerting, *, remembered: bool) -> None:
    world.connection.execute("INSERT INTO plan VALUES ('small')")
    world.connection.execute("INSERT INTO plan_quota_change VALUES ('small', 'day', '-infinity', 1000)")
    world.land(("bob", NOON, 850))
    world.look()
    assert world.notices() == []
    world.user("bob", None, plan="small")
    if not remembered:
        world.headroom.forget()
    world.look()
    assert world.notices() == [("quota.raised", "bob", 50, 850), ("quota.raised", "bob", 80, 850)]
    world.look()
    assert len(world.notices()) == 2


def test_a_quota_that_holds_since_midnight_raises_what_it_finds_used(world: Alerting) -> None:
    world.user("bob", None)
    world.land(("bob", NOON, 850))
    world.look()
    world.quota("bob", "day", 1000, NOON - 12 * HOUR)
    world.look()
    assert world.notices() == [("quota.raised", "bob", 50, 850), ("quota.raised", "bob", 80, 850)]


@pytest.mark.parametrize("period", ["hour", "day"])
def test_a_rule_counts_from_the_next_look_on(world: Alerting, period: str) -> None:
    """Though nothing else lands or changes; and beside a percentage that was noticed before."""
    if period == "day":
        world.quota("ann", "day", 1000)
    world.land(("ann", NOON, 550))
    world.look()
    before = len(world.notices())
    world.connection.execute(
        "INSERT INTO alert_rule (user_id, period, percents) VALUES ('ann', %s, '{30,50}')", [period]
    )
    world.look()
    assert world.notices(before) == [("quota.raised", "ann", 30, 550)]
    world.look()
    assert len(world.notices()) == before + 1


def test_a_rule_counts_from_the_next_look_on_for_whom_none_was_noticed(world: Alerting) -> None:
    world.land(("ann", NOON, 400))
    world.look()
    world.connection.execute(
        "INSERT INTO alert_rule (user_id, period, percents) VALUES ('ann', 'hour', '{30}')"
    )
    world.headroom.forget()
    world.look()
    assert world.notices() == [("quota.raised", "ann", 30, 400)]


@pytest.mark.parametrize("told_of", [False, True], ids=["nobody was told", "another percentage was noticed"])
@pytest.mark.parametrize("period", ["hour", "day"])
def test_a_rule_counts_for_a_period_that_ended_just_now(
    world: Alerting, period: str, *, told_of: bool
) -> None:
    # Midnight in Kathmandu is 18:15 in UTC.
    ends = NOON + HOUR if period == "hour" else NOON + 6 * HOUR + 15 * MINUTE
    world.user("kim", 1000 if period == "hour" else None, zone="Asia/Kathmandu")
    if period == "day":
        world.quota("kim", "day", 1000)
    world.now = ends - 4 * MINUTE
    world.land(("kim", world.now, 550 if told_of else 400))
    world.look()
    world.now = ends + 10 * MINUTE
    world.look()
    before = len(world.notices())
    world.connection.execute(
        "INSERT INTO alert_rule (user_id, period, percents) VALUES ('kim', %s, '{30}')", [period]
    )
    world.look()
    assert [kind for kind, *rest in world.notices(before) if rest[:2] == ["kim", 30]][:1] == ["quota.raised"]
    before = len(world.notices())
    world.look()
    assert len(world.notices()) == before


def test_a_rule_counts_for_a_day_of_which_a_part_is_missing(world: Alerting) -> None:
    world.quota("ann", "day", 1000)
    world.land(("ann", NOON - 5 * HOUR, 7), ("ann", NOON, 400))
    world.connection.execute("DELETE FROM bytes_agg_user WHERE date < %s", [NOON])
    world.connection.execute(
        "UPDATE ledger.live_table SET kept_from = %s WHERE name = 'bytes_agg_user'", [NOON]
    )
    world.look()
    world.connection.execute(
        "INSERT INTO alert_rule (user_id, period, percents) VALUES ('ann', 'day', '{30}')"
    )
    world.look()
    assert world.notices() == [("quota.raised", "ann", 30, 400)]


def test_everybody_is_asked_about_once_when_a_rule_changes(world: Alerting) -> None:
    world.quota("ann", "day", 1000)
    world.land(("ann", NOON, 400))
    fill(world.connection, world.headroom, world.now)
    world.look()
    world.connection.execute(
        "INSERT INTO alert_rule (user_id, period, percents) VALUES ('ann', 'month', '{30}')"
    )
    world.look()
    assert world.headroom.filled
    slot = int(NOON.timestamp()) // 900
    assert world.headroom.spend("day", [("ann", slot, 99)]) == []
    assert world.headroom.spend("day", [("ann", slot, 1)]) == ["ann"]


def test_of_many_users_at_once_everybody_is_asked_about_and_who_has_used_its_quota_up_is_told_of(
    world: Alerting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "USERS", 5)
    world.connection.execute("INSERT INTO plan VALUES ('small')")
    world.connection.execute("INSERT INTO plan_quota_change VALUES ('small', 'day', '-infinity', 1000)")
    world.land(("u3", NOON, 850), ("ann", NOON, 550))
    world.look()
    before = len(world.notices())
    # Ten newcomers, of whom one has bytes; and the headroom of all is asked about again.
    for number in range(10):
        world.user(f"u{number}", 100 if number == 3 else None, plan="small")
    looked = world.look()
    assert looked.users < 10
    assert sorted(world.notices(before)) == [
        *(("quota.raised", "u3", percent, 850) for percent in (50, 50, 80, 80, 90, 100, 120)),
    ]
    world.connection.execute("UPDATE plan_quota_change SET quota = 900")
    world.land(("u4", NOON, 500))
    before = len(world.notices())
    world.look()
    assert sorted(world.notices(before)) == [("quota.raised", "u3", 90, 850), ("quota.raised", "u4", 50, 500)]
