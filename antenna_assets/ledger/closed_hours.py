"""Closing hours: those that the low watermark has passed, and quiet ones. The rule is in
`domain/closing_rule.py`."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import psycopg

from antenna_assets.domain.closing_rule import (
    ClosedBy,
    ended_before,
    hours_kept_open,
    quiet_hours,
)
from antenna_assets.domain.hours import hour_key, hours_between
from antenna_assets.ledger.errors import HourNotClosed
from antenna_assets.ledger.head import Head


def close_passed(
    connection: psycopg.Connection,
    head: Head,
    watermark: datetime | None,
    *,
    now: datetime,
    first_hour: datetime | None,
    closed_by: ClosedBy,
) -> None:
    """Close the hours that end before watermark and clock, from `first_hour` on also empty ones."""
    if watermark is None:
        return
    end = ended_before(watermark, now)
    connection.execute(
        "UPDATE ledger.hour SET closed_at = clock_timestamp(), closed_by = %s"
        " WHERE closed_at IS NULL AND hour < %s",
        [closed_by, end],
    )
    if first_hour is None:
        return
    # Earlier hours are closed already, except if this is the first batch with a row.
    start = first_hour
    if head.first_hour is not None and head.low_watermark is not None:
        start = max(first_hour, ended_before(head.low_watermark, head.state.looked_at or head.low_watermark))
    connection.execute(
        "INSERT INTO ledger.hour (hour, closed_at, closed_by)"
        " SELECT hour, clock_timestamp(), %s"
        " FROM generate_series(%s::timestamptz, %s::timestamptz - interval '1 hour', interval '1 hour')"
        " AS hour"
        " ON CONFLICT (hour) DO NOTHING",
        [closed_by, start, end],
    )


def quiet_hours_of(
    connection: psycopg.Connection, head: Head, *, now: datetime, lateness: timedelta, quiet: timedelta
) -> list[datetime]:
    """The hours beyond the watermark that are quiet, whether or not they are fully read."""
    found = hours_kept_open(head.first_hour, head.low_watermark, now=now, lateness=lateness)
    if not found:
        return []
    rows = connection.execute(
        "SELECT hour, row_at, closed_at IS NOT NULL FROM ledger.hour WHERE hour >= %s AND hour <= %s",
        [found[0], found[-1]],
    ).fetchall()
    open_hours: dict[datetime, datetime | None] = dict.fromkeys(found)
    for hour, row_at, closed in rows:
        if closed:
            del open_hours[hour]
        else:
            open_hours[hour] = row_at
    return quiet_hours(head.state, open_hours, now=now, lateness=lateness, quiet=quiet)


def close_quiet(connection: psycopg.Connection, hours: Sequence[datetime]) -> None:
    """Close these hours, including those without a row."""
    connection.execute(
        "INSERT INTO ledger.hour AS known (hour, closed_at, closed_by)"
        " SELECT hour, clock_timestamp(), 'quiet' FROM unnest(%s::timestamptz[]) AS hour ORDER BY hour"
        " ON CONFLICT (hour) DO UPDATE SET closed_at = excluded.closed_at, closed_by = excluded.closed_by"
        " WHERE known.closed_at IS NULL",
        [hours],
    )


def first_open_hour(connection: psycopg.Connection, start: datetime, end: datetime) -> datetime:
    """The first hour from `start` on that is not closed, in the ledger or not; `end` if all before it are."""
    closed = connection.execute(
        "SELECT hour FROM ledger.hour WHERE hour >= %s AND hour < %s AND closed_at IS NOT NULL", [start, end]
    ).fetchall()
    known = {hour for (hour,) in closed}
    return next((hour for hour in hours_between(start, end) if hour not in known), end)


def require_closed(connection: psycopg.Connection, hours: Sequence[datetime]) -> None:
    """Require that the hours are closed.

    Raises:
        HourNotClosed: names the first one that is not.
    """
    rows = connection.execute(
        "SELECT hour, closed_at IS NOT NULL FROM ledger.hour WHERE hour = ANY(%s)", [list(hours)]
    ).fetchall()
    closed: dict[datetime, bool] = dict(rows)
    for hour in hours:
        if not closed.get(hour):
            raise HourNotClosed(
                f"hour {hour_key(hour)} is {'still open' if hour in closed else 'not known to the ledger'}: "
                "only closed hours have results; `antenna status` lists them"
            )
