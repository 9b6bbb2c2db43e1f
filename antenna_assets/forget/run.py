"""`antenna forget-user`: the order in which a user's identity goes, so that dying anywhere leaves totals as they were and a
second run finishes.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pyarrow.parquet as pq

from antenna_assets.crash import commit_point
from antenna_assets.engines.contract import Engine
from antenna_assets.engines.duckdb import EMBEDDED_MEMORY, DuckDBEngine
from antenna_assets.errors import AntennaError, Superseded
from antenna_assets.forget import lake as files
from antenna_assets.forget import tables
from antenna_assets.forget.identity import Identity, let_go, remember
from antenna_assets.lake import SCRATCH, Lake
from antenna_assets.lake_files import lake_path
from antenna_assets.lake_identity import require_not_anothers, require_own_lake
from antenna_assets.ledger import lock_heads
from antenna_assets.litter import remove_tree

if TYPE_CHECKING:
    from rich.table import Table

Say = Callable[[str], None]

ROUNDS = 5
"""Runs that were under way may publish what they had read before: so often it is looked for again."""


class NotForgotten(AntennaError):
    """The user could not be forgotten wholly; the message says what is left and what to do."""


@dataclass(frozen=True)
class Places:
    """Where an id is: rows by column of PostgreSQL, and by file of the lake."""

    columns: dict[str, int]
    files: dict[str, int]

    def __bool__(self) -> bool:
        return bool(self.columns or self.files)


def places(connection: psycopg.Connection, lake: Lake, user: str) -> Places:
    """Everywhere that the id is kept.

    Raises:
        AntennaError: a file cannot be read, or this is not the ledger's lake.
    """
    require_not_anothers(connection, lake.root)
    return Places(tables.rows_with(connection, user), files.files_with(lake, [user]))


def forget(connection: psycopg.Connection, lake: Lake, user: str, *, say: Say) -> Identity:
    """Put a random pseudonym in the place of a user, everywhere. Sums and quotas stay as they are.

    Each hour that the user is in is published again at the generation that it has, with a certificate of its own.

    Raises:
        NotForgotten: something is left; run it again.
        WrongLake: this is not the ledger's lake; nothing was changed.
    """
    require_own_lake(connection, lake.root)
    identity = remember(connection, user)
    affected: set[datetime] = set()
    left = None
    with closing(DuckDBEngine(memory_limit=EMBEDDED_MEMORY)) as engine:
        for _ in range(ROUNDS):
            with _identity_file(lake, identity) as identity_file:
                affected |= _replace(connection, lake, engine, identity, identity_file, say)
            tables.rewrite_what_dagster_was_told(connection, affected, identity)
            files.remove_replaced(connection, lake, list(files.files_with(lake, [user])), identity)
            commit_point("forget.replaced")
            left = places(connection, lake, user)
            if not left:
                break
    if left:
        raise NotForgotten(
            f"the id is still in {_told(left)}: runs or the stream wrote it meanwhile, or a run that was killed left files;"
            " stop them, or wait four hours, and forget the user again"
        )
    let_go(connection, identity, hours=len(affected))
    return identity


@contextmanager
def _identity_file(lake: Lake, identity: Identity) -> Iterator[str]:
    """The identity as a file to join with; gone after the block, and if that was killed, after the next one."""
    root = lake_path(lake.root)
    folder = root / SCRATCH / identity.pseudonym
    if isinstance(folder, Path):
        folder.mkdir(parents=True, exist_ok=True)
    file = folder / "identity.parquet"
    try:
        with file.open("wb") as opened:
            pq.write_table(identity.row, opened)
        yield str(file)
    finally:
        remove_tree(folder, within=root)


def _replace(
    connection: psycopg.Connection,
    lake: Lake,
    engine: Engine,
    identity: Identity,
    identity_file: str,
    say: Say,
) -> set[datetime]:
    """One round: landed and rejected files with users and live sums at once, then hour by hour."""
    swaps: list[files.Swap] = []

    def write_anew(after: int) -> None:
        named = _named_after(connection, after)
        for path in files.rows_with(lake, named, [identity.id]):
            swaps.append(files.write_without(lake, engine, path, identity, identity_file))

    newest = _newest_batch(connection)
    write_anew(0)
    say(f"{len(swaps):,} landed files are written anew")
    with connection.transaction():
        # No batch commits between the last look and the swap.
        lock_heads(connection)
        write_anew(newest)
        for swap in swaps:
            connection.execute(
                "UPDATE ledger.file SET path = %s, size = %s WHERE path = %s", [swap.new, swap.size, swap.old]
            )
        tables.rename(connection, identity)
        commit_point("forget.swapped")
    users = [identity.id, identity.pseudonym]
    hours = tables.hours_with(connection, users) | files.hours_with(lake, users)
    for number, hour in enumerate(sorted(hours), start=1):
        try:
            files.replace_hours(connection, lake, engine, hour, identity_file)
            commit_point("forget.hour_in_lake")
            tables.replace_hours(connection, hour, identity)
        except Superseded as superseded:
            say(f"once more: {superseded}")
        if number % 100 == 0 or number == len(hours):
            say(f"{number:,} of {len(hours):,} hours")
    return hours


def _newest_batch(connection: psycopg.Connection) -> int:
    return connection.execute("SELECT coalesce(max(batch), 0) FROM ledger.batch").fetchall()[0][0]


def _named_after(connection: psycopg.Connection, batch: int) -> list[str]:
    """The files that the ledger names of the batches after this one."""
    rows = connection.execute("SELECT path FROM ledger.file WHERE batch > %s ORDER BY batch, path", [batch])
    return [path for (path,) in rows.fetchall()]


def _told(found: Places) -> str:
    named = [*found.columns, *found.files]
    return ", ".join(named[:5]) + (f" and {len(named) - 5:,} other places" if len(named) > 5 else "")


def places_table(found: Places) -> "Table":
    """Where an id is, to look at: columns, and the lake's folders."""
    from rich.table import Table

    table = Table("place")
    for name in ("files", "rows"):
        table.add_column(name, justify="right")
    for column, rows in found.columns.items():
        table.add_row(column, "", f"{rows:,}")
    for folder in sorted({path.split("/")[0] for path in found.files}):
        rows_of = [rows for path, rows in found.files.items() if path.split("/")[0] == folder]
        table.add_row(f"lake, {folder}", f"{len(rows_of):,}", f"{sum(rows_of):,}")
    return table
