"""The simulated messages: reproducible, exact in number, within their hours, and over quota as promised."""

import csv
import json
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from itertools import islice
from threading import Event as Stop
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antenna_assets.simulator.events import (
    HOUR,
    SECOND,
    Message,
    Scenario,
    ScenarioError,
    antennas,
    messages,
    users,
)
from antenna_assets.simulator.live import live
from antenna_assets.simulator.malformed import REASONS, SHAPES
from antenna_assets.simulator.scenario import EPOCH
from antenna_assets.storage.project_files import sql_folder

START = datetime(2026, 11, 22, 8, tzinfo=UTC)
GOLDEN = "89fdb9be0efd515ee5bce88279585d7feb8bd5f91cdc8191eca5a2951b588ba3"
MIXED: dict[str, Any] = {"late": 0.1, "malformed": 0.05, "future": 0.02, "unknown_users": 0.03}


def scenario(
    events: int = 1000, *, seed: int = 1, start: datetime = START, hours: int = 3, **more: Any
) -> Scenario:
    return Scenario(events=events, seed=seed, start=start, hours=hours, **more)


def fingerprint(of: Scenario) -> str:
    digest = sha256()
    for message in messages(of):
        digest.update(repr((message.key, message.value)).encode())
    return digest.hexdigest()


def micros(instant: datetime) -> int:
    return (instant - EPOCH) // timedelta(microseconds=1)


def test_the_same_scenario_gives_the_same_bytes_on_every_machine() -> None:
    assert fingerprint(scenario(2000, **MIXED)) == GOLDEN


def test_another_seed_gives_other_bytes() -> None:
    assert fingerprint(scenario(seed=1)) != fingerprint(scenario(seed=2))


shares = st.sampled_from([0.0, 0.001, 0.01, 0.1, 0.25])


@settings(max_examples=40)
@given(
    events=st.integers(0, 3000),
    seed=st.integers(-5, 2**70),
    start=st.integers(0, 23),
    hours=st.integers(1, 30),
    late=shares,
    malformed=shares,
    future=shares,
    unknown=shares,
    people=st.integers(1, 60),
)
def test_messages_are_exactly_as_many_and_as_mixed_as_asked(
    events: int,
    seed: int,
    start: int,
    hours: int,
    late: float,
    malformed: float,
    future: float,
    unknown: float,
    people: int,
) -> None:
    of = Scenario(
        events, seed, START.replace(hour=start), hours, late, malformed, future, unknown, users=people
    )
    everything = list(messages(of))
    reasons = Counter(message.reason for message in everything)
    good = [message.event for message in everything if message.event is not None]
    known = {user.id for user in users(people)}
    assert len(everything) == events
    assert reasons["timestamp_in_future"] == pytest.approx(events * future, abs=1)
    assert reasons.keys() <= {None, "timestamp_in_future", *REASONS}
    assert sum(reasons[reason] for reason in REASONS) == pytest.approx(events * malformed, abs=1)
    assert sum(event.id not in known for event in good) == pytest.approx(events * unknown, abs=1)
    assert all(micros(of.start) <= event.timestamp < micros(of.end) for event in good)
    assert all(0 <= event.bytes <= 2**36 for event in good)


def test_shares_that_add_up_to_one_leave_no_plain_message() -> None:
    of = scenario(1000, late=0.25, malformed=0.25, future=0.25, unknown_users=0.25)
    counts = Counter("good" if message.event else message.reason for message in messages(of))
    assert sum(counts.values()) == 1000
    assert counts["timestamp_in_future"] == 250


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_appears_among_a_dozen_malformed_messages(reason: str) -> None:
    assert Counter(message.reason for message in messages(scenario(12, malformed=1.0)))[reason] == 1


def test_every_shape_of_malformed_message_appears() -> None:
    values = {(message.reason, message.value) for message in messages(scenario(12 * 12, malformed=1.0))}
    for reason, shapes in SHAPES.items():
        assert len({value for name, value in values if name == reason}) >= len(shapes)
    assert ("blank", None) in values
    assert ("blank", b"") in values


def verdict(value: bytes | None) -> str | None:
    """Why a strict reader of the contract rejects a message: written for these tests, with the standard library."""
    if value is None or not value.strip():
        return "blank"
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return "not_utf8"
    duplicates: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in items]
        duplicates.extend(name for name in names if names.count(name) > 1)
        return dict(items)

    def constant(_name: str) -> None:
        raise json.JSONDecodeError("constant", text, 0)

    decoder = json.JSONDecoder(object_pairs_hook=pairs, parse_constant=constant)
    try:
        found, end = decoder.raw_decode(text.lstrip())
    except json.JSONDecodeError:
        return "not_json"
    if text.lstrip()[end:].strip():
        return "trailing_data"
    if not isinstance(found, dict):
        return "not_an_object"
    if duplicates:
        return "duplicate_field"
    types: dict[str, Any] = {
        "bytes": int,
        "timestamp": (int, float, str),
        "app": str,
        "id": str,
        "antenna_id": str,
    }
    if types.keys() - found.keys():
        return "missing_field"
    for name, type_ in types.items():
        if not isinstance(found[name], type_) or isinstance(found[name], bool):
            return "wrong_type"
    if found["bytes"] < 0:
        return "negative_bytes"
    if found["bytes"] > 2**36:
        return "bytes_out_of_range"
    for name, most in {"app": 256, "id": 64, "antenna_id": 64}.items():
        if not found[name]:
            return "blank"
        if len(found[name].encode()) > most:
            return "too_long"
        if "\0" in found[name]:
            return "unstorable_text"
    return None


