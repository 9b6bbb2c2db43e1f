"""Compare the answers with the tables, the ledger and the rejected messages.

Expected values come from `answers` alone. What is still to be read or published is named by `pending`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from antenna_assets.domain.counted import counted
from antenna_assets.domain.differences import differences as differing
from antenna_assets.simulator.answers import Answers
from antenna_assets.simulator.pending import (
    HOURLY,
    Difference,
    instant,
    outdated,
    spans,
    unpublished,
    unpublished_hours,
    unread,
)

if TYPE_CHECKING:
    from psycopg import Connection
    from rich.table import Table

Rows = dict[tuple[str, str], tuple[Any, ...]]

_COLUMNS = {
    "bytes_agg_antenna": ("date", "antenna_id", "sum_antenna_bytes"),
    "bytes_agg_user": ("date", "id", "sum_user_bytes"),
    "bytes_agg_app": ("date", "app", "sum_app_bytes"),
    "bytes_agg_antenna_1h": ("date", "antenna_id", "sum_antenna_bytes"),
    "bytes_agg_user_1h": ("date", "id", "email", "sum_user_bytes"),
    "bytes_agg_app_1h": ("date", "app", "sum_app_bytes"),
    "users_over_quota_1h": ("date", "id", "email", "quota", "sum_user_bytes"),
}
"""Every column of every table; the first two are its key."""


def differences(
    answers: Answers,
    postgres_url: str,
    *,
    rejected_in: Callable[[dict[str, Any]], dict[str, int]] | None = None,
    live_since: datetime | None = None,
    live: Mapping[str, timedelta] | None = None,
) -> list[Difference]:
    """Return everything in the answers' hours that is not exactly as expected, causes before consequences.

    Not compared are live tables that the stream leaves out, or left out during an hour, and users of hours
    that were dropped for their age (`ANTENNA_KEEP_USER_HOURS`).

    Args:
        rejected_in: counts by reason what was rejected of the answers' `sent`, as `rejected.counts_by_reason`
            returns it; None: rejected messages are not compared.
        live_since: live windows before this instant are not compared: the retention may have removed them.
        live: the length of the windows of each live table that the stream keeps; None: those of the answers.

    Raises:
        DatabaseError: the database cannot be reached, or lacks migrations.
    """
    from psycopg import IsolationLevel

    from antenna_assets.clients.migrations import require_migrated
    from antenna_assets.clients.postgres import connect
    from antenna_assets.ledger.live_tables import live_table_kept_from
    from antenna_assets.ledger.user_hours import hours_without_users

    with connect(postgres_url) as connection:
        require_migrated(connection)
        # One snapshot, or what is published in between would look like a contradiction.
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        connection.autocommit = False
        found = [*unread(answers, connection)]
        missing = unpublished(answers, connection)
        found += unpublished_hours(missing)
        found += outdated(answers, connection)
        hours = [instant(row["hour"]) for row in answers.hours()]
        tables = answers.tables()
        dropped = hours_without_users(connection, hours)
        for table, columns in _COLUMNS.items():
            wanted = set(hours)
            if table in HOURLY:
                wanted -= missing.get(table, set())
                if table == "bytes_agg_user_1h":
                    wanted -= dropped
            else:
                kept_from = live_table_kept_from(connection, table)
                if kept_from is None:
                    continue
                since = max(kept_from, live_since or kept_from)
                wanted = {hour for hour in hours if hour >= since}
            expected = _keyed(
                (row for row in tables[table] if _hour(instant(row["date"])) in wanted), columns
            )
            stored = _stored(connection, table, wanted)
            if table not in HOURLY and live is not None:
                window = max(live.get(table, answers.window), answers.window)
                expected, stored = _in_windows(expected, window), _in_windows(stored, window)
            found += _row_differences(table, expected, stored)
    if rejected_in is not None and answers.sent is not None:
        found += _rejected_differences(answers.rejected, rejected_in(answers.sent))
    return found


def report(found: list[Difference], limit: int = 20) -> "Table":
    """Return the first differences as a table for a terminal, and how many more there are."""
    from antenna_assets.domain.fitting_table import FittingTable
    from antenna_assets.domain.listing import and_more
    from antenna_assets.domain.safe_text import safe_cell

    title = counted(len(found), "difference") if found else "No difference"
    table = FittingTable("table", "key", "expected", "found", title=title)
    table.caption = and_more(len(found), limit) or None
    for difference in found[:limit]:
        table.add_row(*(safe_cell(text) for text in vars(difference).values()))
    return table


def _stored(connection: "Connection", table: str, hours: Iterable[datetime]) -> Rows:
    from psycopg import sql

    columns = _COLUMNS[table]
    query = sql.SQL("SELECT {} FROM {} WHERE date >= %s AND date < %s").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier("public", table)
    )
    rows: Rows = {}
    for first, end in spans(sorted(hours)):
        for date, key, *values in connection.execute(query, [first, end]):
            rows[_text(date), key] = tuple(values)
    return rows


def _in_windows(rows: Rows, window: timedelta) -> Rows:
    """The sums of live windows in longer ones."""
    sums: Rows = {}
    for (date, key), (bytes_,) in rows.items():
        start = instant(date)
        start -= (start - _hour(start)) % window
        of = (_text(start), key)
        sums[of] = (sums.get(of, (0,))[0] + bytes_,)
    return sums


def _row_differences(table: str, expected: Rows, found: Rows) -> Iterator[Difference]:
    columns = _COLUMNS[table]
    for key, left, right in differing(expected, found):
        yield Difference(table, " ".join(key), _values(columns, left), _values(columns, right))


def _rejected_differences(expected: dict[str, int], found: dict[str, int]) -> Iterator[Difference]:
    for reason, left, right in differing(expected, found, absent=0):
        yield Difference("rejected", reason, counted(left, "message"), counted(right, "message"))


def _keyed(rows: Iterable[dict[str, Any]], columns: tuple[str, ...]) -> Rows:
    """Return rows by date and key; the values are those of the other columns."""
    date, key, *others = columns
    return {(row[date], row[key]): tuple(row[name] for name in others) for row in rows}


def _values(columns: tuple[str, ...], values: tuple[Any, ...] | None) -> str:
    if values is None:
        return "no row"
    return ", ".join(f"{name}={value}" for name, value in zip(columns[2:], values, strict=True))


def _text(date: datetime) -> str:
    return date.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _hour(instant: datetime) -> datetime:
    return instant.replace(minute=0, second=0, microsecond=0)
