"""Requests and the hours whose runs failed: what is known of them lives in the ledger until the hours are published.

When an hour is asked for again is decided in `defs/sensor_policy.py`; Dagster's runs are looked at in `defs/sensors.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg
from psycopg.rows import class_row

from antenna_assets.domain.hours import hour_key
from antenna_assets.ledger.failing_hours import wait_after

NEVER_LAUNCHED_AFTER = timedelta(minutes=1)
"""A request that Dagster has no run for by then is forgotten: its tick died, or the run was deleted."""


@dataclass(frozen=True)
class Request:
    """Hours to run together, and the newest batch in them."""

    hours: Sequence[datetime]
    batch: int

    @property
    def name(self) -> str:
        """What it is for. Another request may have the same name: the key of a run needs more than that."""
        return f"{hour_key(self.hours[0])}..{hour_key(self.hours[-1])}@{self.batch}"


@dataclass(frozen=True)
class OpenRequest:
    """A request that the sensor made and whose runs have not all ended, as far as it knows."""

    key: str
    first_hour: datetime
    last_hour: datetime
    batch: int
    certificate: int
    asked_at: datetime


def record_request(connection: psycopg.Connection, key: str, request: Request) -> None:
    """Note a request before Dagster is told. The key must be a new one."""
    connection.execute(
        "INSERT INTO ledger.request (key, first_hour, last_hour, batch, certificate)"
        " SELECT %s, %s, %s, %s, number FROM ledger.certificate_head",
        [key, request.hours[0], request.hours[-1], request.batch],
    )


def open_requests(connection: psycopg.Connection) -> list[OpenRequest]:
    """The requests of which it is not known yet how they ended, oldest first."""
    with connection.cursor(row_factory=class_row(OpenRequest)) as cursor:
        return cursor.execute(
            "SELECT key, first_hour, last_hour, batch, certificate, asked_at FROM ledger.request ORDER BY asked_at"
        ).fetchall()


def forget_request(connection: psycopg.Connection, request: OpenRequest) -> bool:
    """Whether the request was there to be forgotten: what became of it is noted once, whoever looks."""
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
    """Note that all runs of a request have ended: its hours that were not published meanwhile have failed.

    Args:
        runs: how many there were; Dagster by itself launches a run again whose worker died.
        ended: when the last of them did, by the clock of the machine that it ran on.
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
                [hour, request.batch, attempts, last_run, ended, ended + wait_after(attempts)],
            )
