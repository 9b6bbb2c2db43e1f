"""Keys and windows, on literal instants."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antenna_assets.domain.hours import (
    HOUR,
    NotAnHour,
    closed_before,
    contiguous,
    hour_key,
    hour_of,
    hours_between,
    lake_partition,
    parse_hour,
    range_of_hours,
)

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
MINUTE = timedelta(minutes=1)

instants = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


def test_a_key_names_its_hour() -> None:
    assert parse_hour("2026-11-22-10:00") == TEN
    assert hour_key(TEN) == "2026-11-22-10:00"
    assert lake_partition(TEN) == {"year": 2026, "month": 11, "day": 22, "hour": 10}


@pytest.mark.parametrize(
    "key",
    [
        "2026-11-22-10:30",
        "2026-11-22",
        "2026-11-22-24:00",
        "2026-11-22T10:00",
        " 2026-11-22-10:00",
        "",
        "2026-1-2-03:00",
    ],
)
def test_a_key_that_is_not_canonical_is_refused(key: str) -> None:
    with pytest.raises(NotAnHour, match="such as 2026-11-22-10:00, found"):
        parse_hour(key)


@given(instants)
def test_every_hour_comes_back_from_its_key(instant: datetime) -> None:
    hour = hour_of(instant)
    assert hour <= instant < hour + HOUR
    assert parse_hour(hour_key(hour)) == hour


def test_an_instant_without_a_zone_is_refused() -> None:
    with pytest.raises(NotAnHour, match="with a time zone"):
        hour_of(datetime(2026, 11, 22, 10))  # noqa: DTZ001


def test_hours_between_has_the_first_and_not_the_end() -> None:
    assert hours_between(TEN, TEN + 2 * HOUR) == [TEN, TEN + HOUR]
    assert hours_between(TEN, TEN + MINUTE) == [TEN]
    assert hours_between(TEN, TEN) == []
    assert hours_between(TEN, TEN - HOUR) == []


def test_a_range_of_keys_has_its_first_and_its_last_hour() -> None:
    assert range_of_hours("2026-11-22-10:00", "2026-11-22-12:00") == [TEN, TEN + HOUR, TEN + 2 * HOUR]
    assert range_of_hours("2026-11-22-10:00", "2026-11-22-10:00") == [TEN]
    with pytest.raises(NotAnHour, match="2026-11-22-11:30"):
        range_of_hours("2026-11-22-10:00", "2026-11-22-11:30")
    with pytest.raises(NotAnHour, match="swap the two"):
        range_of_hours("2026-11-22-11:00", "2026-11-22-10:00")


def test_contiguous_hours_run_together_up_to_the_longest_run() -> None:
    hours = [TEN + n * HOUR for n in (0, 1, 2, 3, 5, 6)]
    assert contiguous(hours, 3) == [hours[:3], hours[3:4], hours[4:]]


def test_an_hour_is_closed_by_the_first_instant_after_it() -> None:
    assert closed_before(TEN + HOUR - timedelta(microseconds=1)) == TEN
    assert closed_before(TEN + HOUR) == TEN + HOUR
