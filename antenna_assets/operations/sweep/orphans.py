"""Files under `landing/` that the ledger never named, or names no more: those of attempts that never committed, and
whatever else was put there. What a killed run left under `scratch/` is no other matter.

An attempt's folder is judged as a whole: while anything in it is young, all of it stays.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import chain, groupby
from typing import TYPE_CHECKING

import psycopg

from antenna_assets.domain.lifetimes import SAFE_AGE
from antenna_assets.publishing.lake import SCRATCH
from antenna_assets.storage.files import Found, everything_under, going
from antenna_assets.storage.paths import name_within

if TYPE_CHECKING:
    from antenna_assets.storage.paths import LakePath

LANDING = "landing"
# Paths in one question to the ledger, and removed at a time while its head is locked.
_AT_ONCE = 500


def old_attempts(
    connection: psycopg.Connection, lake: "LakePath", *, now: datetime, clock: datetime
) -> Iterator[list[Found]]:
    """What there is of the attempts in which nothing was changed for `SAFE_AGE`, some attempts at a time.

    Attempts that were written after the ledger's last sign of life are left out: they may be of a ledger of which this one is
    an older copy. They go when a stream has come back to this one.

    Args:
        now: by the clock of the lake's files.
        clock: the same instant by PostgreSQL's.
    """
    before = now - SAFE_AGE
    alive = now - (clock - _last_sign_of_life(connection, clock))
    found: list[Found] = []
    for attempt in chain(_old(lake / LANDING, min(before, alive)), _old(lake / SCRATCH, before)):
        found += attempt
        if len(found) >= _AT_ONCE:
            yield found
            found = []
    yield found


def unnamed(connection: psycopg.Connection, lake: "LakePath", found: Iterable[Found]) -> list[Found]:
    """Those that the ledger does not name, and folders without any that it does.

    Whoever removes them holds the heads' lock from this question on: then no commit comes in between, whatever any
    machine's clock says.
    """
    paths = {one.path: name_within(lake, one.path) for one in found}
    rows = connection.execute(
        "SELECT path FROM ledger.file WHERE path = ANY(%(paths)s)"
        # Forgotten, but within the grace.
        " UNION ALL SELECT path FROM ledger.expired_file WHERE path = ANY(%(paths)s) AND removed_at IS NULL",
        {"paths": [path for path in paths.values() if _can_be_named(path)]},
    )
    named = {path for (path,) in rows}
    return going(found, lambda one: one.is_folder or paths[one.path] not in named)


def _last_sign_of_life(connection: psycopg.Connection, clock: datetime) -> datetime:
    """When a stream or a replay last wrote to the ledger; now if none ever did."""
    row = connection.execute(
        "SELECT greatest((SELECT committed_at FROM ledger.batch ORDER BY batch DESC LIMIT 1), max(heartbeat_at))"
        " FROM ledger.head"
    ).fetchone()
    return min(row[0], clock) if row and row[0] else clock


def _old(folder: "LakePath", before: datetime) -> Iterator[list[Found]]:
    depth = len(folder.parts)
    for _, attempt in groupby(everything_under(folder), key=lambda one: one.path.parts[depth]):
        found = list(attempt)
        if max(one.changed for one in found) < before:
            yield found


def _can_be_named(path: str) -> bool:
    """Whether PostgreSQL's text can hold it: a name of a file may be any bytes."""
    return path.isprintable()
