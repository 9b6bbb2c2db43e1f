"""Failing hours: how often their runs failed, and the back-off until the next attempt."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg
from psycopg.rows import class_row

FIRST_WAIT = timedelta(seconds=30)


LONGEST_WAIT = timedelta(hours=1)


MOST_ATTEMPTS = 10
"""After this many, some four hours, an hour is stuck: only a person or new rows make it run again."""


@dataclass(frozen=True)
class FailingHour:
    """An hour whose runs failed; `batch` is the newest one that they covered."""

    hour: datetime
    batch: int
    attempts: int
    run_id: str
    ended: datetime
    next_attempt: datetime

    @property
    def stuck(self) -> bool:
        """Whether it is not asked for again unless it gets rows."""
        return self.attempts >= MOST_ATTEMPTS


def back_off(attempts: int) -> timedelta:
    """The wait after a number of failed attempts: doubled each time, up to `LONGEST_WAIT`."""
    # Bounded: after a month of failures 2**attempts would overflow.
    return min(FIRST_WAIT * 2 ** min(max(attempts - 1, 0), 16), LONGEST_WAIT)


def forget_published(connection: psycopg.Connection) -> None:
    """Drop the failures of hours that were published since, or have nothing left to publish."""
    connection.execute(
        "DELETE FROM ledger.failing_hour AS failing WHERE EXISTS (SELECT FROM ledger.certificate"
        "  WHERE certificate.hour = failing.hour AND certificate.number > failing.certificate)"
        " OR NOT EXISTS (SELECT FROM ledger.hour_to_publish AS asked WHERE asked.hour = failing.hour)"
    )


def read_failing_hours(connection: psycopg.Connection) -> list[FailingHour]:
    """The failing hours as of the sensor's last tick, ascending."""
    with connection.cursor(row_factory=class_row(FailingHour)) as cursor:
        return cursor.execute(
            "SELECT hour, batch, attempts, run_id, ended, next_attempt FROM ledger.failing_hour ORDER BY hour"
        ).fetchall()
