"""One Delta table partitioned by hour: loading it, and committing on top of the version that was loaded.

Which commit is allowed is decided in `lake.py`.
"""

import posixpath
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa

from antenna_assets.domain.lifetimes import SAFE_AGE
from antenna_assets.domain.schema import HOUR_PARTITION
from antenna_assets.engines.contract import WrittenFile
from antenna_assets.errors import AntennaError
from antenna_assets.failpoints import commit_point
from antenna_assets.publishing.delta_commit import (
    add_action,
    commit,
    commit_empty,
    files_of,
    remove_actions,
    require_young_files,
)
from antenna_assets.publishing.delta_create import create_table
from antenna_assets.publishing.delta_files import recent_files, unreferenced
from antenna_assets.publishing.delta_log import (
    LAST_CHECKPOINT,
    LOG,
    Torn,
    set_aside,
    torn_files,
    wrong_commit,
)
from antenna_assets.publishing.delta_transactions import AppTransactions
from antenna_assets.storage.disk import FREE_SPACE_HINT, is_full
from antenna_assets.storage.files import (
    Entry,
    file_system_now,
    remove,
    remove_files,
    remove_if_empty,
    walk,
)
from antenna_assets.storage.paths import file_errors, lake_path, name_within, reason_of, sync

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from antenna_assets.storage.paths import LakePath


CHECKPOINT_EVERY = 100
"""Versions from one checkpoint of the log to the next."""


class LakeError(AntennaError):
    """The lake cannot be read or written; the message says what to do."""


