"""What the sensor asks for: consecutive situations, literal requests."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from antenna_assets.ledger import HourToPublish
from antenna_assets.requests import (
    MOST_ATTEMPTS,
    Attempt,
    Request,
    failing_hours,
    hours_and_batch,
    plan_requests,
)

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
NOW = TEN + timedelta(days=1)


def todo(*numbers: int, batch: int = 7) -> list[HourToPublish]:
    return [HourToPublish(TEN + number * HOUR, batch, 0) for number in numbers]


def hours(*numbers: int) -> list[datetime]:
    return [TEN + number * HOUR for number in numbers]


def attempt(*numbers: int, batch: int = 7, ended: datetime = NOW) -> Attempt:
    return Attempt(frozenset(hours(*numbers)), batch, "run", ended)


def plan(
    wanted: list[HourToPublish],
    *attempts: Attempt,
    running: frozenset[datetime] = frozenset(),
    newest: datetime | None = None,
    now: datetime = NOW,
) -> list[Request]:
    failing = failing_hours(wanted, attempts)
    return plan_requests(wanted, running=running, failing=failing, newest=newest, now=now)


def asked(*arguments: object, **named: object) -> list[list[datetime]]:
    return [list(request.hours) for request in plan(*arguments, **named)]  # type: ignore[arg-type]


def test_contiguous_hours_become_one_request() -> None:
    assert [request.run_key for request in plan(todo(0, 1, 3))] == [
        "2026-11-22-10:00..2026-11-22-11:00@7",
        "2026-11-22-13:00..2026-11-22-13:00@7",
    ]


def test_a_requests_name_says_its_hours_and_its_newest_batch() -> None:
    (request,) = plan([*todo(0, batch=9), *todo(1, batch=8)])
    assert request.name == "2026-11-22-10:00..2026-11-22-11:00@9"
    assert hours_and_batch(request.name) == (frozenset(hours(0, 1)), 9)


def test_a_tick_asks_for_24_hours_at_most_oldest_first() -> None:
    assert asked(todo(*range(30))) == [hours(*range(24))]


def test_the_newest_hour_is_asked_for_beside_the_oldest_whatever_waits_before_it() -> None:
    wanted = todo(*range(168))
    newest = TEN + 167 * HOUR
    assert asked(wanted, newest=newest) == [hours(*range(23)), [newest]]
    # Only once: what comes before it is no newest hour.
    assert asked(wanted[:-1], newest=newest) == [hours(*range(24))]
    assert asked(wanted, newest=newest, running=frozenset({newest})) == [hours(*range(24))]
    assert asked(todo(*range(24)), newest=TEN + 23 * HOUR) == [hours(*range(24))]


def test_a_week_is_asked_for_in_less_than_ten_minutes_of_ticks() -> None:
    left, ticks = todo(*range(168)), 0
    while left:
        done = {hour for request in asked(left, newest=TEN + 167 * HOUR) for hour in request}
        left, ticks = [one for one in left if one.hour not in done], ticks + 1
    assert ticks * timedelta(seconds=30) < timedelta(minutes=5)


def test_an_hour_that_failed_ten_times_is_stuck_until_rows_come_for_it() -> None:
    later = NOW + 99 * HOUR
    tried = [attempt(0)] * MOST_ATTEMPTS
    assert asked(todo(0), *tried[1:], now=later) == [hours(0)]
    assert asked(todo(0), *tried, now=later) == []
    assert asked(todo(0, batch=8), *tried, now=later) == [hours(0)]


def test_a_stuck_hour_stays_so_when_its_attempts_are_forgotten() -> None:
    (stuck,) = failing_hours(todo(0), [attempt(0)] * MOST_ATTEMPTS).values()
    assert failing_hours(todo(0), [], [stuck]) == {TEN: stuck}
    assert failing_hours(todo(0, batch=8), [], [stuck]) == {}
    (waiting,) = failing_hours(todo(0), [attempt(0)]).values()
    assert failing_hours(todo(0), [], [waiting]) == {}


def test_hours_of_a_run_in_progress_are_left_to_it() -> None:
    assert asked(todo(0, 1, 2), running=frozenset({TEN + HOUR})) == [hours(0), hours(2)]


def test_late_rows_ask_for_the_hour_at_once_and_under_a_new_key() -> None:
    (first,) = plan(todo(0, batch=7))
    (second,) = plan(todo(0, batch=8), attempt(0, batch=7))
    assert first.run_key != second.run_key


def test_a_failed_hour_is_asked_for_again_after_a_wait_that_doubles_up_to_an_hour() -> None:
    for attempts, wait in ((1, 30), (2, 60), (3, 120), (8, 3600), (9, 3600)):
        failed = [attempt(0)] * attempts
        assert asked(todo(0), *failed, now=NOW + timedelta(seconds=wait - 1)) == []
        assert asked(todo(0), *failed, now=NOW + timedelta(seconds=wait)) == [hours(0)]


def test_each_attempt_has_a_run_key_of_its_own_even_when_older_ones_are_forgotten() -> None:
    ends = [NOW + number * HOUR for number in range(40)]
    keys = {
        # Some attempts are known, as of the 40 that there were.
        plan(todo(0), *(attempt(0, ended=end) for end in ends[max(0, n - 9) : n]), now=NOW + 99 * HOUR)[
            0
        ].run_key
        for n in range(40)
    }
    assert len(keys) == 40


def test_hours_that_failed_together_are_asked_for_in_ever_smaller_company() -> None:
    later = NOW + 2 * HOUR
    wanted = todo(*range(6))
    one = attempt(*range(6))
    assert asked(wanted, one, now=later) == [hours(*range(6))]
    assert asked(wanted, *[one] * 3, now=later) == [hours(0, 1, 2), hours(3, 4, 5)]
    assert asked(wanted, *[one] * 5, now=later) == [hours(number) for number in range(6)]


def test_an_hour_that_waits_does_not_hold_up_its_neighbours() -> None:
    assert asked(todo(0, 1, 2), attempt(1)) == [hours(0), hours(2)]


def test_a_failing_hour_says_how_often_it_was_tried_and_when_it_is_again() -> None:
    first, second = attempt(0, 1, ended=NOW), attempt(0, ended=NOW + HOUR)
    found = failing_hours(todo(0, 1, 2), [first, second])
    assert {hour: (one.attempts, one.next_attempt) for hour, one in found.items()} == {
        TEN: (2, NOW + HOUR + timedelta(minutes=1)),
        TEN + HOUR: (1, NOW + timedelta(seconds=30)),
    }


@given(
    numbers=st.sets(st.integers(0, 80), max_size=60).map(sorted),
    running=st.sets(st.integers(0, 80), max_size=30),
    failed=st.lists(st.sets(st.integers(0, 80), min_size=1, max_size=24), max_size=6),
    newest=st.none() | st.integers(0, 80),
)
def test_every_request_is_contiguous_and_no_hour_is_asked_for_twice(
    numbers: list[int], running: set[int], failed: list[set[int]], newest: int | None
) -> None:
    attempts = [attempt(*group, ended=NOW - 2 * HOUR) for group in failed]
    last = None if newest is None else TEN + newest * HOUR
    requests = asked(todo(*numbers), *attempts, running=frozenset(hours(*running)), newest=last)
    found = [hour for request in requests for hour in request]
    assert len(found) == len(set(found)) <= 24
    assert set(found) <= set(hours(*set(numbers) - running))
    assert all(later - earlier == HOUR for request in requests for earlier, later in pairwise(request))
    # Something to do and nothing asked for would be a standstill.
    assert len(found) == min(24, len(set(numbers) - running))
