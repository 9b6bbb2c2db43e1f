"""Failing hours, days and months: how often their runs failed, and the back-off until the next attempt."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

import psycopg

from antenna_assets.clients.rows import rows_of
from antenna_assets.domain.periods import Period

FIRST_WAIT = timedelta(seconds=30)
LONGEST_WAIT = timedelta(hours=1)

MOST_ATTEMPTS = 10
"""After this many, some four hours, it is stuck: only a person, or new rows of an hour, make it run again."""


def back_off(attempts: int) -> timedelta:
    """The wait after a number of failed attempts: doubled each time, up to `LONGEST_WAIT`."""
    # Bounded: after a month of failures 2**attempts would overflow.
    return min(FIRST_WAIT * 2 ** min(max(attempts - 1, 0), 16), LONGEST_WAIT)


@dataclass(frozen=True)
class Failing:
    """What is known of the runs that failed for an hour or a period."""

    attempts: int
    run_id: str
    ended: datetime
    next_attempt: datetime

    @property
    def stuck(self) -> bool:
        """Whether it is not asked for again: only a person, or new rows of an hour, make it run."""
        return self.attempts >= MOST_ATTEMPTS


@dataclass(frozen=True)
class FailingHour(Failing):
    """An hour whose runs failed; `batch` is the newest one that they covered."""

    hour: datetime
    batch: int


@dataclass(frozen=True)
class FailingPeriod(Failing):
    """A period whose runs failed."""

    period: Period
    day: date


def read_failing_hours(connection: psycopg.Connection) -> list[FailingHour]:
    """The failing hours as of the sensor's last tick, ascending."""
    return rows_of(
        connection,
        FailingHour,
        "SELECT hour, batch, attempts, run_id, ended, next_attempt FROM ledger.failing_hour ORDER BY hour",
    )


def read_failing_periods(connection: psycopg.Connection) -> list[FailingPeriod]:
    """The failing periods as of the sensor's last tick, ascending."""
    return rows_of(
        connection,
        FailingPeriod,
        "SELECT period, day, attempts, run_id, ended, next_attempt FROM ledger.failing_period"
        " ORDER BY period, day",
    )


def forget_published_hours(connection: psycopg.Connection) -> None:
    """Drop the failures of hours that were published since, or have nothing left to publish."""
    connection.execute(
        "DELETE FROM ledger.failing_hour AS failing WHERE EXISTS (SELECT FROM ledger.certificate"
        "  WHERE certificate.hour = failing.hour AND certificate.number > failing.certificate)"
        " OR NOT EXISTS (SELECT FROM ledger.hour_to_publish AS asked WHERE asked.hour = failing.hour)"
    )


def forget_published_periods(connection: psycopg.Connection) -> None:
    """Drop the failures of periods that were published since."""
    connection.execute(
        "DELETE FROM ledger.failing_period AS failing WHERE EXISTS ("
        " SELECT FROM ledger.period_publication AS since WHERE since.period = failing.period"
        "  AND since.day = failing.day AND since.number > failing.publication)"
    )