class HourlyTable:
    """A Delta table partitioned by hour.

    `newest` returns one handle that is kept up to date: hold `lock` while using it.

    Args:
        location: path or URI of the table.
        columns: without those of the partition.
    """

    def __init__(self, location: str, columns: pa.Schema) -> None:
        self.location = location
        self.folder = lake_path(location)
        self.lock = Lock()
        self._columns = columns
        self._handle: DeltaTable | None = None
        # Of the handle: a table that is loaded anew may be another one.
        self._transactions = AppTransactions(self.folder)
        # The newest version whose commit was seen to be whole.
        self._whole = -1

    @contextmanager
    def reading(self) -> "Iterator[DeltaTable | None]":
        """The table at its newest version, under its lock; None if it does not exist yet.

        Raises:
            LakeError: the table cannot be read, or the block failed to read it.
        """
        with self.lock:
            newest = self.newest()
            with self.errors("read"):
                yield newest

    def newest(self) -> "DeltaTable | None":
        """The table at its newest version; None if it does not exist yet.

        Raises:
            LakeError: the table cannot be read.
        """
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError, TableNotFoundError

        if self._handle is not None:
            try:
                # Measured with 43,800 hours: 64 ms after a commit of others, 1 ms after none; a new load is
                # 140 ms.
                self._handle.update_incremental()
                self._require_whole(self._handle.version())
                return self._handle
            except (DeltaError, OSError):
                self._handle = None  # Its log was cleaned up meanwhile.
        self._transactions = AppTransactions(self.folder)
        with self.errors("read"):
            try:
                self._handle = DeltaTable(self.location)
            except TableNotFoundError:
                self._handle = None
        if self._handle is not None:
            self._require_whole(self._handle.version())
        return self._handle

    def versions(self, table: "DeltaTable") -> Mapping[str, int]:
        """The application transactions that a table from `newest` has at its version, by their key.

        Raises:
            OSError: its log cannot be read; also the errors of a store.
        """
        return self._transactions.at(table.version())

    def _require_whole(self, version: int) -> None:
        """Stop if the newest commit is torn: deltalake reads an empty or cut one as no change.

        Raises:
            LakeError: it is torn.
        """
        path = self.folder / LOG / f"{version:020}.json"
        # An object of a store exists whole or not at all.
        if version == self._whole or not isinstance(path, Path):
            return
        with self.errors("read"), suppress(FileNotFoundError):
            if reason := wrong_commit(path.read_bytes()):
                self._handle = None
                raise LakeError(
                    f"the table {self.location} cannot be read: its log is torn: {path} {reason}; "
                    f"`antenna rebuild-table {self.folder.name}` repairs it"
                )
        self._whole = version

    def create(self, table_id: str | None = None) -> "DeltaTable":
        """Create the table, unless another writer has at the same time, and return it.

        Args:
            table_id: Delta's id of a table that was lost and is built again; None: a random one.

        Raises:
            LakeError: the table cannot be created.
        """
        with self.errors("created"):
            create_table(self.location, self._columns, table_id)
        table = self.newest()
        if table is None:
            raise LakeError(
                f"the table {self.location} is gone right after it was created; run the hour again"
            )
        return table

    def replace(
        self,
        table: "DeltaTable",
        hours: Mapping[datetime, Sequence[WrittenFile]],
        versions: Mapping[str, int],
        metadata: Mapping[str, str | int],
        *,
        skip_age_check: bool = False,
    ) -> int:
        """Commit files as whole hours, on top of the exact version that `table` has loaded.

        Args:
            hours: the files of each hour; without any it becomes empty.
            versions: application transactions to set, by their key.
            metadata: for readers of the table's history.
            skip_age_check: the ledger names the files, so no sweep removes them, however old they are.

        Returns:
            The Delta version of the commit.

        Raises:
            Conflict: `table` is no longer the newest version.
            AttemptTooOld: a file is so old that a sweep may remove it.
            LakeError: the table cannot be written.
        """
        additions = [add_action(self.location, hour, file) for hour in hours for file in hours[hour]]
        with self.errors("written"):
            files = [file for of_hour in hours.values() for file in of_hour]
            if files and not skip_age_check:
                require_young_files(files, file_system_now(self.folder))
            commit(
                table,
                additions,
                versions=versions,
                metadata=metadata,
                removals=remove_actions(table, hours),
            )
            commit_point("publish.lake.committed")
            version = table.version() + 1
            self.sync_commit(version)
            return version

    def commit_empty(self, table: "DeltaTable", reason: str) -> None:
        """Commit a new version with the same files, so that a writer paused after its check checks again."""
        commit_empty(table, reason)
        newest = self.newest()
        if newest is not None:
            self.sync_commit(newest.version())

    def sync_commit(self, version: int) -> None:
        """Sync a commit to the disk; at every hundredth version write a checkpoint, then clean up the log.

        deltalake syncs neither, and the ledger is about to name this version.
        """
        log = self.folder / LOG
        # The version before may be another writer's that has not synced it yet.
        before = log / f"{version - 1:020}.json"
        sync([*([before] if before.exists() else []), log / f"{version:020}.json", log])
        if version % CHECKPOINT_EVERY:
            return
        table = self.newest()
        if table is None:
            return
        table.create_checkpoint()
        sync([log / f"{table.version():020}.checkpoint.parquet", log / LAST_CHECKPOINT, log])
        table.cleanup_metadata()

    def discard(self, files: Sequence[WrittenFile], *, beyond: int) -> None:
        """Remove the files of a failed attempt, unless a version after `beyond` names their folder.

        A commit may be stored and still be reported as failed. A sweep removes what cannot be removed now.
        """
        if not files:
            return
        with suppress(*file_errors()):
            folder = lake_path(files[0].path).parent
            version = beyond + 1
            while (log := self.folder / LOG / f"{version:020}.json").exists():
                if folder.name in log.read_text(encoding="utf-8"):
                    return
                version += 1
            remove_files(lake_path(file.path) for file in files)
            remove_if_empty(folder)

    def files(self, table: "DeltaTable", hours: Collection[datetime]) -> dict[datetime, dict[str, int]]:
        """The files of each hour as absolute paths or URIs, with their rows."""
        return {
            # Delta percent-encodes the paths of files; `file_uris` would encode the table's own as well.
            hour: {posixpath.join(self.location, unquote(file.path)): file.rows for file in files}
            for hour, files in files_of(table, hours).items()
        }

    def paths(self, table: "DeltaTable") -> set[str]:
        """The table's files, relative to it."""
        actions = pa.table(table.get_add_actions(flatten=True))
        return {unquote(path) for path in actions["path"].to_pylist()} if actions.num_rows else set()

    def hours(self, table: "DeltaTable") -> set[datetime]:
        """The hours of which the table has files."""
        actions = pa.table(table.get_add_actions(flatten=True))
        if not actions.num_rows:
            return set()
        columns = [actions[f"partition.{name}"].to_pylist() for name in HOUR_PARTITION]
        return {datetime(y, m, d, h, tzinfo=UTC) for y, m, d, h in zip(*columns, strict=True)}

    def sweep(
        self, *, now: datetime, keep: timedelta, dry_run: bool, published: Collection[str] = ()
    ) -> dict[str, int]:
        """Delete what no version of the last `keep` names; returns paths within the table and their bytes.

        Args:
            published: files that the ledger names. They stay even if the log, which may have been cut, does
                not.

        Raises:
            LakeError: the table cannot be read or its files cannot be deleted.
        """
        table = self.newest()
        if table is None:
            return {}
        with self.errors("swept"):
            folder = self.folder
            found = list(walk(folder))

            def orphans(newest: "DeltaTable") -> list[Entry]:
                referenced = self.paths(newest) | recent_files(folder, now - keep) | set(published)
                return unreferenced(folder, found, referenced, before=now - SAFE_AGE)

            removed = orphans(table)
            if removed and not dry_run:
                # A writer that was paused between its check and its commit fails on this version, and checks
                # again.
                self.commit_empty(table, "before a sweep removes files")
                newest = self.newest()
                if newest is None:
                    raise LakeError(f"the table {self.location} is gone in the middle of a sweep")
                removed = orphans(newest)
                remove(removed)
            return {name_within(folder, one.path): one.size for one in removed}

    @contextmanager
    def errors(self, done: str) -> Iterator[None]:
        """Turn a failure of deltalake or the file system into a `LakeError`, and drop the handle."""
        from deltalake.exceptions import DeltaError

        try:
            yield
        except file_errors(DeltaError) as error:
            self._handle = None
            advice = "check ANTENNA_LAKE, its permissions or credentials, and the free space"
            if is_full(error):
                advice = FREE_SPACE_HINT
            elif torn := self.torn():
                advice = f"its log is torn: {torn[0]}; `antenna rebuild-table {self.folder.name}` repairs it"
            raise LakeError(
                f"the table {self.location} cannot be {done}: {_message(error)}; {advice}"
            ) from error

    def torn(self) -> list[Torn]:
        """The torn files of the table's log, as far as it can be read."""
        with suppress(*file_errors()):
            return torn_files(self.folder)
        return []

    def set_aside(self, paths: "list[LakePath]", into: "LakePath") -> None:
        """Move files out of the log."""
        self.forget_handle()
        self._whole = -1
        set_aside(paths, into)

    def forget_handle(self) -> None:
        """Load the table anew at its next use: its log was changed from outside."""
        self._handle = None


def _message(error: BaseException) -> str:
    """deltalake's coloured lines as one plain line; if a store answered, only the message of its answer."""
    text = " ".join(re.sub(r"\x1b\[\d+m\u21b3?", "", str(error)).split())
    return reason_of(error) if "<Message>" in text else text