def test_each_message_earns_its_reason_and_good_ones_none() -> None:
    for message in messages(scenario(3000, malformed=0.3, future=0.1, late=0.1)):
        expected = None if message.reason == "timestamp_in_future" else message.reason
        assert verdict(message.value) == expected, message


def test_future_messages_are_centuries_ahead() -> None:
    for message in messages(scenario(200, future=1.0)):
        stamp = json.loads(message.value or b"")["timestamp"]
        instant = (
            datetime.fromisoformat(stamp) if isinstance(stamp, str) else datetime.fromtimestamp(stamp, UTC)
        )
        assert instant.year == 2999


def test_good_messages_are_written_in_many_ways() -> None:
    values = [message.value or b"" for message in messages(scenario(5000))]
    stamps = [json.loads(value)["timestamp"] for value in values]
    texts = [stamp for stamp in stamps if isinstance(stamp, str)]
    assert {type(stamp) for stamp in stamps} == {int, float, str}
    assert any(text.endswith("Z") for text in texts)
    assert any(text.endswith("+00:00") for text in texts)
    assert any(text.endswith("-05:30") for text in texts)
    assert any(value.startswith(b"\n{ ") for value in values)
    assert any(b"\\u00" in value for value in values)
    assert any("señal ☎".encode() in value for value in values)
    digits = {len(str(stamp).partition(".")[2]) for stamp in stamps if isinstance(stamp, float)}
    assert digits == {1, 2, 3, 4, 5, 6}


def test_events_come_in_the_order_in_which_they_happen_within_two_seconds() -> None:
    newest = 0
    for message in messages(scenario(3000)):
        assert message.event is not None
        # A second more: whole-second timestamps are cut off.
        assert message.event.timestamp >= newest - 3 * SECOND
        newest = max(newest, message.event.timestamp)


def test_late_events_are_minutes_to_two_hours_behind() -> None:
    newest, delays = 0, []
    for message in messages(scenario(5000, late=0.1, hours=5)):
        assert message.event is not None
        delays.append(newest - message.event.timestamp)
        newest = max(newest, message.event.timestamp)
    late = [delay for delay in delays if delay > 50 * SECOND]
    assert 450 <= len(late) <= 500
    assert HOUR < max(late) <= 2 * HOUR + 10 * SECOND


