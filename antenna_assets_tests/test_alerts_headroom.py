"""Headroom: nobody is asked about before anything can change, and nobody is missed once it can."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import MICROSECOND, hour_of
from antenna_assets.ledger.alerts import UserHeadroom, headroom_of_all
from antenna_assets.operations.alerts import watch
from antenna_assets.operations.alerts.headroom import SLOT, Headroom
from antenna_assets_tests.alerting import EPOCH, Alerting, well_within_an_hour

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
MOST = 2**62
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
FIRST_SLOT = (NOON - EPOCH) // MICROSECOND // SLOT


def of_hour(user: str, bytes_: int, starts: datetime = NOON) -> UserHeadroom:
    return UserHeadroom(user, (starts - EPOCH) // MICROSECOND, (starts + HOUR - EPOCH) // MICROSECOND, bytes_)


def landed(user: str, bytes_: int, slot: int = 0) -> tuple[str, int, int]:
    """Bytes of a slot of the hour from noon on."""
    return user, FIRST_SLOT + slot, bytes_


def test_a_user_is_asked_about_when_unknown_and_once_the_bytes_have_landed() -> None:
    headroom = Headroom()
    assert headroom.spend("hour", [landed("ann", 1), landed("ann", 2, 1), landed("bob", 1)]) == ["ann", "bob"]
    headroom.keep("hour", [of_hour("ann", 10), of_hour("bob", 1)])
    assert headroom.spend("hour", [landed("ann", 9), landed("bob", 0)]) == []
    assert headroom.spend("hour", [landed("ann", 1), landed("bob", 1, 3)]) == ["ann", "bob"]
    assert headroom.spend("day", [landed("ann", 1)]) == ["ann"]


def test_what_is_remembered_holds_for_its_period_alone() -> None:
    headroom = Headroom()
    headroom.keep("hour", [of_hour("ann", 10)])
    assert headroom.spend("hour", [landed("ann", 1, -1)]) == ["ann"]
    assert headroom.spend("hour", [landed("ann", 1, 4)]) == ["ann"]
    headroom.keep("hour", [of_hour("ann", 5, NOON + HOUR)])
    # Asked about for the hour before: that of the newest stays.
    headroom.keep("hour", [of_hour("ann", 99)])
    assert headroom.spend("hour", [landed("ann", 4, 4)]) == []
    assert headroom.spend("hour", [landed("ann", 1, 7)]) == ["ann"]


def test_without_a_quota_a_user_is_never_asked_about_until_it_has_one() -> None:
    headroom = Headroom()
    headroom.keep("day", [UserHeadroom("ann", None, None, MOST)])
    assert headroom.spend("day", [landed("ann", 2**61), landed("ann", 2**61 - 1, 10_000)]) == []
    headroom.keep("day", [of_hour("ann", 1)])
    assert headroom.spend("day", [landed("ann", 1)]) == ["ann"]
    headroom.keep("day", [UserHeadroom("ann", None, None, MOST)])
    assert headroom.spend("day", [landed("ann", 1, 400)]) == []


def test_of_more_users_than_are_remembered_the_others_are_asked_about() -> None:
    headroom = Headroom(2)
    headroom.keep("hour", [of_hour(user, 10) for user in ("ann", "bob", "cid")])
    assert headroom.spend("hour", [landed(user, 1) for user in ("ann", "bob", "cid")]) == ["cid"]
    headroom.forget()
    headroom.keep("hour", [of_hour("cid", 10)])
    assert headroom.spend("hour", [landed(user, 1) for user in ("ann", "bob", "cid")]) == ["ann", "bob"]


def test_another_basis_forgets_everything() -> None:
    headroom = Headroom()
    headroom.rest_on("one")
    headroom.keep("hour", [of_hour("ann", 10)])
    headroom.rest_on("one")
    assert headroom.spend("hour", [landed("ann", 1)]) == []
    headroom.rest_on("another")
    assert headroom.spend("hour", [landed("ann", 1)]) == ["ann"]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("keep"), st.integers(0, 2), st.integers(0, 1), st.integers(0, 20)),
            st.tuples(st.just("land"), st.integers(0, 2), st.integers(0, 7), st.integers(0, 10)),
        )
    )
)
def test_nobody_is_missed_whose_bytes_have_used_the_headroom_up(
    script: list[tuple[str, int, int, int]],
) -> None:
    headroom = Headroom(2)
    known: dict[int, tuple[int, int]] = {}
    spent: dict[int, int] = defaultdict(int)
    for what, user, number, bytes_ in script:
        if what == "keep":
            headroom.keep("hour", [of_hour(str(user), bytes_, NOON + number * HOUR)])
            if known.get(user, (0, 0))[0] <= number:
                known[user], spent[user] = (number, bytes_), 0
        else:
            asked = headroom.spend("hour", [landed(str(user), bytes_, number)])
            hour, left = known.get(user, (-1, 0))
            spent[user] += bytes_ if number // 4 == hour else 0
            if number // 4 != hour or spent[user] >= left:
                assert asked == [str(user)]


@pytest.fixture
def world(connection: psycopg.Connection, tmp_path: Path) -> Iterator[Alerting]:
    """At 12:10."""
    made = Alerting(connection, tmp_path, NOON + 10 * MINUTE)
    yield made
    made.engine.close()


def of_all(world: Alerting, period: str = "hour") -> dict[str, int]:
    with world.connection.transaction():
        found = headroom_of_all(world.connection, period, world.now)
        # But for those that every database begins with.
        return {one.id: one.headroom for one in found if not one.id.startswith("00000000-")}


def of_each(world: Alerting, *users: str, period: str = "hour") -> dict[str, int]:
    rows = world.connection.execute(
        "SELECT id, headroom FROM ledger.watched_usage(%s, %s, %s, %s)",
        [list(users), period, world.now, world.now],
    )
    return dict(rows.fetchall())


@pytest.mark.services
def test_headroom_reaches_to_the_next_percentage(world: Alerting) -> None:
    for user, quota in (("ann", 1_000), ("bob", 999), ("cid", 0), ("dan", None), ("fay", 1_000), ("gus", 0)):
        world.user(user, quota)
    world.land(("ann", NOON, 0), ("bob", NOON, 499), ("fay", NOON, 850), ("gus", NOON, 1), ("eve", NOON, 7))
    each = {"ann": 500, "bob": 1, "cid": 1, "dan": MOST, "eve": 0, "fay": 50, "gus": MOST}
    assert of_each(world, *each) == each
    # Nobody may have been told of `fay` and `gus`, and `eve` is unknown.
    assert of_all(world) == {"ann": 500, "bob": 1, "cid": 1, "dan": MOST, "fay": 0, "gus": 0}
    world.land(("fay", NOON, 400))
    assert of_each(world, "fay") == {"fay": MOST}
    world.look()
    assert "fay" not in of_all(world)


@pytest.mark.services
def test_headroom_of_days_lies_in_the_users_zone_and_rests_on_what_is_published(world: Alerting) -> None:
    for user, zone in (("ann", None), ("bob", "Asia/Kathmandu"), ("cid", None)):
        world.user(user, 10**9, zone=zone)
        if user != "cid":
            world.quota(user, "day", 1_000)
    # Midnight in Kathmandu is 18:15 in UTC.
    night = NOON - 18 * HOUR
    for user in ("ann", "bob"):
        world.land((user, night + 10 * MINUTE, 100), (user, night + 20 * MINUTE, 30), (user, NOON, 7))
    assert of_each(world, "ann", "bob", "cid", period="day") == {"ann": 493, "bob": 463, "cid": MOST}
    assert of_all(world, "day") == {"ann": 493, "bob": 463, "cid": MOST}
    for hour in (night, NOON):
        world.publish(hour)
    assert of_all(world, "day") == {"ann": 493, "bob": 463, "cid": MOST}


@pytest.mark.services
def test_everybody_at_once_has_the_headroom_that_each_has(
    new_database: Callable[[str], AbstractContextManager[str]], migrated_template: str
) -> None:
    @settings(max_examples=15, derandomize=True, database=None)
    @given(
        st.lists(
            st.tuples(st.integers(0, 3), st.integers(0, 1_000), st.integers(0, 400)), min_size=1, max_size=8
        )
    )
    def each(events: list[tuple[int, int, int]]) -> None:
        with new_database(migrated_template) as url, connect(url) as connection, TemporaryDirectory() as lake:
            world = Alerting(connection, Path(lake), NOON + 10 * MINUTE)
            quotas, zones = (1_000, 0, None, 555), (None, "Asia/Kathmandu", "America/St_Johns", None)
            for number, (quota, zone) in enumerate(zip(quotas, zones, strict=True)):
                world.user(str(number), quota, zone=zone)
                world.quota(str(number), "day", quota)
            for user, minutes, bytes_ in events:
                world.land((str(user), world.now - minutes * MINUTE, bytes_))
            if events[0][1] % 2:
                world.publish(hour_of(world.now - events[0][1] * MINUTE))
            for period in ("hour", "day", "month"):
                assert of_all(world, period) == {
                    user: 0 if noted else left for user, left, noted in known(world, period)
                }
            world.engine.close()

    def known(world: Alerting, period: str) -> list[tuple[str, int, bool]]:
        return world.connection.execute(
            "SELECT id, headroom, noted FROM ledger.watched_usage(%s, %s, %s, %s)",
            [[*"0123"], period, world.now, world.now],
        ).fetchall()

    each()


@pytest.mark.services
def test_who_is_far_from_a_percentage_is_not_asked_about_again(world: Alerting) -> None:
    world.user("ann", 1_000)
    world.user("eve", None)
    world.land(("ann", NOON, 200), ("eve", NOON, 1))
    assert world.look().users == 2
    world.land(("ann", NOON + MINUTE, 299), ("eve", NOON + MINUTE, 10**9))
    assert world.look().users == 0
    world.land(("ann", NOON + 6 * MINUTE, 1))
    assert (world.look().users, world.notices()) == (1, [("quota.raised", "ann", 50, 500)])
    world.land(("ann", NOON + 7 * MINUTE, 299))
    assert world.look().users == 0
    world.now += HOUR
    world.land(("ann", world.now, 1))
    # Of the new hour, and the alert of the one that has ended.
    assert world.look().users == 2


@pytest.mark.services
def test_a_look_that_was_not_committed_is_looked_at_again(
    world: Alerting, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.user("ann", 1_000)
    world.land(("ann", NOON, 480))
    world.look()
    world.land(("ann", NOON, 30))

    def die(point: str) -> None:
        raise InterruptedError(point)

    with monkeypatch.context() as patched:
        patched.setattr("antenna_assets.operations.alerts.watch.commit_point", die)
        with pytest.raises(InterruptedError, match=r"alerts\.followed"):
            world.look()
    assert world.notices() == []
    world.look()
    assert world.notices() == [("quota.raised", "ann", 50, 510)]


RULES = "UPDATE alert_rule SET percents = '{40}' WHERE period = 'hour'"
OWN_RULE = "INSERT INTO alert_rule (user_id, period, percents) VALUES ('ann', 'hour', '{40}')"


@pytest.mark.services
@pytest.mark.parametrize("change", [RULES, OWN_RULE])
def test_another_rule_counts_at_once(world: Alerting, change: str) -> None:
    world.user("ann", 1_000)
    world.land(("ann", NOON, 390))
    world.look()
    world.connection.execute(change)  # type: ignore[call-overload]
    world.land(("ann", NOON + MINUTE, 10))
    world.look()
    assert world.notices() == [("quota.raised", "ann", 40, 400)]


CORRECTIONS = {
    "own": "INSERT INTO user_quota_change (id, period, valid_from, quota) VALUES ('ann', 'day', now() - interval '1 day', 500)",
    "of the plan": "UPDATE plan_quota_change SET quota = 500 WHERE period = 'day'",
    "joined a plan": "INSERT INTO user_plan_change (id, valid_from, plan) VALUES ('ann', now() - interval '1 day', 'small')",
    "own, removed": "DELETE FROM user_quota_change WHERE period = 'day'",
}


@pytest.mark.services
@pytest.mark.parametrize("correction", CORRECTIONS)
def test_a_quota_that_was_corrected_for_the_past_counts_at_once(world: Alerting, correction: str) -> None:
    plans = {"own": (None, None), "of the plan": (1_000, "small"), "joined a plan": (500, None)}
    of_plan, plan = plans.get(correction, (500, "small"))
    world.connection.execute("INSERT INTO plan VALUES ('small')")
    if of_plan:
        world.connection.execute(
            "INSERT INTO plan_quota_change (plan, period, valid_from, quota) VALUES ('small', 'day', '-infinity', %s)",
            [of_plan],
        )
    world.now = well_within_an_hour(world.connection)
    world.user("ann", 10**9, plan=plan)
    if correction.startswith("own"):
        world.quota("ann", "day", 1_000)
    world.land(("ann", world.now, 200))
    world.look()
    world.connection.execute(CORRECTIONS[correction])  # type: ignore[call-overload]
    world.look()
    world.land(("ann", world.now, 50))
    world.look()
    assert [notice for notice in world.notices() if notice[2] == 50] == [("quota.raised", "ann", 50, 250)]


@pytest.mark.services
def test_a_quota_counts_at_once_though_its_transaction_took_long(
    world: Alerting, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "OVERLAP", timedelta(seconds=10))
    world.now = well_within_an_hour(world.connection)
    world.user("ann", 1_000)
    world.land(("ann", world.now, 200))
    world.look()
    with connect(postgres_url) as importing, importing.transaction():
        importing.execute("UPDATE user_metadata SET quota = 500 WHERE id = 'ann'")
        # Meanwhile the watch has looked for longer than clocks are set back.
        world.now += timedelta(seconds=30)
        world.look()
    world.look()
    world.land(("ann", world.now, 50))
    world.look()
    assert world.notices() == [("quota.raised", "ann", 50, 250)]


@pytest.mark.services
def test_of_a_user_who_becomes_known_nothing_was_remembered(world: Alerting) -> None:
    world.now = well_within_an_hour(world.connection)
    world.user("bob", 10**9)
    world.quota("bob", "day", 10**9)
    world.land(("ann", world.now, 400), ("bob", world.now, 1))
    world.look()
    world.user("ann", 1_000)
    world.look()
    world.land(("ann", world.now, 100))
    world.look()
    assert world.notices() == [("quota.raised", "ann", 50, 500)]


@pytest.mark.services
def test_what_changes_from_now_on_forgets_nobody_else(world: Alerting) -> None:
    world.now = well_within_an_hour(world.connection)
    world.user("ann", 1_000)
    world.user("cid", 1_000)
    world.quota("cid", "day", 1_000)
    world.land(("ann", world.now, 1))
    assert world.look().users == 1
    world.user("bob", 1_000)
    world.connection.execute("UPDATE user_metadata SET quota = 500 WHERE id = 'bob'")
    world.connection.execute("INSERT INTO user_quota_change (id, period, quota) VALUES ('bob', 'day', 7)")
    world.look()
    world.land(("ann", world.now, 1))
    assert world.look().users == 0


@pytest.mark.services
def test_another_quota_counts_at_once(world: Alerting) -> None:
    world.user("ann", 1_000)
    world.land(("ann", NOON, 200))
    world.look()
    world.now += MINUTE
    world.quota("ann", "hour", 500, world.now)
    world.look()
    world.land(("ann", NOON + MINUTE, 50))
    world.look()
    assert world.notices() == [("quota.raised", "ann", 50, 250)]


@pytest.mark.services
def test_an_hour_that_was_published_with_too_little_raises_when_it_is_put_right(world: Alerting) -> None:
    world.user("ann", 10**9)
    world.quota("ann", "day", 1_000)
    world.land(("ann", NOON - HOUR, 480))
    world.look()
    world.publish(NOON - HOUR, {"ann": 1})
    world.land(("ann", NOON, 9))
    world.look()
    # As a watch that begins now sees it.
    world.headroom = Headroom()
    world.land(("ann", NOON, 10))
    world.look()
    world.publish(NOON - HOUR)
    world.land(("ann", NOON, 1))
    world.look()
    assert world.notices() == [("quota.raised", "ann", 50, 500)]
