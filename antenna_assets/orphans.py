"""Files under `landing/` that the ledger never named, or names no more: those of attempts that never committed, and
whatever else was put there. What a killed run left under `scratch/` is no other matter.

An attempt's folder is judged as a whole: while anything in it is young, all of it stays.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import chain, groupby
from typing import TYPE_CHECKING

import psycopg

from antenna_assets.lake import SCRATCH
from antenna_assets.lake_files import name_within
from antenna_assets.lifetimes import SAFE_AGE
from antenna_assets.litter import Found, everything_under, going

if TYPE_CHECKING:
    from antenna_assets.lake_files import LakePath

LANDING = "landing"
# Paths in one question to the ledger.
_AT_ONCE = 5_000


def landing_orphans(
    connection: psycopg.Connection, lake: "LakePath", *, now: datetime
) -> Iterator[list[Found]]:
    """What goes of the attempts of which nothing was changed for `SAFE_AGE`, some attempts at a time.

    Take the heads' lock after `now` and before this: an attempt that old then commits nothing any more.
    """
    found: list[Found] = []
    before = now - SAFE_AGE
    for attempt in chain(_old_attempts(lake / LANDING, before), _old_attempts(lake / SCRATCH, before)):
        found += attempt
        if len(found) >= _AT_ONCE:
            yield _unnamed(connection, lake, found)
            found = []
    yield _unnamed(connection, lake, found)


def _old_attempts(folder: "LakePath", before: datetime) -> Iterator[list[Found]]:
    depth = len(folder.parts)
    for _, attempt in groupby(everything_under(folder), key=lambda one: one.path.parts[depth]):
        found = list(attempt)
        if max(one.changed for one in found) < before:
            yield found


def _unnamed(connection: psycopg.Connection, lake: "LakePath", found: Iterable[Found]) -> list[Found]:
    paths = {one.path: name_within(lake, one.path) for one in found}
    rows = connection.execute(
        "SELECT path FROM ledger.file WHERE path = ANY(%(paths)s)"
        # Forgotten, but within the grace.
        " UNION ALL SELECT path FROM ledger.expired_file WHERE path = ANY(%(paths)s) AND removed_at IS NULL",
        {"paths": [path for path in paths.values() if _can_be_named(path)]},
    )
    named = {path for (path,) in rows}
    return going(found, lambda one: one.is_folder or paths[one.path] not in named)


def _can_be_named(path: str) -> bool:
    """Whether PostgreSQL's text can hold it: a name of a file may be any bytes."""
    return path.isprintable()
