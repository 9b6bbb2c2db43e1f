"""What the sensor asks for: consecutive situations, literal requests."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antenna_assets.defs.sensor_policy import plan_requests
from antenna_assets.ledger.failing import MOST_ATTEMPTS, Failing, back_off
from antenna_assets.ledger.hours_to_publish import Candidate
from antenna_assets.ledger.republish_wait import republish_pause, republish_wait, waiting_hours
from antenna_assets.ledger.requests import HourRequest

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)
NOW = TEN + timedelta(days=1)
LONGEST = 15 * MINUTE
MILLION = 1_000_000


def todo(*numbers: int, batch: int = 7, attempts: int = 0) -> list[Candidate]:
    return [Candidate(TEN + number * HOUR, batch, attempts) for number in numbers]


def hours(*numbers: int) -> list[datetime]:
    return [TEN + number * HOUR for number in numbers]


def asked(candidates: list[Candidate], newest: datetime | None = None) -> list[list[datetime]]:
    ordered = sorted(candidates, key=lambda one: one.hour)
    return [list(request.hours) for request in plan_requests(ordered, newest=newest)]


def test_contiguous_hours_become_one_request() -> None:
    assert asked(todo(0, 1, 3)) == [hours(0, 1), hours(3)]


def test_a_requests_name_says_its_hours_and_its_newest_batch() -> None:
    (request,) = plan_requests([*todo(0, batch=9), *todo(1, batch=8)], newest=None)
    assert request == HourRequest(hours(0, 1), 9)
    assert request.name == "2026-11-22-10:00..2026-11-22-11:00@9"


def test_a_tick_asks_for_24_hours_at_most_oldest_first() -> None:
    assert asked(todo(*range(30))) == [hours(*range(24))]


def test_the_newest_hour_is_asked_for_beside_the_oldest_whatever_waits_before_it() -> None:
    wanted = todo(*range(168))
    newest = TEN + 167 * HOUR
    assert asked(wanted, newest) == [hours(*range(23)), [newest]]
    # Only if there is something to publish of it: what comes before it is no newest hour.
    assert asked(wanted[:-1], newest) == [hours(*range(24))]
    assert asked(todo(*range(24)), TEN + 23 * HOUR) == [hours(*range(24))]


def test_a_week_is_asked_for_in_less_than_ten_minutes_of_ticks() -> None:
    left, ticks = todo(*range(168)), 0
    while left:
        done = {hour for request in asked(left, TEN + 167 * HOUR) for hour in request}
        left, ticks = [one for one in left if one.hour not in done], ticks + 1
    assert ticks * timedelta(seconds=30) < timedelta(minutes=5)


def test_an_hour_that_failed_ten_times_is_stuck() -> None:
    assert MOST_ATTEMPTS == 10
    assert [Failing(attempts, "run", NOW, NOW).stuck for attempts in (9, 10, 11)] == [False, True, True]


def test_a_failed_hour_waits_twice_as_long_each_time_up_to_an_hour() -> None:
    waits = {1: 30, 2: 60, 3: 120, 7: 1920, 8: 3600, 9: 3600, 10_000: 3600}
    assert {attempts: back_off(attempts).total_seconds() for attempts in waits} == waits


def test_hours_that_failed_together_are_asked_for_in_ever_smaller_company() -> None:
    assert asked(todo(*range(6), attempts=1)) == [hours(*range(6))]
    assert asked(todo(*range(6), attempts=3)) == [hours(0, 1, 2), hours(3, 4, 5)]
    assert asked(todo(*range(6), attempts=5)) == [hours(number) for number in range(6)]


def test_hours_that_failed_are_kept_apart_from_those_that_did_not() -> None:
    assert asked(todo(0, 2) + todo(1, attempts=1)) == [hours(0), hours(1), hours(2)]


def test_row_27_many_failing_hours_leave_room_for_the_others_and_the_others_for_them() -> None:
    failing, fresh = todo(*range(100), attempts=6), todo(*range(200, 300))
    flat = [hour for request in asked(failing + fresh, TEN + 299 * HOUR) for hour in request]
    assert flat == hours(*range(6), *range(200, 217), 299)
    # What the one side does not need is for the other.
    assert asked(failing + todo(200)) == [hours(number) for number in (*range(23), 200)]
    assert asked(todo(0, 1, attempts=6) + fresh) == [hours(0), hours(1), hours(*range(200, 222))]


@pytest.mark.parametrize(
    ("published", "late", "wait"),
    [
        # Nothing is published yet, or the hour was quiet: there is nothing to write again.
        (0, 5, 0),
        (MILLION, 0, 0),
        # A small hour waits for less than a tick.
        (720, 1, 0.043),
        (100_000, 1, 6),
        (MILLION, 1, 60),
        (5 * MILLION, 1, 300),
        # Never longer than it may.
        (20 * MILLION, 1, 900),
        (10**12, 1, 900),
        # The more of it is new, the less it waits.
        (19_800_000, 200_000, 810),
        (19_000_000, 1_000_000, 450),
        (18_000_000, 2_000_000, 0),
        (10 * MILLION, 90 * MILLION, 0),
    ],
)
def test_late_rows_wait_with_the_size_of_their_hour_and_less_the_more_there_are(
    published: int, late: int, wait: float
) -> None:
    assert republish_wait(published, late, LONGEST).total_seconds() == pytest.approx(wait, rel=0.01)
    assert republish_wait(published, late, timedelta(0)) == timedelta(0)


@given(
    published=st.integers(0, 10**13),
    late=st.integers(0, 10**13),
    more=st.integers(0, 10**13),
    longest=st.timedeltas(timedelta(0), HOUR),
)
def test_no_wait_is_longer_than_it_may_and_more_late_rows_never_wait_longer(
    published: int, late: int, more: int, longest: timedelta
) -> None:
    wait = republish_wait(published, late + 1, longest)
    assert timedelta(0) <= republish_wait(published, late + 1 + more, longest) <= wait <= longest


@pytest.mark.parametrize(
    ("published", "late", "minutes"),
    [(0, 5, 0), (1_000, 0, 0), (999, 1, 4.95), (950, 50, 2.5), (900, 100, 0), (20 * MILLION, 1, 5)],
)
def test_between_two_publications_for_late_rows_is_a_pause(published: int, late: int, minutes: float) -> None:
    assert republish_pause(published, late, LONGEST) / MINUTE == pytest.approx(minutes, rel=0.001)
    assert republish_pause(published, late, MINUTE) <= MINUTE
    assert republish_pause(published, late, timedelta(0)) == timedelta(0)


def test_row_27_a_day_of_small_hours_with_a_late_row_each_half_a_minute_is_published_every_five_minutes() -> (
    None
):
    again_at: datetime | None = None
    late_since: datetime | None = None
    published = []
    for tick in range(60):
        now = NOW + tick * MINUTE / 2
        late_since = late_since or now
        found = [
            Candidate(TEN + number * HOUR, tick, 0, 100_000, 1, late_since, again_at) for number in range(24)
        ]
        if not waiting_hours(found, newest=None, now=now, longest=LONGEST):
            published.append((now - NOW) / MINUTE)
            again_at, late_since = now, None
    # The first ones wait for six seconds, which is until the next tick.
    assert published == [0.5, 5.5, 10.5, 15.5, 20.5, 25.5]


def late_hour(number: int, since: datetime, *, attempts: int = 0) -> Candidate:
    """An hour of 20 million rows and a late one: it waits as long as any may."""
    return Candidate(TEN + number * HOUR, 7, attempts, 20 * MILLION, 1, since)


def test_an_hour_waits_from_its_first_late_row_on_and_the_newest_never_does() -> None:
    found = [
        late_hour(0, NOW - 14 * MINUTE),
        late_hour(1, NOW - 15 * MINUTE),
        *todo(2),
        # It was asked for already.
        late_hour(3, NOW, attempts=1),
        # The clock was set back.
        late_hour(4, NOW + HOUR),
        late_hour(5, NOW),
        late_hour(6, NOW),
    ]
    waiting = waiting_hours(found, newest=TEN + 6 * HOUR, now=NOW, longest=LONGEST)
    assert {hour: until - NOW for hour, until in waiting.items()} == pytest.approx(
        {TEN: MINUTE, TEN + 5 * HOUR: LONGEST}, abs=SECOND
    )


@given(
    fresh=st.sets(st.integers(0, 80), max_size=60),
    failed=st.dictionaries(st.integers(0, 80), st.integers(1, 12), max_size=60),
    newest=st.none() | st.integers(0, 80),
)
def test_every_request_is_contiguous_and_no_hour_is_asked_for_twice(
    fresh: set[int], failed: dict[int, int], newest: int | None
) -> None:
    found = [one for number in fresh - failed.keys() for one in todo(number)]
    found += [one for number, attempts in failed.items() for one in todo(number, attempts=attempts)]
    last = None if newest is None else TEN + newest * HOUR
    requests = asked(found, last)
    flat = [hour for request in requests for hour in request]
    assert len(flat) == len(set(flat))
    assert set(flat) <= {one.hour for one in found}
    assert all(later - earlier == HOUR for request in requests for earlier, later in pairwise(request))
    # Something to do and nothing asked for would be a standstill.
    assert len(flat) == min(24, len(found))
    assert last not in {one.hour for one in found} or last in flat
