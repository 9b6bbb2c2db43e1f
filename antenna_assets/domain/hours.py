"""Arithmetic on hours: partition key <-> UTC window <-> lake partition.

An hour is named by its first instant, a timezone-aware `datetime` in UTC. Nothing here reads a clock.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from antenna_assets.errors import AntennaError

HOUR = timedelta(hours=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
KEY_FORMAT = "%Y-%m-%d-%H:%M"
"""Dagster's format of an hourly partition key, as `2026-11-22-10:00`."""


class NotAnHour(AntennaError):
    """A text that should name an hour does not; the message says how one is written."""


def hour_of(instant: datetime) -> datetime:
    """The hour that contains an aware instant."""
    if instant.tzinfo is None:
        raise NotAnHour(f"expected an instant with a time zone, found {instant.isoformat()}")
    return instant.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def hour_key(hour: datetime) -> str:
    """The partition key of an hour."""
    return hour.astimezone(UTC).strftime(KEY_FORMAT)


def parse_hour(key: str) -> datetime:
    """The hour that a canonical partition key names.

    `...-03:30` is an error here. Dagster accepts it for an hourly definition and takes it for 04:00.

    Raises:
        NotAnHour: it is not canonical.
    """
    refusal = NotAnHour(f"expected an hour in UTC such as 2026-11-22-10:00, found {key!r}")
    try:
        hour = datetime.strptime(key, KEY_FORMAT).replace(tzinfo=UTC)
    except ValueError as error:
        raise refusal from error
    if hour_key(hour) != key or hour.minute:
        raise refusal
    return hour


def lake_partition(hour: datetime) -> dict[str, int]:
    """The values of the lake's partition columns."""
    hour = hour.astimezone(UTC)
    return {"year": hour.year, "month": hour.month, "day": hour.day, "hour": hour.hour}


def hours_between(first: datetime, end: datetime) -> list[datetime]:
    """The hours from `first` on that begin before `end`."""
    count = max(0, -((first - end) // HOUR))
    return [first + number * HOUR for number in range(count)]


def range_of_hours(first: str, last: str) -> list[datetime]:
    """The hours from the first partition key to the last, both included, ascending.

    Raises:
        NotAnHour: a key is not canonical, or the range is reversed.
    """
    begin, end = parse_hour(first), parse_hour(last)
    if end < begin:
        raise NotAnHour(
            f"expected a range from its first hour to its last, found {first} to {last}; swap the two"
        )
    return [*hours_between(begin, end), end]


def contiguous(hours: Iterable[datetime], longest: int) -> list[list[datetime]]:
    """Group ascending hours into runs without a gap, each of at most `longest` hours."""
    groups: list[list[datetime]] = []
    for hour in hours:
        if groups and len(groups[-1]) < longest and hour - groups[-1][-1] == HOUR:
            groups[-1].append(hour)
        else:
            groups.append([hour])
    return groups


def closed_before(watermark: datetime) -> datetime:
    """Hours that begin before this instant have ended by the watermark: `closed_before(12:34) == 12:00`."""
    return hour_of(watermark)
