"""Arithmetic on periods: the partition key of a day or month <-> its first day.

A period is named by its first calendar day in a zone. Where it begins on the time line is defined by the SQL
function `ledger.period_start` alone. Nothing here reads a clock.
"""

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Literal, get_args

from antenna_assets.errors import AntennaError

Period = Literal["day", "month"]
PERIODS: tuple[Period, ...] = get_args(Period)

DAY_FORMAT = "%Y-%m-%d"
"""Dagster's format of the partition key of a day, and of a month, which is named by its first day."""


class NotAPeriod(AntennaError):
    """A text that should name a day or a month does not; the message says how one is written."""


def parse_period(period: Period, key: str) -> date:
    """The day, or the first day of the month, that a canonical partition key names.

    Raises:
        NotAPeriod: it is not canonical.
    """
    example = (
        "a day such as 2026-11-22" if period == "day" else "a month by its first day, such as 2026-11-01"
    )
    refusal = NotAPeriod(f"expected {example}, found {key!r}")
    try:
        day = datetime.strptime(key, DAY_FORMAT).date()  # noqa: DTZ007 (a day has no zone)
    except ValueError as error:
        raise refusal from error
    if day.isoformat() != key or (period == "month" and day.day != 1):
        raise refusal
    return day


def next_period(period: Period, day: date) -> date:
    """The first day of the period after this one."""
    return day + timedelta(days=1) if period == "day" else (day + timedelta(days=31)).replace(day=1)


def range_of_periods(period: Period, first: str, last: str) -> list[date]:
    """The periods from the first partition key to the last, both included, ascending.

    Raises:
        NotAPeriod: a key is not canonical, or the range is reversed.
    """
    begin, end = parse_period(period, first), parse_period(period, last)
    if end < begin:
        raise NotAPeriod(
            f"expected a range from its first {period} to its last, found {first} to {last}; swap the two"
        )
    found = [begin]
    while found[-1] < end:
        found.append(next_period(period, found[-1]))
    return found


def contiguous_periods(period: Period, days: Iterable[date], longest: int) -> list[list[date]]:
    """Group ascending periods into runs without a gap, each of at most `longest` of them."""
    groups: list[list[date]] = []
    for day in days:
        if groups and len(groups[-1]) < longest and next_period(period, groups[-1][-1]) == day:
            groups[-1].append(day)
        else:
            groups.append([day])
    return groups
