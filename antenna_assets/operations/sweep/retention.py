"""Retention: landed and rejected files past the horizon, first their ledger rows and later the files, and
live windows.

An hour's facts in the ledger are kept forever. Orphaned files are in `orphans.py`, the ledger's own size in
`compaction.py`.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from antenna_assets.domain.hours import hour_of
from antenna_assets.domain.lifetimes import GRACE_PERIOD, LIVE_RETENTION, LONGEST_RUN
from antenna_assets.domain.schema import LIVE_TABLES, ServingTable
from antenna_assets.errors import AntennaError
from antenna_assets.ledger.generations import read_generation
from antenna_assets.ledger.head import lock_heads
from antenna_assets.ledger.landing import LandingUnknown, record_landing
from antenna_assets.ledger.user_hours import drop_user_days, ended_user_days
from antenna_assets.storage.files import remove_files, remove_if_empty

if TYPE_CHECKING:
    from antenna_assets.storage.paths import LakePath

# Bounds a transaction and how long its rows are locked. Measured: 400,000 rows of a live table are deleted in
# 0.74 s.
ROWS_AT_ONCE = 20_000


class UserHoursInUse(AntennaError):
    """Days of users' hours could not be dropped while somebody read them."""


@dataclass(frozen=True)
class Amount:
    """A number of files or rows, and their size in bytes."""

    count: int = 0
    bytes: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.count + other.count, self.bytes + other.bytes)


def expire_files(
    connection: psycopg.Connection, *, horizon: timedelta, now: datetime, dry_run: bool = False
) -> dict[str, Amount]:
    """Expire the ledger rows of files of hours and batches past the horizon; returns amounts by kind of file.

    An hour that is not wholly published, by `ledger.hour_state`, keeps its files, however old it is. A batch
    in progress may use a clock that is `LONGEST_RUN` behind, so an hour's files stay until every batch finds
    the hour too old. Each hour is a transaction, so the stream never waits for more than one.
    """
    oldest = now - horizon - LONGEST_RUN
    hours = sorted(hour for (hour,) in connection.execute(_EXPIRING_HOURS, {"before": hour_of(oldest)}))
    if dry_run:
        return {
            "landed": _amount(connection, _FILES_OF_HOURS, hours),
            "rejected": _amount(connection, _OLD_REJECTED, oldest),
        }
    _remember_landings(connection, hours)
    landed = rejected = Amount()
    for hour in hours:
        with connection.transaction():
            lock_heads(connection)
            # The lock of a run that seals: it gets its generation before this, or is refused after.
            connection.execute("SELECT FROM ledger.hour WHERE hour = %s FOR UPDATE", [hour])
            # Rows may have landed meanwhile.
            still = f"{_EXPIRING_HOURS} AND hour.hour = %(hour)s"
            if connection.execute(still.encode(), {"before": hour_of(oldest), "hour": hour}).fetchone():
                landed += _expire(connection, _OF_HOURS, [hour], now)
    some = f"{_OLD_REJECTED} LIMIT {ROWS_AT_ONCE}".encode()
    while paths := [path for path, _ in connection.execute(some, {"of": oldest})]:
        with connection.transaction():
            lock_heads(connection)
            rejected += _expire(connection, "path = ANY(%(of)s)", paths, now)
    return {"landed": landed, "rejected": rejected}


def _remember_landings(connection: psycopg.Connection, hours: Sequence[datetime]) -> None:
    """Record what landed for hours that expire or have expired, if a version that did not record it sealed
    them.

    Afterwards their files and batches may be summed up. `antenna verify` names what is unknown by now.
    """
    unknown = connection.execute(
        "SELECT hour, generation FROM ledger.hour WHERE generation > 0"
        " AND NOT EXISTS (SELECT FROM ledger.generation_landing AS kept"
        "  WHERE kept.hour = hour.hour AND kept.generation = hour.generation)"
        " AND (hour = ANY(%s)"
        "  OR EXISTS (SELECT FROM ledger.expired_file WHERE expired_file.hour = hour.hour))",
        [list(hours)],
    ).fetchall()
    for hour, generation in unknown:
        with suppress(LandingUnknown):
            record_landing(connection, read_generation(connection, hour, generation))


def remove_expired_files(
    connection: psycopg.Connection, lake: "LakePath", *, now: datetime, dry_run: bool = False
) -> Amount:
    """Remove the files whose ledger rows expired longer than `GRACE_PERIOD` ago.

    Raises:
        OSError: a file cannot be removed; the next sweep retries.
    """
    count = size = 0
    after = ""
    while True:
        rows = connection.execute(
            "SELECT path, size FROM ledger.expired_file"
            " WHERE removed_at IS NULL AND expired_at <= %s AND path > %s ORDER BY path LIMIT %s",
            [now - GRACE_PERIOD, after, ROWS_AT_ONCE],
        ).fetchall()
        if not rows:
            return Amount(count, size)
        paths = [path for path, _ in rows]
        after = paths[-1]
        count, size = count + len(rows), size + sum(size for _, size in rows)
        if not dry_run:
            _remove_landed(lake, paths)
            connection.execute(
                "UPDATE ledger.expired_file SET removed_at = %s WHERE path = ANY(%s)", [now, paths]
            )


