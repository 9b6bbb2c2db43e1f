"""The period of a report: an hour or a day, in UTC."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg

from antenna_assets.domain.hours import HOUR, hour_key, parse_hour
from antenna_assets.errors import AntennaError

DAY = timedelta(days=1)


class ReportError(AntennaError):
    """The period is empty or cannot be read; the message says what to do."""


@dataclass(frozen=True)
class Period:
    """Full hours in UTC from `begin` until before `end`; `name` is its text form."""

    name: str
    begin: datetime
    end: datetime

    @property
    def is_one_hour(self) -> bool:
        """Whether the period is one hour, whose live windows are shown instead of hours."""
        return self.end - self.begin == HOUR


def one_hour(key: str) -> Period:
    """Return the hour of a partition key, `YYYY-MM-DD-HH:00`.

    Raises:
        NotAnHour: the key is not one.
    """
    begin = parse_hour(key)
    return Period(hour_key(begin), begin, begin + HOUR)


def one_day(text: str) -> Period:
    """Return a day in UTC, `YYYY-MM-DD`.

    Raises:
        ReportError: the text is not a day.
    """
    try:
        begin = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise ReportError(f"expected a day such as 2026-11-22, found {text!r}") from error
    return Period(f"{begin:%Y-%m-%d}", begin, begin + DAY)


def newest_day(connection: psycopg.Connection) -> Period:
    """Return the day of the newest published hour.

    Raises:
        ReportError: no hour is published.
    """
    row = connection.execute(
        "SELECT hour FROM hour_trust WHERE generation IS NOT NULL ORDER BY hour DESC LIMIT 1"
    ).fetchone()
    if row is None:
        raise ReportError(
            "no hour is published yet; Dagster's sensor publishes closed hours, and `antenna status` shows"
            " how far the stream is"
        )
    return one_day(f"{row[0].astimezone(UTC):%Y-%m-%d}")
