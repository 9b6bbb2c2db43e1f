"""Requests of the sensor for runs, and their outcome: an hour that was not published has failed.

`defs/sensor_policy.py` decides when an hour is asked for again; `defs/sensors.py` observes Dagster's runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg
from psycopg.rows import class_row

from antenna_assets.domain.hours import hour_key
from antenna_assets.ledger.failing_hours import back_off

NEVER_LAUNCHED_AFTER = timedelta(minutes=1)
"""After this, a request without a run in Dagster is dropped: its tick died, or the run was deleted."""


@dataclass(frozen=True)
class Request:
    """Hours for one run, and the newest batch in them."""

    hours: Sequence[datetime]
    batch: int

    @property
    def name(self) -> str:
        """Hours and batch as text. Not unique, so the key of a run needs more."""
        return f"{hour_key(self.hours[0])}..{hour_key(self.hours[-1])}@{self.batch}"


@dataclass(frozen=True)
class OpenRequest:
    """A request whose outcome is not recorded yet."""

    key: str
    first_hour: datetime
    last_hour: datetime
    batch: int
    certificate: int
    asked_at: datetime


def record_request(connection: psycopg.Connection, key: str, request: Request) -> None:
    """Record a request, with a new key, before Dagster gets it."""
    connection.execute(
        "INSERT INTO ledger.request (key, first_hour, last_hour, batch, certificate)"
        " SELECT %s, %s, %s, %s, number FROM ledger.certificate_head",
        [key, request.hours[0], request.hours[-1], request.batch],
    )


def open_requests(connection: psycopg.Connection) -> list[OpenRequest]:
    """The requests without a recorded outcome, oldest first."""
    with connection.cursor(row_factory=class_row(OpenRequest)) as cursor:
        return cursor.execute(
            "SELECT key, first_hour, last_hour, batch, certificate, asked_at FROM ledger.request"
            " ORDER BY asked_at"
        ).fetchall()


def forget_request(connection: psycopg.Connection, request: OpenRequest) -> bool:
    """Delete a request; returns whether it was there, so that of several callers one records the outcome."""
    return connection.execute("DELETE FROM ledger.request WHERE key = %s", [request.key]).rowcount > 0


def record_end(
    connection: psycopg.Connection,
    request: OpenRequest,
    *,
    runs: int,
    last_run: str,
    ended: datetime,
    now: datetime,
) -> None:
    """Record that all runs of a request have ended: those of its hours that were not published have failed.

    Args:
        runs: their number; Dagster launches a run again if its worker died.
        ended: the end of the last one, by the clock of its machine.
        now: by PostgreSQL's clock.
    """
    ended = min(max(ended, request.asked_at), now)
    with connection.transaction():
        if not forget_request(connection, request):
            return
        failed = connection.execute(
            "SELECT hour, attempts + %s FROM ledger.hour_to_publish AS asked WHERE hour BETWEEN %s AND %s"
            " AND NOT EXISTS (SELECT FROM ledger.certificate"
            "  WHERE certificate.hour = asked.hour AND certificate.number > %s)",
            [runs, request.first_hour, request.last_hour, request.certificate],
        ).fetchall()
        for hour, attempts in failed:
            connection.execute(
                "INSERT INTO ledger.failing_hour AS known"
                " (hour, batch, attempts, run_id, ended, next_attempt, certificate)"
                " SELECT %s, %s, %s, %s, %s, %s, number FROM ledger.certificate_head"
                " ON CONFLICT (hour) DO UPDATE SET batch = greatest(known.batch, excluded.batch),"
                "  attempts = excluded.attempts, run_id = excluded.run_id, ended = excluded.ended,"
                "  next_attempt = excluded.next_attempt, certificate = excluded.certificate",
                [hour, request.batch, attempts, last_run, ended, ended + back_off(attempts)],
            )
