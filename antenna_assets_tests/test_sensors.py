"""What the sensor asks for: consecutive situations, literal requests."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from antenna_assets.ledger import HourToPublish
from antenna_assets.sensors import Request, plan_requests

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
NOW = TEN + timedelta(days=1)


def todo(*numbers: int, batch: int = 7) -> list[HourToPublish]:
    return [HourToPublish(TEN + number * HOUR, batch, 0) for number in numbers]


def plan(
    hours: list[HourToPublish],
    *,
    running: frozenset[datetime] = frozenset(),
    ended: dict[str, list[datetime]] | None = None,
    now: datetime = NOW,
) -> tuple[list[Request], list[str]]:
    return plan_requests(hours, running=running, ended=ended or {}, now=now)


def test_contiguous_hours_become_one_request() -> None:
    requests, waiting = plan(todo(0, 1, 3))
    assert [request.run_key for request in requests] == [
        "2026-11-22-10:00..2026-11-22-11:00@7#0",
        "2026-11-22-13:00..2026-11-22-13:00@7#0",
    ]
    assert waiting == []


def test_a_tick_asks_for_24_hours_at_most_oldest_first() -> None:
    requests, _ = plan(todo(*range(30)))
    assert [request.hours for request in requests] == [[TEN + number * HOUR for number in range(24)]]


def test_hours_of_a_run_in_progress_are_left_to_it() -> None:
    requests, _ = plan(todo(0, 1, 2), running=frozenset({TEN + HOUR}))
    assert [request.hours for request in requests] == [[TEN], [TEN + 2 * HOUR]]


def test_late_rows_ask_for_the_hour_under_a_new_key() -> None:
    (first,), _ = plan(todo(0, batch=7))
    (second,), _ = plan(todo(0, batch=8))
    assert first.run_key != second.run_key


def test_a_failed_run_is_asked_for_again_after_a_wait_that_doubles() -> None:
    (first,), _ = plan(todo(0))
    for attempts, wait in ((1, 30), (2, 60), (3, 120), (20, 3600)):
        ended = {first.name: [NOW] * attempts}
        assert plan(todo(0), ended=ended, now=NOW + timedelta(seconds=wait - 1)) == ([], [first.name])
        (again,), waiting = plan(todo(0), ended=ended, now=NOW + timedelta(seconds=wait))
        assert (again.run_key, waiting) == (f"{first.name}#{attempts}", [])


def test_hours_that_wait_do_not_hide_those_behind_them() -> None:
    (first,), _ = plan(todo(0))
    requests, waiting = plan(todo(0, 2), ended={first.name: [NOW]})
    assert ([request.hours for request in requests], waiting) == ([[TEN + 2 * HOUR]], [first.name])


@given(
    numbers=st.sets(st.integers(0, 80), max_size=60).map(sorted),
    running=st.sets(st.integers(0, 80), max_size=30),
)
def test_every_request_is_contiguous_and_no_hour_is_asked_for_twice(
    numbers: list[int], running: set[int]
) -> None:
    requests, _ = plan(todo(*numbers), running=frozenset(TEN + number * HOUR for number in running))
    asked = [hour for request in requests for hour in request.hours]
    assert len(asked) == len(set(asked)) <= 24
    assert set(asked) <= {TEN + number * HOUR for number in set(numbers) - running}
    assert all(
        later - earlier == HOUR
        for request in requests
        for earlier, later in zip(request.hours, request.hours[1:], strict=False)
    )
    # Something to do and nothing asked for would be a standstill.
    assert bool(asked) == bool(set(numbers) - running)
