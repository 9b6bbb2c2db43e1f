"""`antenna forget-user`: the order of the work. Interrupted at any point, totals are unchanged and a second
run finishes.

Nothing slow is done under the ledger's lock: files are searched and written before it is taken, except a few
that land meanwhile, which are searched under it.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psycopg
import pyarrow.parquet as pq

from antenna_assets.domain.counted import counted
from antenna_assets.engines.contract import Engine
from antenna_assets.engines.duckdb import EMBEDDED_MEMORY, DuckDBEngine
from antenna_assets.errors import AntennaError, Superseded
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.head import lock_heads
from antenna_assets.ledger.lake_identity import require_own_lake
from antenna_assets.ledger.old_previews import require_cleaned
from antenna_assets.operations.forget import fence, lake_rewrite, periods, tables
from antenna_assets.operations.forget.identity import Identity, erase, record, require_identity
from antenna_assets.operations.forget.lake_rewrite import Swap
from antenna_assets.operations.forget.lake_search import LakeSearch, Unjudged, files_after, hours_with
from antenna_assets.operations.forget.places import Places, find
from antenna_assets.operations.forget.replace_text import Search
from antenna_assets.publishing.lake import Lake
from antenna_assets.storage.files import walk
from antenna_assets.storage.paths import in_parallel, lake_path

ROUNDS = 5
"""How often everything is searched: runs may publish what they had read before, and the stream lands."""

PAUSE_SECONDS = 1.0
"""The pause before the second round, doubled before each later one: a batch in progress is committed by
then."""

SWAPS_AT_ONCE = 100
"""Landed files rewritten before their ledger rows change: few enough that no sweep takes them for orphans."""

CATCH_UPS = 50
"""How often the batches committed during a search are searched, too."""

FILES_UNDER_LOCK = 20
MESSAGES_UNDER_LOCK = 5_000
BYTES_UNDER_LOCK = 1_000_000
"""What is read, but not written, while the ledger is locked: files that landed during the search before, and
rejected messages and their bytes in them, which take longer to judge. There are no others then, however often
the stream commits."""


class NotForgotten(AntennaError):
    """The user could not be forgotten completely; the message says what is left and what to do."""


@dataclass(frozen=True)
class Forgotten:
    """The result: the pseudonym, the rejected messages that cannot be judged, and how many messages were
    dropped."""

    pseudonym: str
    unjudged: list[Unjudged]
    dropped: int


def forget(
    connection: psycopg.Connection,
    lake: Lake,
    user: str,
    *,
    say: fence.Say,
    drop_unjudged: bool = False,
    spill_folder: Path | None = None,
) -> Forgotten:
    """Replace a user by a random pseudonym everywhere. Sums and quotas stay as they are.

    Each hour with the user is published again at its present generation, with a new certificate.

    Args:
        drop_unjudged: replace rejected messages that cannot be judged by a text that says so; rows and
            reasons stay.
        spill_folder: DuckDB's spill folder, used by nothing else; None: the system's folder for temporary
            files.

    Raises:
        ForgettingRunning: another user is being forgotten.
        NotForgotten: something is left; run it again.
        OldPreviewsLeft: Dagster's events of older versions are not cleaned. Nothing was changed, unless an
            older version published meanwhile.
        WrongLake: this is not the ledger's lake; nothing was changed.
    """
    require_identity(user)
    require_cleaned(connection)
    require_own_lake(connection, lake.root)
    with fence.only_one(connection):
        identity = record(connection, user)
        search = Search(user, identity.pseudonym, is_a_name=tables.is_a_name(connection, user))
        lake_search = LakeSearch(lake, user, search)
        with closing(_engine(spill_folder)) as engine:
            work = _Work(connection, lake, engine, identity, search, lake_search, say, drop_unjudged)
            left = work.rounds()
        if left:
            raise NotForgotten(
                f"the id is still in {left}: it was landed or published meanwhile, or a killed attempt left"
                " files, which a sweep removes after four hours; stop the senders and runs, and forget the"
                " user again"
            )
        erase(connection, identity, hours=len(work.affected), unjudged=len(left.unjudged))
        return Forgotten(identity.pseudonym, left.unjudged, work.dropped())


def _engine(spill_folder: Path | None) -> DuckDBEngine:
    if spill_folder is None:
        return DuckDBEngine(memory_limit=EMBEDDED_MEMORY)
    # Only one user is forgotten at a time, so what is there was left by a killed run.
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
        lake_search: LakeSearch,
        say: fence.Say,
        drop: bool,
    ) -> None:
        self._connection = connection
        self._lake = lake
        self._engine = engine
        self._identity = identity
        self._search = search
        self._lake_search = lake_search
        self._say = say
        self._drop = drop
        self.affected: set[datetime] = set()

    def rounds(self) -> Places:
        """Replace and search until nothing is left, at most `ROUNDS` times; returns what is left."""
        # Hours that a killed run has half changed have the pseudonym.
        users = [self._identity.id, self._identity.pseudonym]
        left = Places({}, {})
        for number in range(ROUNDS):
            if number:
                time.sleep(PAUSE_SECONDS * 2 ** (number - 1))
            self._replace_landed()
            self._replace_hours(users)
            tables.rewrite_transforms(self._connection, self._search)
            # Not under the ledger's lock: it waits as long as a receiver takes to answer.
            tables.remove_notices(self._connection, self._identity.id)
            with _identity_file(self._lake, self._identity) as (_, before):
                pass
            # From here on, no session that may have read the user commits; what is committed by now is found
            # below.
            fence.raise_fence(self._connection, self._lake, self._say)
            commit_point("forget.fenced")
            found = self._lake_search.everywhere(self._connection)
            changed = {path: self._lake_search.changed[path] for path in found}
            lake_rewrite.remove_replaced(self._connection, self._lake, changed, before=before)
            commit_point("forget.replaced")
            left = find(self._connection, self._lake_search, self._identity.id, self._search)
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
        """Replace landed and rejected files and, with the last of them, users and live sums."""
        searched, count = 0, 0
        for _ in range(CATCH_UPS):
            newest = _newest_batch(self._connection)
            windows = tables.live_windows(self._connection, self._identity.id)
            having = self._files_to_rewrite(files_after(self._connection, searched))
            count += len(having)
            swaps = [
                self._swap(self._rewrite(having[start : start + SWAPS_AT_ONCE]))
                for start in range(0, len(having), SWAPS_AT_ONCE)
            ]
            # A file that is no longer named may have been merged into another, of any batch. Files without
            # the user are merged into one without it.
            searched = newest if all(swaps) else 0
            with self._connection.transaction():
                lock_heads(self._connection)
                caught_up = _is_little(self._connection, searched) and not self._files_to_rewrite(
                    files_after(self._connection, searched)
                )
                if caught_up:
                    tables.rename(self._connection, self._identity, windows)
                    commit_point("forget.swapped")
            if caught_up:
                self._say(f"{counted(count, 'landed file is', 'landed files are')} rewritten")
                return
        raise NotForgotten(
            "events of the user, or more files than can be searched meanwhile, kept landing; stop the"
            " senders, and forget the user again"
        )

    def _files_to_rewrite(self, paths: list[str]) -> list[str]:
        """Return the files that must be rewritten."""
        having = self._lake_search.of(paths)
        if self._drop:
            having = sorted({*having, *(path for path in paths if self._lake_search.unjudged([path]))})
        return having

    def _rewrite(self, paths: list[str]) -> list[Swap]:
        with _identity_file(self._lake, self._identity) as (identity_file, _):
            return [
                lake_rewrite.write_without(
                    self._lake, self._engine, path, self._search, identity_file, drop=self._drop
                )
                for path in paths
            ]

    def _swap(self, swaps: list[Swap]) -> bool:
        """Let the ledger name the rewritten files; whether it still named all of those that they replace."""
        root = lake_path(self._lake.root)
        with self._connection.transaction():
            # A sweep holds it while it removes files: those of a process that slept for hours may be gone.
            lock_heads(self._connection)
            if not all(in_parallel(lambda swap: (root / swap.new).exists(), swaps)):
                raise NotForgotten(
                    "rewritten files are gone, as after hours of sleep and a sweep; forget the user again"
                )
            # A file that expired meanwhile is removed as it is, and so is one that was merged into another,
            # which is searched next.
            swapped = self._connection.execute(
                "WITH swapped AS ("
                " UPDATE ledger.file SET path = new.path, size = new.size"
                " FROM unnest(%s::text[], %s::text[], %s::bigint[]) AS new (old, path, size)"
                " WHERE file.path = new.old RETURNING new.old"
                ") INSERT INTO ledger.replaced_file (path) SELECT old FROM swapped RETURNING path",
                [[swap.old for swap in swaps], [swap.new for swap in swaps], [swap.size for swap in swaps]],
            ).fetchall()
            replaced = {path for (path,) in swapped}
            self._connection.execute(
                "UPDATE ledger.forgotten SET dropped = coalesce(dropped, 0) + %s WHERE pseudonym = %s",
                [sum(swap.dropped for swap in swaps if swap.old in replaced), self._identity.pseudonym],
            )
        return len(replaced) == len(swaps)

    def _replace_hours(self, users: list[str]) -> None:
        hours = tables.hours_with(self._connection, users) | hours_with(self._lake, users)
        self.affected |= hours
        for number, hour in enumerate(sorted(hours), start=1):
            try:
                # Written for each hour: a sweep removes files that are in scratch for hours.
                with _identity_file(self._lake, self._identity) as (identity_file, _):
                    lake_rewrite.replace_hours(
                        self._connection, self._lake, self._engine, hour, identity_file
                    )
                commit_point("forget.hour_in_lake")
                tables.replace_hours(self._connection, hour, self._identity)
            except Superseded as superseded:
                self._say(f"again in the next round: {superseded}")
            if number % 100 == 0 or number == len(hours):
                self._say(f"{number:,} of {counted(len(hours), 'hour')}")
        # After their hours: whose new certificates say that these are to be published again.
        replaced = periods.replace_periods(self._connection, self._identity)
        if replaced:
            self._say(f"{counted(replaced, 'day or month', 'days and months')}, to be published again")


@contextmanager
def _identity_file(lake: Lake, identity: Identity) -> Iterator[tuple[str, datetime]]:
    """Write the identity as a file to join with, removed after the block; yields its path and when it was
    written, by the clock of the lake's files.

    If the process is killed, the next search finds the file.
    """
    with lake.scratch() as folder:
        path = lake_path(folder)
        if isinstance(path, Path):
            path.chmod(0o700)
        with (path / "identity.parquet").open("wb") as opened:
            pq.write_table(identity.row, opened)
        (written,) = walk(path)
        yield f"{folder}/identity.parquet", written.changed


def _newest_batch(connection: psycopg.Connection) -> int:
    return connection.execute("SELECT coalesce(max(batch), 0) FROM ledger.batch").fetchall()[0][0]


def _is_little(connection: psycopg.Connection, after: int) -> bool:
    """Whether what landed after a batch is little enough to search it while the ledger is locked."""
    return connection.execute(
        "SELECT count(*) <= %s AND coalesce(sum(rows) FILTER (WHERE kind = 'rejected') <= %s, true)"
        " AND coalesce(sum(bytes) FILTER (WHERE kind = 'rejected') <= %s, true)"
        " FROM ledger.file WHERE batch > %s",
        [FILES_UNDER_LOCK, MESSAGES_UNDER_LOCK, BYTES_UNDER_LOCK, after],
    ).fetchall()[0][0]
