"""Generations of days and months: sealed from the newest certificates of their hours, or of their days."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

import psycopg

from antenna_assets.clients.advisory_locks import PERIOD
from antenna_assets.clients.rows import rows_of
from antenna_assets.domain.counted import counted
from antenna_assets.domain.hours import hour_key
from antenna_assets.domain.periods import Period, next_period
from antenna_assets.ledger.errors import LedgerError


class PeriodNotReady(LedgerError):
    """A day or month is not over, or something in it is not published; the message says what to do."""


@dataclass(frozen=True)
class PeriodGeneration:
    """A snapshot of a period.

    Attributes:
        day: the period's first day.
        first_hour, end_hour: of a day, the UTC hours that it touches in any zone; None of a month.
        certificates: numbers, ascending by hour or day; hours without a row have none.
        up_to_certificate: the newest of the chain when it was sealed.
    """

    period: Period
    day: date
    generation: int
    first_hour: datetime | None
    end_hour: datetime | None
    certificates: Sequence[int]
    up_to_certificate: int


def seal_day(connection: psycopg.Connection, day: date) -> PeriodGeneration:
    """The day's newest generation, sealed now if one of its hours has a newer certificate.

    Hours that the ledger does not have and that are before its newest closed one count as empty.

    Raises:
        PeriodNotReady: one of its hours is not over, or not published.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [PERIOD])
        ((first, end),) = connection.execute("SELECT * FROM ledger.day_hours(%s)", [day]).fetchall()
        require_day_ready(connection, day, first, end)
        ((up_to, numbers),) = connection.execute(
            # One statement: the chain's end and the certificates are of one snapshot.
            "SELECT (SELECT number FROM ledger.certificate_head),"
            " coalesce(array_agg(number ORDER BY hour), '{}')"
            " FROM (SELECT DISTINCT ON (hour) hour, number FROM ledger.certificate"
            "  WHERE hour >= %s AND hour < %s ORDER BY hour, number DESC) AS newest",
            [first, end],
        ).fetchall()
        return _seal(connection, PeriodGeneration("day", day, 0, first, end, numbers, up_to))


def seal_month(connection: psycopg.Connection, month: date) -> PeriodGeneration:
    """The month's newest generation, sealed now if one of its days has a newer certificate.

    In the caller's transaction: the heads of its days are locked until its end, so that their rows stay those
    of the certificates.

    Raises:
        PeriodNotReady: one of its days is not published, or is to be published again.
    """
    end = next_period("month", month)
    connection.execute(
        "SELECT FROM ledger.period_head WHERE period = 'day' AND day >= %s AND day < %s"
        " ORDER BY day FOR SHARE",
        [month, end],
    )
    require_month_ready(connection, month)
    connection.execute("SELECT pg_advisory_xact_lock(%s)", [PERIOD])
    ((up_to, numbers),) = connection.execute(
        "SELECT (SELECT number FROM ledger.period_certificate_head),"
        " coalesce(array_agg(number ORDER BY day), '{}')"
        " FROM (SELECT DISTINCT ON (day) day, number FROM ledger.period_certificate"
        "  WHERE period = 'day' AND day >= %s AND day < %s ORDER BY day, number DESC) AS newest",
        [month, end],
    ).fetchall()
    return _seal(connection, PeriodGeneration("month", month, 0, None, None, numbers, up_to))


_OF_PERIOD = (
    "SELECT period, day, generation, first_hour, end_hour, certificates, up_to_certificate"
    " FROM ledger.period_generation WHERE period = %s AND day = %s"
)


def newest_generation(connection: psycopg.Connection, period: Period, day: date) -> PeriodGeneration | None:
    """The period's newest sealed generation; None if there is none."""
    query = f"{_OF_PERIOD} ORDER BY generation DESC LIMIT 1"
    return next(iter(rows_of(connection, PeriodGeneration, query, [period, day])), None)


def read_period_generation(
    connection: psycopg.Connection, period: Period, day: date, generation: int
) -> PeriodGeneration:
    """Read a sealed generation.

    Raises:
        LedgerError: there is none with this number.
    """
    query = f"{_OF_PERIOD} AND generation = %s"
    found = rows_of(connection, PeriodGeneration, query, [period, day, generation])
    if not found:
        raise LedgerError(f"expected generation {generation} of the {period} {day} in the ledger, found none")
    return found[0]


def _seal(connection: psycopg.Connection, wanted: PeriodGeneration) -> PeriodGeneration:
    newest = newest_generation(connection, wanted.period, wanted.day)
    if newest is not None and (newest.first_hour, newest.end_hour, newest.certificates) == (
        wanted.first_hour,
        wanted.end_hour,
        wanted.certificates,
    ):
        return newest
    connection.execute(
        "INSERT INTO ledger.period_generation"
        " (period, day, generation, first_hour, end_hour, certificates, up_to_certificate)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s)",
        [
            wanted.period,
            wanted.day,
            1 if newest is None else newest.generation + 1,
            wanted.first_hour,
            wanted.end_hour,
            list(wanted.certificates),
            wanted.up_to_certificate,
        ],
    )
    sealed = newest_generation(connection, wanted.period, wanted.day)
    if sealed is None:
        raise psycopg.DataError("ledger.period_generation lost a row that was inserted in this transaction")
    return sealed


def require_day_ready(connection: psycopg.Connection, day: date, first: datetime, end: datetime) -> None:
    """Require that the hours from `first` to before `end` are closed and published.

    Raises:
        PeriodNotReady: names the first hour that is not.
    """
    ((closed_to, missing, count),) = connection.execute(
        "SELECT (SELECT max(hour) + interval '1 hour' FROM ledger.hour WHERE closed_at IS NOT NULL),"
        " min(hour), count(hour) FROM ledger.hour_state WHERE hour >= %s AND hour < %s AND NOT published",
        [first, end],
    ).fetchall()
    if closed_to is None or closed_to < end:
        until = (
            "no hour is closed yet" if closed_to is None else f"hours are closed up to {hour_key(closed_to)}"
        )
        raise PeriodNotReady(
            f"expected a day that is over: {day} ends by {hour_key(end)} UTC in all time zones in use, and "
            f"{until}; publish it after that"
        )
    if count:
        raise PeriodNotReady(
            f"expected every hour of {day} to be published; found {counted(count, 'hour')} that "
            f"{'is' if count == 1 else 'are'} not, first {hour_key(missing)}: `antenna status` shows why"
        )


_MISSING_DAYS = """
    WITH first AS (
        SELECT ledger.period_of('day', min(hour), zone) AS day
        FROM ledger.hour, ledger.billing_zone GROUP BY zone
    )
    SELECT min(day), count(*) FROM (
        SELECT generate_series(greatest(%(month)s::date, (SELECT day FROM first))::timestamp,
            %(end)s::date - interval '1 day', '1 day')::date AS day
    ) AS days
    WHERE NOT EXISTS (
        SELECT FROM ledger.period_state AS state
        WHERE state.period = 'day' AND state.day = days.day AND settled)
"""


def require_month_ready(connection: psycopg.Connection, month: date) -> None:
    """Require that the days of a month are published, from the day of the ledger's first hour on.

    Raises:
        PeriodNotReady: names the first day that is not.
    """
    ((missing, count),) = connection.execute(
        _MISSING_DAYS, {"month": month, "end": next_period("month", month)}
    ).fetchall()
    if count:
        raise PeriodNotReady(
            f"expected every day of the month from {month} on to be published and up to date; found "
            f"{counted(count, 'day')} that {'is' if count == 1 else 'are'} not, first {missing}: publish "
            f"{'it' if count == 1 else 'them'} first"
        )
