"""Requests of the sensor for runs of days and months, and their outcome: the unpublished ones have failed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

import psycopg
from psycopg.rows import class_row

from antenna_assets.domain.periods import Period
from antenna_assets.ledger.failing_hours import back_off


@dataclass(frozen=True)
class PeriodRequest:
    """Periods for one run, ascending and without a gap."""

    period: Period
    days: Sequence[date]

    @property
    def name(self) -> str:
        """Its days as text. Not unique, so the key of a run needs more."""
        return f"{self.period} {self.days[0]}..{self.days[-1]}"


@dataclass(frozen=True)
class OpenPeriodRequest:
    """A request whose outcome is not recorded yet."""

    key: str
    period: Period
    first_day: date
    last_day: date
    publication: int
    asked_at: datetime


def record_period_request(connection: psycopg.Connection, key: str, request: PeriodRequest) -> None:
    """Record a request, with a new key, before Dagster gets it."""
    connection.execute(
        "INSERT INTO ledger.period_request (key, period, first_day, last_day, publication)"
        " SELECT %s, %s, %s, %s, coalesce(max(number), 0) FROM ledger.period_publication",
        [key, request.period, request.days[0], request.days[-1]],
    )


def open_period_requests(connection: psycopg.Connection) -> list[OpenPeriodRequest]:
    """The requests without a recorded outcome, oldest first."""
    with connection.cursor(row_factory=class_row(OpenPeriodRequest)) as cursor:
        return cursor.execute(
            "SELECT key, period, first_day, last_day, publication, asked_at FROM ledger.period_request"
            " ORDER BY asked_at"
        ).fetchall()


def forget_period_request(connection: psycopg.Connection, request: OpenPeriodRequest) -> bool:
    """Delete a request; returns whether it was there, so that of several callers one records the outcome."""
    return connection.execute("DELETE FROM ledger.period_request WHERE key = %s", [request.key]).rowcount > 0


def record_period_end(
    connection: psycopg.Connection,
    request: OpenPeriodRequest,
    *,
    runs: int,
    last_run: str,
    ended: datetime,
    now: datetime,
) -> None:
    """Record that all runs of a request have ended: those of its periods that were not published have failed.

    Args:
        runs: their number; Dagster launches a run again if its worker died.
        ended: the end of the last one, by the clock of its machine.
        now: by PostgreSQL's clock.
    """
    ended = min(max(ended, request.asked_at), now)
    with connection.transaction():
        if not forget_period_request(connection, request):
            return
        failed = connection.execute(
            "SELECT due.day, coalesce(failing.attempts, 0) + %(runs)s FROM ("
            "  SELECT generate_series(%(first)s::timestamp, %(last)s::timestamp,"
            "   ('1 ' || %(period)s)::interval)::date AS day"
            " ) AS due LEFT JOIN ledger.failing_period AS failing"
            "  ON failing.period = %(period)s AND failing.day = due.day"
            " WHERE NOT EXISTS (SELECT FROM ledger.period_publication AS since"
            "  WHERE since.period = %(period)s AND since.day = due.day AND since.number > %(publication)s)"
            " AND NOT EXISTS (SELECT FROM ledger.period_state AS state"
            "  WHERE state.period = %(period)s AND state.day = due.day AND settled)",
            {
                "runs": runs,
                "period": request.period,
                "first": request.first_day,
                "last": request.last_day,
                "publication": request.publication,
            },
        ).fetchall()
        for day, attempts in failed:
            connection.execute(
                "INSERT INTO ledger.failing_period"
                " (period, day, attempts, run_id, ended, next_attempt, publication)"
                " SELECT %s, %s, %s, %s, %s, %s, coalesce(max(number), 0) FROM ledger.period_publication"
                " ON CONFLICT (period, day) DO UPDATE SET attempts = excluded.attempts,"
                "  run_id = excluded.run_id, ended = excluded.ended, next_attempt = excluded.next_attempt,"
                "  publication = excluded.publication",
                [request.period, day, attempts, last_run, ended, ended + back_off(attempts)],
            )
