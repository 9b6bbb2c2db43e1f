"""Requests of the sensors for runs, and their outcome: what was asked for and not published has failed.

`defs/sensor_policy.py` and `defs/period_sensor.py` decide what is asked for again; `defs/requested_runs.py`
observes Dagster's runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import ClassVar, TypeVar

import psycopg
from psycopg import sql

from antenna_assets.clients.rows import columns_of, rows_of
from antenna_assets.domain.hours import hour_key
from antenna_assets.domain.periods import Period
from antenna_assets.ledger.failing import back_off


@dataclass(frozen=True)
class HourRequest:
    """Hours for one run, and the newest batch in them."""

    hours: Sequence[datetime]
    batch: int

    @property
    def name(self) -> str:
        """Hours and batch as text. Not unique, so the key of a run needs more."""
        return f"{hour_key(self.hours[0])}..{hour_key(self.hours[-1])}@{self.batch}"


@dataclass(frozen=True)
class PeriodRequest:
    """Periods for one run, ascending and without a gap."""

    period: Period
    days: Sequence[date]

    @property
    def name(self) -> str:
        """Its days as text. Not unique, so the key of a run needs more."""
        return f"{self.period} {self.days[0]}..{self.days[-1]}"


def record_hour_request(connection: psycopg.Connection, key: str, request: HourRequest) -> None:
    """Record a request for hours, with a new key, before Dagster gets it."""
    connection.execute(
        "INSERT INTO ledger.request (key, first_hour, last_hour, batch, certificate)"
        " SELECT %s, %s, %s, %s, number FROM ledger.certificate_head",
        [key, request.hours[0], request.hours[-1], request.batch],
    )


def record_period_request(connection: psycopg.Connection, key: str, request: PeriodRequest) -> None:
    """Record a request for periods, with a new key, before Dagster gets it."""
    connection.execute(
        "INSERT INTO ledger.period_request (key, period, first_day, last_day, publication)"
        " SELECT %s, %s, %s, %s, coalesce(max(number), 0) FROM ledger.period_publication",
        [key, request.period, request.days[0], request.days[-1]],
    )


@dataclass(frozen=True)
class OpenRequest:
    """A request whose outcome is not recorded yet.

    Attributes:
        TABLE: in the schema `ledger`, with a column for each field.
        UNPUBLISHED: a query of what it asked for and was not published since, and of the failed attempts
            before; by the request's fields.
        FAIL: a statement that records the failure of one of these, `failed`.
    """

    TABLE: ClassVar[str]
    UNPUBLISHED: ClassVar[str]
    FAIL: ClassVar[str]

    key: str
    asked_at: datetime


@dataclass(frozen=True)
class OpenHourRequest(OpenRequest):
    """A request for hours."""

    TABLE = "request"
    UNPUBLISHED = """
        SELECT hour, attempts FROM ledger.hour_to_publish AS asked
        WHERE hour BETWEEN %(first_hour)s AND %(last_hour)s AND NOT EXISTS (
            SELECT FROM ledger.certificate
            WHERE certificate.hour = asked.hour AND certificate.number > %(certificate)s)
    """
    FAIL = """
        INSERT INTO ledger.failing_hour AS known
            (hour, batch, attempts, run_id, ended, next_attempt, certificate)
        SELECT %(failed)s, %(batch)s, %(attempts)s, %(run_id)s, %(ended)s, %(next_attempt)s, number
        FROM ledger.certificate_head
        ON CONFLICT (hour) DO UPDATE SET batch = greatest(known.batch, excluded.batch),
            attempts = excluded.attempts, run_id = excluded.run_id, ended = excluded.ended,
            next_attempt = excluded.next_attempt, certificate = excluded.certificate
    """

    first_hour: datetime
    last_hour: datetime
    batch: int
    certificate: int


@dataclass(frozen=True)
class OpenPeriodRequest(OpenRequest):
    """A request for periods."""

    TABLE = "period_request"
    UNPUBLISHED = """
        SELECT due.day, coalesce(attempts, 0) FROM (
            SELECT generate_series(%(first_day)s::timestamp, %(last_day)s::timestamp,
                ('1 ' || %(period)s)::interval)::date AS day
        ) AS due LEFT JOIN ledger.failing_period AS failing
            ON failing.period = %(period)s AND failing.day = due.day
        WHERE NOT EXISTS (SELECT FROM ledger.period_publication AS since
            WHERE since.period = %(period)s AND since.day = due.day AND since.number > %(publication)s)
        AND NOT EXISTS (SELECT FROM ledger.period_state AS state
            WHERE state.period = %(period)s AND state.day = due.day AND settled)
    """
    FAIL = """
        INSERT INTO ledger.failing_period (period, day, attempts, run_id, ended, next_attempt, publication)
        SELECT %(period)s, %(failed)s, %(attempts)s, %(run_id)s, %(ended)s, %(next_attempt)s,
            coalesce(max(number), 0)
        FROM ledger.period_publication
        ON CONFLICT (period, day) DO UPDATE SET attempts = excluded.attempts, run_id = excluded.run_id,
            ended = excluded.ended, next_attempt = excluded.next_attempt, publication = excluded.publication
    """

    period: Period
    first_day: date
    last_day: date
    publication: int


_Open = TypeVar("_Open", bound=OpenRequest)


def open_requests(connection: psycopg.Connection, kind: type[_Open]) -> list[_Open]:
    """The requests of a kind without a recorded outcome, oldest first."""
    query = sql.SQL("SELECT {} FROM {} ORDER BY asked_at").format(
        columns_of(kind), sql.Identifier("ledger", kind.TABLE)
    )
    return rows_of(connection, kind, query)


def forget_request(connection: psycopg.Connection, request: OpenRequest) -> bool:
    """Delete a request; returns whether it was there, so that of several callers one records the outcome."""
    query = sql.SQL("DELETE FROM {} WHERE key = %s").format(sql.Identifier("ledger", request.TABLE))
    return connection.execute(query, [request.key]).rowcount > 0


def record_end(
    connection: psycopg.Connection,
    request: OpenRequest,
    *,
    runs: int,
    last_run: str,
    ended: datetime,
    now: datetime,
) -> None:
    """Record that all runs of a request have ended: what of it was not published has failed.

    Args:
        runs: their number; Dagster launches a run again if its worker died.
        ended: the end of the last one, by the clock of its machine.
        now: by PostgreSQL's clock.
    """
    ended = min(max(ended, request.asked_at), now)
    with connection.transaction():
        if not forget_request(connection, request):
            return
        for failed, before in connection.execute(request.UNPUBLISHED.encode(), vars(request)).fetchall():
            attempts = before + runs
            failure = {
                "failed": failed,
                "attempts": attempts,
                "run_id": last_run,
                "ended": ended,
                "next_attempt": ended + back_off(attempts),
            }
            connection.execute(request.FAIL.encode(), {**vars(request), **failure})
