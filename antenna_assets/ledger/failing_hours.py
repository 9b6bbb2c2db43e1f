"""Hours whose runs failed: how often, and when each is asked for again."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg
from psycopg.rows import class_row

FIRST_WAIT = timedelta(seconds=30)


LONGEST_WAIT = timedelta(hours=1)


MOST_ATTEMPTS = 10
"""After so many, some four hours, an hour is stuck: nobody asks for it again but a person, or rows that come later."""


@dataclass(frozen=True)
class FailingHour:
    """An hour that was asked for and is still to do: how often, its last run, and when it is asked for again.

    `batch` is the newest one that the attempts were for.
    """

    hour: datetime
    batch: int
    attempts: int
    run_id: str
    ended: datetime
    next_attempt: datetime

    @property
    def stuck(self) -> bool:
        """Whether it is not asked for again, unless rows come."""
        return self.attempts >= MOST_ATTEMPTS


def wait_after(attempts: int) -> timedelta:
    """How long an hour waits after its last attempt: twice as long each time."""
    # Not 2**attempts: after a month of failures that is no number any more.
    return min(FIRST_WAIT * 2 ** min(max(attempts - 1, 0), 16), LONGEST_WAIT)


def forget_published(connection: psycopg.Connection) -> None:
    """Forget the failures of hours that were published since, or of which nothing is left to publish."""
    connection.execute(
        "DELETE FROM ledger.failing_hour AS failing WHERE EXISTS (SELECT FROM ledger.certificate"
        "  WHERE certificate.hour = failing.hour AND certificate.number > failing.certificate)"
        " OR NOT EXISTS (SELECT FROM ledger.hour_to_publish AS asked WHERE asked.hour = failing.hour)"
    )


def read_failing_hours(connection: psycopg.Connection) -> list[FailingHour]:
    """The hours that failed as of the sensor's last tick, ascending."""
    with connection.cursor(row_factory=class_row(FailingHour)) as cursor:
        return cursor.execute(
            "SELECT hour, batch, attempts, run_id, ended, next_attempt FROM ledger.failing_hour ORDER BY hour"
        ).fetchall()
