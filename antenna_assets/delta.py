"""One Delta table partitioned by hour: loading it, creating it, and committing on top of the version that was loaded.

Which commit is allowed is decided in `lake.py`, the only user of this module.
"""

import json
import posixpath
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa

from antenna_assets.crash import commit_point
from antenna_assets.delta_litter import LOG, recent_files, unreferenced
from antenna_assets.disk import WHAT_TO_DO, is_full
from antenna_assets.engines.contract import WrittenFile
from antenna_assets.errors import AntennaError
from antenna_assets.hours import lake_partition
from antenna_assets.lake_files import file_errors, lake_path, name_within, reason_of, sync
from antenna_assets.lifetimes import SAFE_AGE, require_young
from antenna_assets.litter import Found, everything_under, remove, remove_files, remove_if_empty
from antenna_assets.schema import HOUR_PARTITION

if TYPE_CHECKING:
    from deltalake import DeltaTable


class LakeError(AntennaError):
    """The lake cannot be read or written; the message says what to do."""


class Conflict(Exception):
    """Another writer committed after the version that this commit was checked against."""


class HourlyTable:
    """A Delta table and its columns. Hold `lock` while using what `newest` returns: it is one handle, kept up to date."""

    def __init__(self, location: str, columns: pa.Schema) -> None:
        self.location = location
        self.lock = Lock()
        self._columns = columns
        self._folder = lake_path(location)
        self._handle: DeltaTable | None = None

    def newest(self) -> "DeltaTable | None":
        """The table at its newest version; None if there is none yet."""
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError, TableNotFoundError

        if self._handle is not None:
            try:
                # Measured with 43,800 hours: 64 ms after a commit of others and 1 ms after none; a new load is 140 ms.
                self._handle.update_incremental()
                return self._handle
            except (DeltaError, OSError):
                self._handle = None  # Its log was cleaned up meanwhile.
        with self.errors("read"):
            try:
                self._handle = DeltaTable(self.location)
            except TableNotFoundError:
                self._handle = None
        return self._handle

    def create(self) -> "DeltaTable":
        """The table, made by this call or by another writer's at the same time."""
        from deltalake import DeltaTable
        from deltalake.exceptions import CommitFailedError
        from deltalake.transaction import CommitProperties

        partition = [pa.field(name, pa.int32(), nullable=False) for name in HOUR_PARTITION]
        with self.errors("created"):
            if isinstance(self._folder, Path):
                self._folder.mkdir(parents=True, exist_ok=True)
            with suppress(CommitFailedError):  # Another writer made it.
                DeltaTable.create(
                    self.location,
                    pa.schema([*self._columns, *partition]),
                    mode="ignore",
                    partition_by=list(HOUR_PARTITION),
                    # Retries would let two creators both commit, the second over the first one's metadata.
                    commit_properties=CommitProperties(max_commit_retries=0),
                )
        table = self.newest()
        if table is None:
            raise LakeError(
                f"the table {self.location} is gone right after it was created; run the hour again"
            )
        return table

    def replace(
        self,
        table: "DeltaTable",
        hour: datetime,
        files: Sequence[WrittenFile],
        versions: Mapping[str, int],
        metadata: Mapping[str, str | int],
    ) -> int:
        """Commit these files as the whole hour, on top of the very version that `table` has loaded.

        Args:
            versions: application transactions to set, by their key.
            metadata: for the reader of the table's history.

        Raises:
            Conflict: `table` is no longer the newest version.
            AttemptTooOld: a file is so old that a sweep may take it.
        """
        from deltalake import Transaction
        from deltalake.exceptions import CommitFailedError
        from deltalake.transaction import CommitProperties

        partition = {name: str(value) for name, value in lake_partition(hour).items()}
        with self.errors("written"):
            try:
                table.create_write_transaction(
                    [self._addition(file, partition) for file in files],
                    mode="overwrite",
                    schema=table.schema(),
                    partition_by=list(HOUR_PARTITION),
                    partition_filters=[(name, "=", value) for name, value in partition.items()],
                    commit_properties=CommitProperties(
                        custom_metadata=dict(metadata),
                        # Retries would move the commit onto a version that nobody has checked.
                        max_commit_retries=0,
                        app_transactions=[Transaction(key, version) for key, version in versions.items()],
                    ),
                )
            except CommitFailedError as error:
                raise Conflict(str(error)) from error
            commit_point("publish.lake.committed")
            version = table.version() + 1
            log = self._folder / LOG
            # deltalake does not, and what follows a publication is recorded elsewhere for good.
            sync([log / f"{version:020}.json", log])
            return version

    def discard(self, files: Sequence[WrittenFile], *, beyond: int) -> None:
        """Remove the files of an attempt that failed, unless a version after `beyond` names their folder.

        A commit can be stored and still be reported as failed. What cannot be removed goes with a later sweep.
        """
        if not files:
            return
        with suppress(*file_errors()):
            folder = lake_path(files[0].path).parent
            version = beyond + 1
            while (log := self._folder / LOG / f"{version:020}.json").exists():
                if folder.name in log.read_text(encoding="utf-8"):
                    return
                version += 1
            remove_files(lake_path(file.path) for file in files)
            remove_if_empty(folder)

    def files(self, table: "DeltaTable", hour: datetime) -> dict[str, int]:
        """The hour's files, absolute, and their rows."""
        from pyarrow import compute

        actions = pa.table(table.get_add_actions(flatten=True))
        if not actions.num_rows:
            return {}
        for name, value in lake_partition(hour).items():
            actions = actions.filter(compute.equal(actions[f"partition.{name}"], value))
        paths, rows = actions["path"].to_pylist(), actions["num_records"].to_pylist()
        # Delta percent-encodes the paths of files; `file_uris` would encode the table's own as well.
        return {posixpath.join(self.location, unquote(path)): n for path, n in zip(paths, rows, strict=True)}

    def paths(self, table: "DeltaTable") -> set[str]:
        """The table's files, relative to it."""
        actions = pa.table(table.get_add_actions(flatten=True))
        return {unquote(path) for path in actions["path"].to_pylist()} if actions.num_rows else set()

    def sweep(self, *, now: datetime, keep: timedelta, dry_run: bool) -> dict[str, int]:
        """Delete what no version of the last `keep` names; returns paths in the table and their sizes in bytes."""
        table = self.newest()
        if table is None:
            return {}
        with self.errors("swept"):
            folder = self._folder
            found = list(everything_under(folder))

            def litter(newest: "DeltaTable") -> list[Found]:
                referenced = self.paths(newest) | recent_files(folder, now - keep)
                return unreferenced(folder, found, referenced, before=now - SAFE_AGE)

            goes = litter(table)
            if goes and not dry_run:
                # A writer that was paused between its check and its commit fails on this new version, and checks again.
                self.commit_nothing(table, "before files are swept")
                newest = self.newest()
                if newest is None:
                    raise LakeError(f"the table {self.location} is gone in the middle of a sweep")
                goes = litter(newest)
                remove(goes)
            return {name_within(folder, one.path): one.size for one in goes}

    def commit_nothing(self, table: "DeltaTable", why: str) -> None:
        """Commit a new version with the same files, on which a writer that was paused has to look again."""
        from deltalake.transaction import CommitProperties

        table.create_write_transaction(
            [],
            mode="append",
            schema=table.schema(),
            partition_by=list(HOUR_PARTITION),
            commit_properties=CommitProperties(custom_metadata={"reason": why}),
        )

    @contextmanager
    def errors(self, done: str) -> Iterator[None]:
        """Turn a failure of deltalake into a `LakeError`, and forget the handle, whose state is in doubt."""
        from deltalake.exceptions import DeltaError

        try:
            yield
        except file_errors(DeltaError) as error:
            self._handle = None
            advice = "check ANTENNA_LAKE, its permissions or credentials, and the free space"
            if is_full(error):
                advice = WHAT_TO_DO
            raise LakeError(
                f"the table {self.location} cannot be {done}: {_told(error)}; {advice}"
            ) from error

    def _addition(self, file: WrittenFile, partition: Mapping[str, str]) -> "object":
        from deltalake.transaction import AddAction

        folder = self.location + "/"
        if not file.path.startswith(folder):
            raise ValueError(
                f"expected a file in {folder}, found {file.path}; write into a folder from new_folder()"
            )
        written = datetime.fromtimestamp(lake_path(file.path).stat().st_mtime, UTC)
        require_young(file.path, begun=written, now=datetime.now(UTC))
        return AddAction(
            path=file.path.removeprefix(folder),  # deltalake percent-encodes it
            size=file.size,
            partition_values=partition,
            modification_time=time.time_ns() // 10**6,
            data_change=True,
            stats=json.dumps({"numRecords": file.rows}),
        )


def _told(error: BaseException) -> str:
    """What deltalake says in coloured lines, in one; the words of a store's answer alone, if it gave one."""
    text = " ".join(re.sub(r"\x1b\[\d+m\u21b3?", "", str(error)).split())
    return reason_of(error) if "<Message>" in text else text
