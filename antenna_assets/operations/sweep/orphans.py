"""Orphaned files: files under `landing/` or `scratch/` that no ledger row references.

An attempt's folder is kept or removed as a whole: while anything in it is young, all of it stays.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import chain, groupby
from typing import TYPE_CHECKING

import psycopg

from antenna_assets.domain.lifetimes import GRACE_PERIOD, SAFE_AGE
from antenna_assets.publishing.lake import SCRATCH
from antenna_assets.storage.files import Entry, removable, walk
from antenna_assets.storage.paths import name_within

if TYPE_CHECKING:
    from antenna_assets.storage.paths import LakePath

LANDING = "landing"
# Paths in one query to the ledger, and removed at a time while its head is locked.
_AT_ONCE = 500


def old_attempts(
    connection: psycopg.Connection, lake: "LakePath", *, now: datetime, clock: datetime
) -> Iterator[list[Entry]]:
    """Yield the entries of attempts in which nothing was changed for `SAFE_AGE`, some attempts at a time.

    Attempts written after the ledger's last write are left out: this ledger may be an older copy of the one
    that they belong to. They are removed once a stream runs on this one again.

    Args:
        now: by the clock of the lake's files.
        clock: the same instant by PostgreSQL's clock.
    """
    before = now - SAFE_AGE
    last_write = now - (clock - _last_ledger_write(connection, clock))
    found: list[Entry] = []
    for attempt in chain(_old(lake / LANDING, min(before, last_write)), _old(lake / SCRATCH, before)):
        found += attempt
        if len(found) >= _AT_ONCE:
            yield found
            found = []
    yield found


def unreferenced(
    connection: psycopg.Connection, lake: "LakePath", found: Iterable[Entry], *, clock: datetime
) -> list[Entry]:
    """Return the files that no ledger row references, and the folders that hold no other ones.

    To remove them, hold the heads' lock from this query on, so that no commit comes in between, whatever the
    clocks say.

    Args:
        clock: the present instant by PostgreSQL's clock.
    """
    paths = {one.path: name_within(lake, one.path) for one in found}
    # A file's name may be any bytes, which PostgreSQL's text cannot hold: such a file is in no row.
    rows = connection.execute(
        "SELECT path FROM ledger.file WHERE path = ANY(%(paths)s)"
        # Expired, but within the grace period.
        " UNION ALL SELECT path FROM ledger.expired_file WHERE path = ANY(%(paths)s) AND removed_at IS NULL"
        # Merged into another file, within the grace period: its age is not that of the merge.
        " UNION ALL SELECT path FROM ledger.replaced_file"
        " WHERE path = ANY(%(paths)s) AND merged AND replaced_at > %(since)s",
        {
            "paths": [path for path in paths.values() if path.isprintable()],
            "since": clock - GRACE_PERIOD,
        },
    )
    referenced = {path for (path,) in rows}
    return removable(found, lambda one: one.is_folder or paths[one.path] not in referenced)


def forget_replaced(connection: psycopg.Connection, *, clock: datetime) -> None:
    """Forget the names of files that were merged into others and that sweeps have removed by now."""
    connection.execute(
        "DELETE FROM ledger.replaced_file WHERE merged AND replaced_at <= %s", [clock - 2 * GRACE_PERIOD]
    )


def _last_ledger_write(connection: psycopg.Connection, clock: datetime) -> datetime:
    """Return when a stream or a replay last wrote to the ledger; `clock` if none ever did."""
    row = connection.execute(
        "SELECT greatest((SELECT committed_at FROM ledger.batch ORDER BY batch DESC LIMIT 1),"
        " max(heartbeat_at)) FROM ledger.head"
    ).fetchone()
    return min(row[0], clock) if row and row[0] else clock


def _old(folder: "LakePath", before: datetime) -> Iterator[list[Entry]]:
    depth = len(folder.parts)
    for _, attempt in groupby(walk(folder), key=lambda one: one.path.parts[depth]):
        found = list(attempt)
        if max(one.changed for one in found) < before:
            yield found