def drop_user_hours(
    connection: psycopg.Connection, *, keep: timedelta | None, now: datetime, dry_run: bool = False
) -> Amount:
    """Drop the partitions of users' hours that ended longer ago than they are to be kept; None: for ever.

    Raises:
        UserHoursInUse: somebody reads them; nothing was dropped.
    """
    if keep is None:
        return Amount()
    ended = ended_user_days(connection, now - keep)
    if ended and not dry_run:
        try:
            drop_user_days(connection, now - keep)
        except psycopg.errors.LockNotAvailable as error:
            raise UserHoursInUse(
                "a query has read bytes_agg_user_1h for 3 s and longer, so its old days were not dropped: the"
                " next sweep tries again"
            ) from error
    return Amount(len(ended), sum(ended))


def drop_live_windows(
    connection: psycopg.Connection, table: ServingTable, *, now: datetime, dry_run: bool = False
) -> Amount:
    """Delete the windows of a live table that no batch can add to, whole windows at a time.

    Batches skip windows older than `LIVE_RETENTION` by their clock, which may be `LONGEST_RUN` behind.
    """
    before = now - LIVE_RETENTION - LONGEST_RUN
    # Bytes of a row: two numbers of eight bytes, and the key.
    size_of = sql.SQL("16 + octet_length({})").format(sql.Identifier(table.key))
    name = sql.Identifier(table.name)
    if dry_run:
        row = connection.execute(
            sql.SQL("SELECT count(*), coalesce(sum({}), 0)::bigint FROM {} WHERE date < %s").format(
                size_of, name
            ),
            [before],
        ).fetchone()
        return Amount(*row) if row else Amount()
    with connection.transaction():
        lock_heads(connection)
    count = size = 0
    bounded = sql.SQL(
        "WITH bound AS (SELECT date FROM {0} WHERE date < %(before)s ORDER BY date OFFSET %(rows)s LIMIT 1),"
        " deleted AS (DELETE FROM {0} WHERE date < %(before)s"
        "  AND date <= coalesce((SELECT date FROM bound), 'infinity') RETURNING {1} AS size)"
        " SELECT count(*), coalesce(sum(size), 0)::bigint FROM deleted"
    ).format(name, size_of)
    while True:
        row = connection.execute(bounded, {"before": before, "rows": ROWS_AT_ONCE}).fetchone()
        if row is None or not row[0]:
            return Amount(count, size)
        count, size = count + row[0], size + row[1]


def live_tables() -> list[ServingTable]:
    """Return the tables whose windows expire."""
    return list(LIVE_TABLES.values())


_EXPIRING_HOURS = """
    SELECT hour.hour FROM ledger.hour_state AS hour
    WHERE hour.hour < %(before)s AND hour.published
      AND EXISTS (SELECT FROM ledger.file WHERE file.hour = hour.hour)
"""
_OF_HOURS = "kind = 'landed' AND hour = ANY(%(of)s)"
_FILES_OF_HOURS = f"SELECT path, size FROM ledger.file WHERE {_OF_HOURS}"  # noqa: S608
_OLD_REJECTED = """
    SELECT file.path, file.size FROM ledger.file JOIN ledger.batch USING (batch)
    WHERE file.kind = 'rejected' AND batch.clock < %(of)s
"""


def _amount(connection: psycopg.Connection, query: str, value: Any) -> Amount:
    summed = f"SELECT count(*), sum(size) FROM ({query}) AS found"  # noqa: S608
    count, size = connection.execute(summed.encode(), {"of": value}).fetchall()[0]
    return Amount(count, int(size or 0))


def _expire(connection: psycopg.Connection, which: str, values: Sequence[Any], now: datetime) -> Amount:
    """Move rows of `ledger.file` to `ledger.expired_file`, in the caller's transaction."""
    query = f"""
        WITH deleted AS (DELETE FROM ledger.file WHERE {which} RETURNING *),
        moved AS (
            INSERT INTO ledger.expired_file (path, kind, hour, rows, bytes, size, batch, batches, expired_at)
            SELECT path, kind, hour, rows, bytes, size, batch, batches, %(now)s FROM deleted RETURNING size
        )
        SELECT count(*), sum(size) FROM moved
    """  # noqa: S608
    count, size = connection.execute(query.encode(), {"of": list(values), "now": now}).fetchall()[0]
    return Amount(count, int(size or 0))


def _remove_landed(lake: "LakePath", paths: Sequence[str]) -> None:
    """Remove files of attempts, and the folders that are empty then: no attempt uses a folder again."""
    remove_files(lake / path for path in paths)
    # `landing/attempt/hour/file`: inner folders first.
    for depth in (3, 2):
        for folder in sorted({"/".join(path.split("/")[:depth]) for path in paths}):
            remove_if_empty(lake / folder)
