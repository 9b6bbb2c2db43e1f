"""`antenna forget-user`: the order in which a user's identity goes, so that dying anywhere leaves totals as they were and a
second run finishes.

Nothing slow is done under the ledger's lock: files are searched and written before it is taken.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pyarrow.parquet as pq

from antenna_assets.domain.listing import first_few
from antenna_assets.engines.contract import Engine
from antenna_assets.engines.duckdb import EMBEDDED_MEMORY, DuckDBEngine
from antenna_assets.errors import AntennaError, Superseded
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.head import lock_heads
from antenna_assets.ledger.lake_identity import require_not_anothers, require_own_lake
from antenna_assets.operations.forget import dagster_events as told
from antenna_assets.operations.forget import fence, tables
from antenna_assets.operations.forget import lake as files
from antenna_assets.operations.forget.identity import Identity, let_go, remember, require_identity
from antenna_assets.operations.forget.lake import Files, Swap, Unjudged
from antenna_assets.operations.forget.replace_text import Search
from antenna_assets.publishing.lake import Lake
from antenna_assets.storage.files import everything_under
from antenna_assets.storage.paths import in_parallel, lake_path

if TYPE_CHECKING:
    from rich.table import Table

Say = Callable[[str], None]

ROUNDS = 5
"""Runs that were under way may publish what they had read before, and a stream lands: so often it is looked for again."""

PAUSE_SECONDS = 1.0
"""Before the second round, and twice as long before each later one: a batch under way is committed by then."""

SWAPS_AT_ONCE = 100
"""Landed files that are written before their rows in the ledger change: few enough that no sweep takes them for orphans."""

CATCH_UPS = 50
"""Batches may be committed while files are searched: so often the new ones are searched, too, before the ledger is locked."""


class NotForgotten(AntennaError):
    """The user could not be forgotten wholly; the message says what is left and what to do."""


@dataclass(frozen=True)
class Places:
    """Where an id is: rows by column of PostgreSQL, and by file of the lake.

    Attributes:
        unjudged: rejected messages of which nobody can say whether the id is in them.
    """

    columns: dict[str, int]
    files: dict[str, int]
    unjudged: list[Unjudged] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.columns or self.files)


@dataclass(frozen=True)
class Forgotten:
    """What came of it: the pseudonym, the rejected messages that cannot be judged, and how many of them were dropped."""

    pseudonym: str
    unjudged: list[Unjudged]
    dropped: int


def places(connection: psycopg.Connection, lake: Lake, user: str) -> Places:
    """Everywhere that the id is kept.

    Raises:
        AntennaError: a file cannot be read, or this is not the ledger's lake.
    """
    require_identity(user)
    require_not_anothers(connection, lake.root)
    search = Search(user, "", is_a_name=tables.is_a_name(connection, user))
    return _places(connection, Files(lake, user, search), user, search)


def _places(connection: psycopg.Connection, known: Files, user: str, search: Search) -> Places:
    columns = tables.rows_with(connection, user) | told.rows_with(connection, user)
    if transforms := len(tables.transforms_with(connection, search)):
        columns["ledger.replay.transform"] = transforms
    found = known.everywhere(connection)
    named = [path for path in files.named_after(connection, 0) if files.is_rejected(path)]
    return Places(columns, found, known.unjudged(named))


def forget(
    connection: psycopg.Connection,
    lake: Lake,
    user: str,
    *,
    say: Say,
    drop_unjudged: bool = False,
    spill_folder: Path | None = None,
) -> Forgotten:
    """Put a random pseudonym in the place of a user, everywhere. Sums and quotas stay as they are.

    Each hour that the user is in is published again at the generation that it has, with a certificate of its own.

    Args:
        drop_unjudged: rejected messages that cannot be judged give way to a text that says so; rows and reasons stay.
        spill_folder: where DuckDB spills to, a folder that nobody else uses; None: the system's folder for temporary files.

    Raises:
        ForgettingRunning: somebody else is being forgotten.
        NotForgotten: something is left; run it again.
        WrongLake: this is not the ledger's lake; nothing was changed.
    """
    require_identity(user)
    require_own_lake(connection, lake.root)
    with fence.only_one(connection):
        identity = remember(connection, user)
        search = Search(user, identity.pseudonym, is_a_name=tables.is_a_name(connection, user))
        known = Files(lake, user, search)
        with closing(_engine(spill_folder)) as engine:
            work = _Work(connection, lake, engine, identity, search, known, say, drop_unjudged)
            left = work.rounds()
        if left:
            raise NotForgotten(
                f"the id is still in {_told(left)}: it was landed or published meanwhile, or an attempt that was killed left"
                " files, which go with a sweep four hours later; stop what sends or runs, and forget the user again"
            )
        let_go(connection, identity, hours=len(work.affected), unjudged=len(left.unjudged))
        return Forgotten(identity.pseudonym, left.unjudged, work.dropped())


def _engine(spill_folder: Path | None) -> DuckDBEngine:
    if spill_folder is None:
        return DuckDBEngine(memory_limit=EMBEDDED_MEMORY)
    # Only one forgets at a time, so what is there was left by one that was killed.
    shutil.rmtree(spill_folder, ignore_errors=True)
    spill_folder.mkdir(parents=True, mode=0o700)
    return DuckDBEngine(memory_limit=EMBEDDED_MEMORY, temp_directory=str(spill_folder))


class _Work:
    """One user being forgotten, round by round."""

    def __init__(
        self,
        connection: psycopg.Connection,
        lake: Lake,
        engine: Engine,
        identity: Identity,
        search: Search,
        known: Files,
        say: Say,
        drop: bool,
    ) -> None:
        self._connection = connection
        self._lake = lake
        self._engine = engine
        self._identity = identity
        self._search = search
        self._known = known
        self._say = say
        self._drop = drop
        self.affected: set[datetime] = set()

    def rounds(self) -> Places:
        """Replace and search until nothing is left, or too often; returns what is left."""
        # Hours that a killed run has changed halfway have the pseudonym.
        users = [self._identity.id, self._identity.pseudonym]
        left = Places({}, {})
        for number in range(ROUNDS):
            if number:
                time.sleep(PAUSE_SECONDS * 2 ** (number - 1))
            self._replace_landed()
            self._replace_hours(users)
            told.rewrite(self._connection, self._identity)
            tables.rewrite_transforms(self._connection, self._search)
            with _identity_file(self._lake, self._identity) as (_, before):
                pass
            # From here on, who may have read the user before commits nothing; what was committed is found below.
            fence.raise_it(self._connection, self._lake)
            commit_point("forget.fenced")
            found = self._known.everywhere(self._connection)
            changed = {path: self._known.changed[path] for path in found}
            files.remove_replaced(self._connection, self._lake, changed, before=before)
            commit_point("forget.replaced")
            left = _places(self._connection, self._known, self._identity.id, self._search)
            if not left:
                return left
            users = [self._identity.id]
        return left

    def dropped(self) -> int:
        """The messages that were dropped, by every run for this user."""
        row = self._connection.execute(
            "SELECT coalesce(dropped, 0) FROM ledger.forgotten WHERE pseudonym = %s",
            [self._identity.pseudonym],
        ).fetchone()
        return row[0] if row else 0

    def _replace_landed(self) -> None:
        """Landed and rejected files, and with the last of them users and live sums."""
        searched = count = 0
        for _ in range(CATCH_UPS):
            newest = _newest_batch(self._connection)
            windows = tables.live_windows(self._connection, self._identity.id)
            having = self._having(files.named_after(self._connection, searched))
            for start in range(0, len(having), SWAPS_AT_ONCE):
                self._swap(self._written_anew(having[start : start + SWAPS_AT_ONCE]))
            searched, count = newest, count + len(having)
            with self._connection.transaction():
                lock_heads(self._connection)
                # Nothing is searched under the lock: what was committed meanwhile is searched before the next try.
                caught_up = _newest_batch(self._connection) == searched
                if caught_up:
                    tables.rename(self._connection, self._identity, windows)
                    commit_point("forget.swapped")
            if caught_up:
                self._say(f"{count:,} landed files are written anew")
                return
        raise NotForgotten(
            "the stream commits batches faster than they are searched; stop it, and forget the user again"
        )

    def _having(self, paths: list[str]) -> list[str]:
        """Those of the files that are to be written anew."""
        having = self._known.of(paths)
        if self._drop:
            having = sorted({*having, *(path for path in paths if self._known.unjudged([path]))})
        return having

    def _written_anew(self, paths: list[str]) -> list[Swap]:
        with _identity_file(self._lake, self._identity) as (identity_file, _):
            return [
                files.write_without(
                    self._lake, self._engine, path, self._search, identity_file, drop=self._drop
                )
                for path in paths
            ]

    def _swap(self, swaps: list[Swap]) -> None:
        root = lake_path(self._lake.root)
        with self._connection.transaction():
            # A sweep has it, too, while it removes files: of one that has slept for hours they may be gone.
            lock_heads(self._connection)
            if not all(in_parallel(lambda swap: (root / swap.new).exists(), swaps)):
                raise NotForgotten(
                    "files that were written anew are gone, as after hours of sleep and a sweep; forget the user again"
                )
            # One that expired meanwhile goes as it is.
            self._connection.execute(
                "WITH swapped AS ("
                " UPDATE ledger.file SET path = new.path, size = new.size"
                " FROM unnest(%s::text[], %s::text[], %s::bigint[]) AS new (old, path, size) WHERE file.path = new.old"
                " RETURNING new.old"
                ") INSERT INTO ledger.replaced_file (path) SELECT old FROM swapped",
                [[swap.old for swap in swaps], [swap.new for swap in swaps], [swap.size for swap in swaps]],
            )
            self._connection.execute(
                "UPDATE ledger.forgotten SET dropped = coalesce(dropped, 0) + %s WHERE pseudonym = %s",
                [sum(swap.dropped for swap in swaps), self._identity.pseudonym],
            )

    def _replace_hours(self, users: list[str]) -> None:
        hours = tables.hours_with(self._connection, users) | files.hours_with(self._lake, users)
        self.affected |= hours
        for number, hour in enumerate(sorted(hours), start=1):
            try:
                # Written for each hour: a sweep takes what lies in scratch for hours.
                with _identity_file(self._lake, self._identity) as (identity_file, _):
                    files.replace_hours(self._connection, self._lake, self._engine, hour, identity_file)
                commit_point("forget.hour_in_lake")
                tables.replace_hours(self._connection, hour, self._identity)
            except Superseded as superseded:
                self._say(f"once more: {superseded}")
            if number % 100 == 0 or number == len(hours):
                self._say(f"{number:,} of {len(hours):,} hours")


@contextmanager
def _identity_file(lake: Lake, identity: Identity) -> Iterator[tuple[str, datetime]]:
    """The identity as a file to join with, and when it was written by the clock of the lake's files; gone after the block.

    If that was killed, the next search finds it.
    """
    with lake.scratch() as folder:
        path = lake_path(folder)
        if isinstance(path, Path):
            path.chmod(0o700)
        with (path / "identity.parquet").open("wb") as opened:
            pq.write_table(identity.row, opened)
        (written,) = everything_under(path)
        yield f"{folder}/identity.parquet", written.changed


def _newest_batch(connection: psycopg.Connection) -> int:
    return connection.execute("SELECT coalesce(max(batch), 0) FROM ledger.batch").fetchall()[0][0]


def _told(found: Places) -> str:
    return first_few([*found.columns, *found.files], 5, what="places")


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


def unjudged_table(unjudged: list[Unjudged]) -> "Table":
    """Rejected messages that cannot be judged, to look at: by reason and why, with the first of each."""
    from rich.table import Table

    table = Table(
        "rejected for", "cannot be judged, for it is", title="Rejected messages that may name the user"
    )
    for name in ("messages", "partition", "offset"):
        table.add_column(name if name == "messages" else f"{name} of the first", justify="right")
    by_why: dict[tuple[str, str], list[Unjudged]] = {}
    for one in unjudged:
        by_why.setdefault((one.reason, one.why), []).append(one)
    for (reason, why), of in sorted(by_why.items()):
        first = min(of, key=lambda one: (one.partition, one.offset))
        table.add_row(reason, why, f"{len(of):,}", str(first.partition), str(first.offset))
    return table