def test_evenings_are_busier_than_nights() -> None:
    hours: Counter[int] = Counter()
    for message in messages(scenario(5000, start=START.replace(hour=0), hours=24)):
        assert message.event is not None
        hours[message.event.timestamp // HOUR % 24] += 1
    assert hours[20] > 5 * hours[3] > 0


def test_a_few_users_do_most() -> None:
    counts = Counter(message.key for message in messages(scenario(20_000)))
    (_, most), *_, (_, least) = counts.most_common()
    assert len(counts) == 20
    assert most > 4 * least


@pytest.mark.parametrize("mix", [{}, MIXED], ids=["plain", "mixed"])
@pytest.mark.parametrize(
    ("events", "hours", "start"),
    [(1000, 2, 8), (1000, 3, 2), (1500, 3, 22), (10_000, 3, 12), (60_000, 1, 20), (30_000, 24, 0)],
)
@pytest.mark.parametrize("seed", [1, 2, 42])
def test_in_every_hour_some_users_are_over_quota_and_most_are_not(
    mix: dict[str, Any], events: int, hours: int, start: int, seed: int
) -> None:
    of = scenario(events, seed=seed, hours=hours, start=START.replace(hour=start), **mix)
    over = users_over_quota(messages(of))
    assert len(over) == hours
    assert all(3 <= count <= 7 for count in over.values()), over


def users_over_quota(of: Any) -> dict[int, int]:
    """By hour, how many of the 20 users are over."""
    quotas = {user.id: user.quota for user in users(20)}
    usage: Counter[tuple[int, str]] = Counter()
    for message in of:
        if message.event is not None:
            usage[message.event.timestamp // HOUR, message.event.id] += message.event.bytes
    return Counter(hour for (hour, id_), size in usage.items() if size > quotas.get(id_, 2**63))


def test_many_users_go_over_quota_too() -> None:
    everyone = users(1000)
    quotas = {user.id: user.quota for user in everyone}
    usage: Counter[str] = Counter()
    for message in messages(scenario(50_000, hours=1, users=1000)):
        assert message.event is not None
        usage[message.event.id] += message.event.bytes
    assert 200 <= sum(size > quotas[id_] for id_, size in usage.items()) <= 300


def test_the_first_twenty_users_are_those_of_the_seed() -> None:
    with (sql_folder() / "seed" / "users.csv").open(encoding="utf-8", newline="") as file:
        seed = [(row["id"], row["name"], row["email"], int(row["quota"])) for row in csv.DictReader(file)]
    assert [tuple(user) for user in users(20)] == seed


def test_more_users_and_antennas_are_all_different() -> None:
    assert len({user.id for user in users(2000)}) == len({user.email for user in users(2000)}) == 2000
    assert users(2000)[:20] == users(20)
    assert len(set(antennas(2000))) == 2000
    assert antennas(5)[4] == "00000000-1111-1111-1111-111111111115"


def test_app_names_are_escaped() -> None:
    apps = ('he said "hi"\\', "línea\n2")
    found = {json.loads(message.value or b"")["app"] for message in messages(scenario(300, apps=apps))}
    assert found == set(apps)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"events": -1}, "events: expected a whole number of at least 0, found -1"),
        ({"events": 1.5}, "events: expected a whole number of at least 0, found 1.5"),
        ({"hours": 0}, "hours: expected a whole number of at least 1, found 0"),
        ({"users": 0}, "users: expected a whole number of at least 1, found 0"),
        ({"antennas": True}, "antennas: expected a whole number of at least 1, found True"),
        ({"seed": "one"}, "seed: expected a whole number, found 'one'"),
        ({"start": datetime(2026, 1, 1)}, "start: expected an instant with a time zone"),  # noqa: DTZ001
        (
            {"start": START.replace(minute=30)},
            "start: expected a full hour in UTC, found 2026-11-22T08:30:00",
        ),
        (
            {"start": START.astimezone(timezone(timedelta(minutes=30))).replace(minute=0)},
            "expected a full hour in UTC",
        ),
        ({"start": datetime(1969, 1, 1, tzinfo=UTC)}, "expected the years 1970 to 9999"),
        ({"hours": 10**9}, "expected the years 1970 to 9999"),
        ({"late": 1.1}, "late: expected a share from 0 to 1, found 1.1"),
        ({"late": float("nan")}, "late: expected a share from 0 to 1, found nan"),
        ({"malformed": "0.1"}, "malformed: expected a share from 0 to 1, found '0.1'"),
        ({"late": 0.6, "future": 0.6}, "expected shares that add up to at most 1, found 1.2"),
        ({"apps": ()}, "apps: expected at least one name and none twice"),
        ({"apps": ("A", "A")}, "apps: expected at least one name and none twice"),
        ({"apps": (" ",)}, "apps: expected names of 1 to 256 bytes"),
    ],
)
def test_a_scenario_that_cannot_be_played_is_refused(change: dict[str, Any], error: str) -> None:
    with pytest.raises(ScenarioError) as raised:
        Scenario(**{"events": 1, "seed": 1, "start": START, "hours": 1, **change})
    assert error in str(raised.value)


def test_a_start_in_another_zone_is_the_same_hour() -> None:
    madrid = START.astimezone(timezone(timedelta(hours=1)))
    assert scenario(start=madrid) == scenario()


def test_hours_that_the_stream_would_reject_are_refused() -> None:
    scenario().require_within(START, START + timedelta(hours=3))
    with pytest.raises(ScenarioError, match="rejected as too old"):
        scenario().require_within(START + timedelta(hours=1), START + timedelta(hours=3))
    with pytest.raises(ScenarioError, match="events in the future are rejected"):
        scenario().require_within(START, START + timedelta(hours=2))


def test_live_traffic_is_stamped_by_the_clock_and_stops() -> None:
    stop = Stop()
    stream = live(100, stop, clock=lambda: START + timedelta(seconds=7.5))
    some = list(islice(stream, 50))
    assert {message.event.timestamp for message in some if message.event} == {micros(START) + 7 * SECOND}
    assert [verdict(message.value) for message in some] == [None] * 50
    stop.set()
    assert list(stream) == []


def test_live_traffic_fits_the_quotas_of_an_hour() -> None:
    seconds = iter(range(3600))
    clock = lambda: START + timedelta(seconds=next(seconds))  # noqa: E731
    assert set(users_over_quota(islice(live(1, Stop(), clock=clock), 3600)).values()) <= {4, 5, 6}


def test_a_message_is_either_an_event_or_has_a_reason() -> None:
    def sound(message: Message) -> bool:
        return (message.event is None) != (message.reason is None)

    assert all(map(sound, messages(scenario(2000, **MIXED))))
