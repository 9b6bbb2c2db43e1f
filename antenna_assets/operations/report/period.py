"""What a report is about: an hour or a day of hours, in UTC."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg

from antenna_assets.domain.hours import HOUR, hour_key, parse_hour
from antenna_assets.errors import AntennaError

DAY = timedelta(days=1)


class ReportError(AntennaError):
    """There is nothing to report on, or the period cannot be read; the message says what to do."""


@dataclass(frozen=True)
class Period:
    """From `begin` to before `end`, full hours in UTC; `name` is how a person writes it."""

    name: str
    begin: datetime
    end: datetime

    @property
    def is_one_hour(self) -> bool:
        """Whether there are windows to look at instead of hours."""
        return self.end - self.begin == HOUR


def one_hour(key: str) -> Period:
    """The hour of a partition key, `YYYY-MM-DD-HH:00`.

    Raises:
        NotAnHour: it is none.
    """
    begin = parse_hour(key)
    return Period(hour_key(begin), begin, begin + HOUR)


def one_day(text: str) -> Period:
    """A day in UTC, `YYYY-MM-DD`.

    Raises:
        ReportError: it is none.
    """
    try:
        begin = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise ReportError(f"expected a day such as 2026-11-22, found {text!r}") from error
    return Period(f"{begin:%Y-%m-%d}", begin, begin + DAY)


def newest_day(connection: psycopg.Connection) -> Period:
    """The day of the newest hour that is published.

    Raises:
        ReportError: none is.
    """
    row = connection.execute(
        "SELECT hour FROM hour_trust WHERE generation IS NOT NULL ORDER BY hour DESC LIMIT 1"
    ).fetchone()
    if row is None:
        raise ReportError(
            "no hour is published yet; Dagster's sensor publishes closed hours, and `antenna status` shows how far it is"
        )
    return one_day(f"{row[0].astimezone(UTC):%Y-%m-%d}")
