"""One Delta table partitioned by hour: loading it, creating it, and committing on top of the version that was loaded.

Which commit is allowed is decided in `lake.py`, the only user of this module.
"""

import json
import posixpath
import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa

from antenna_assets.domain.hours import lake_partition
from antenna_assets.domain.lifetimes import SAFE_AGE, require_young
from antenna_assets.domain.schema import HOUR_PARTITION
from antenna_assets.engines.contract import WrittenFile
from antenna_assets.errors import AntennaError
from antenna_assets.failpoints import commit_point
from antenna_assets.publishing.delta_files import recent_files, unreferenced
from antenna_assets.publishing.delta_log import (
    LAST_CHECKPOINT,
    LOG,
    Torn,
    log_files,
    set_aside,
    torn_files,
    wrong_commit,
)
from antenna_assets.storage.disk import WHAT_TO_DO, is_full
from antenna_assets.storage.files import (
    Found,
    everything_under,
    file_system_now,
    remove,
    remove_files,
    remove_if_empty,
)
from antenna_assets.storage.paths import file_errors, lake_path, name_within, reason_of, sync

if TYPE_CHECKING:
    from deltalake import DeltaTable, PostCommitHookProperties

    from antenna_assets.storage.paths import LakePath


CHECKPOINT_EVERY = 100
"""Versions from one checkpoint of the log to the next."""


_COUNTED_ON = "versions go on where the ledger knows them to have been"


class LakeError(AntennaError):
    """The lake cannot be read or written; the message says what to do."""


class Conflict(Exception):
    """Another writer committed after the version that this commit was checked against."""


@dataclass(frozen=True)
class RestoredHour:
    """An hour whose files are there and that the table's log does not know: what `restore` commits."""

    hour: datetime
    files: Sequence[WrittenFile]
    versions: Mapping[str, int]


class HourlyTable:
    """A Delta table and its columns. Hold `lock` while using what `newest` returns: it is one handle, kept up to date."""

    def __init__(self, location: str, columns: pa.Schema) -> None:
        self.location = location
        self.lock = Lock()
        self._columns = columns
        self._folder = lake_path(location)
        self._handle: DeltaTable | None = None
        # The newest version that was seen to be whole.
        self._whole = -1

    def newest(self) -> "DeltaTable | None":
        """The table at its newest version; None if there is none yet."""
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError, TableNotFoundError

        if self._handle is not None:
            try:
                # Measured with 43,800 hours: 64 ms after a commit of others and 1 ms after none; a new load is 140 ms.
                self._handle.update_incremental()
                self._require_whole(self._handle.version())
                return self._handle
            except (DeltaError, OSError):
                self._handle = None  # Its log was cleaned up meanwhile.
        with self.errors("read"):
            try:
                self._handle = DeltaTable(self.location)
            except TableNotFoundError:
                self._handle = None
        if self._handle is not None:
            self._require_whole(self._handle.version())
        return self._handle

    def _require_whole(self, version: int) -> None:
        """Stop at a newest commit that was torn: deltalake reads an empty one, or one cut between two lines, as no change.

        Raises:
            LakeError: it was.
        """
        path = self._folder / LOG / f"{version:020}.json"
        # In a store an object is there whole or not at all.
        if version == self._whole or not isinstance(path, Path):
            return
        with self.errors("read"), suppress(FileNotFoundError):
            if reason := wrong_commit(path.read_bytes()):
                self._handle = None
                raise LakeError(
                    f"the table {self.location} cannot be read: its log is torn: {path} {reason}; `antenna rebuild-table "
                    f"{self._folder.name}` is the way back"
                )
        self._whole = version

    def create(self, id_: str | None = None) -> "DeltaTable":
        """The table, made by this call or by another writer's at the same time.

        Args:
            id_: Delta's id of the table, if it is one that was lost; a random one if none is given.
        """
        from deltalake import DeltaTable
        from deltalake.exceptions import CommitFailedError
        from deltalake.transaction import CommitProperties

        partition = [pa.field(name, pa.int32(), nullable=False) for name in HOUR_PARTITION]
        with self.errors("created"):
            made = [path for path in self._folder.parents if not path.exists()]
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
            if id_ is not None:
                self._take_id(id_)
            commit_point("publish.lake.created")
            # Whoever made it: nothing that is committed on top of it may outlive it.
            log = self._folder / LOG
            sync(
                [
                    log / f"{0:020}.json",
                    log,
                    self._folder,
                    self._folder.parent,
                    *(path.parent for path in made),
                ]
            )
        table = self.newest()
        if table is None:
            raise LakeError(
                f"the table {self.location} is gone right after it was created; run the hour again"
            )
        return table

    def _take_id(self, id_: str) -> None:
        """Give a table that holds nothing yet another id."""
        from deltalake import DeltaTable

        made = DeltaTable(self.location)
        first = self._folder / LOG / f"{0:020}.json"
        if made.version():
            return  # Another writer was faster, and the id is that writer's.
        text = first.read_text(encoding="utf-8").replace(str(made.metadata().id), id_)
        if isinstance(first, Path):
            new = first.with_name(f"{first.name}.tmp")
            new.write_text(text, encoding="utf-8")
            sync([new])
            new.replace(first)
        else:
            first.write_text(text, encoding="utf-8")

    def replace(
        self,
        table: "DeltaTable",
        hour: datetime,
        files: Sequence[WrittenFile],
        versions: Mapping[str, int],
        metadata: Mapping[str, str | int],
        *,
        skip_age_check: bool = False,
    ) -> int:
        """Commit these files as the whole hour, on top of the very version that `table` has loaded.

        Args:
            skip_age_check: the ledger names the files, so that no sweep takes them.
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
            if skip_age_check or not files:
                additions = [self._action(file, partition) for file in files]
            else:
                now = file_system_now(self._folder)
                additions = [self._addition(file, partition, now) for file in files]
            try:
                table.create_write_transaction(
                    additions,
                    mode="overwrite",
                    schema=table.schema(),
                    partition_by=list(HOUR_PARTITION),
                    partition_filters=[(name, "=", value) for name, value in partition.items()],
                    commit_properties=CommitProperties(
                        # How many files: a log that was cut between two lines is told from a whole one.
                        custom_metadata={**metadata, "files": len(files)},
                        # Retries would move the commit onto a version that nobody has checked.
                        max_commit_retries=0,
                        app_transactions=[Transaction(key, version) for key, version in versions.items()],
                    ),
                    post_commithook_properties=_no_hooks(),
                )
            except CommitFailedError as error:
                raise Conflict(str(error)) from error
            commit_point("publish.lake.committed")
            version = table.version() + 1
            self._settle(version)
            return version

    def restore(self, table: "DeltaTable", hours: Sequence["RestoredHour"]) -> None:
        """Commit the files of hours that the version which `table` has loaded holds nothing of.

        Raises:
            Conflict: `table` is no longer the newest version.
        """
        from deltalake import Transaction
        from deltalake.exceptions import CommitFailedError
        from deltalake.transaction import CommitProperties

        with self.errors("written"):
            additions = [
                self._action(file, {name: str(value) for name, value in lake_partition(one.hour).items()})
                for one in hours
                for file in one.files
            ]
            try:
                table.create_write_transaction(
                    additions,
                    mode="append",
                    schema=table.schema(),
                    partition_by=list(HOUR_PARTITION),
                    commit_properties=CommitProperties(
                        custom_metadata={
                            "rebuild": "hours as the ledger names them",
                            "files": len(additions),
                        },
                        max_commit_retries=0,
                        app_transactions=[
                            Transaction(key, version)
                            for one in hours
                            for key, version in one.versions.items()
                        ],
                    ),
                    post_commithook_properties=_no_hooks(),
                )
            except CommitFailedError as error:
                raise Conflict(str(error)) from error
            self._settle(table.version() + 1)

    def advance_version(self, version: int) -> None:
        """Bring the table to a version that is not below this one, without a change.

        For a table that was built anew: its versions go on where the ledger knows them to have been.
        """
        table = self.newest()
        if table is None or table.version() >= version:
            return
        with self.errors("written"):
            if version - table.version() <= CHECKPOINT_EVERY:
                while table is not None and table.version() < version:
                    self.commit_empty(table, _COUNTED_ON)
                    table = self.newest()
                return
            # Its present content as a checkpoint of that version: thousands of empty commits say no more.
            log = self._folder / LOG
            self.commit_empty(table, _COUNTED_ON)
            table = self.newest()
            if table is None:
                return
            table.create_checkpoint()
            before = [path for path in log_files(self._folder) if path.name != LAST_CHECKPOINT]
            for kind in ("json", "checkpoint.parquet"):
                target = log / f"{version:020}.{kind}"
                target.write_bytes((log / f"{table.version():020}.{kind}").read_bytes())
                sync([target, log])
            hint = json.loads((log / LAST_CHECKPOINT).read_text(encoding="utf-8"))
            (log / LAST_CHECKPOINT).write_text(json.dumps({**hint, "version": version}), encoding="utf-8")
            sync([log / LAST_CHECKPOINT])
            commit_point("rebuild.counted_on")
            remove_files(before)
            sync([log])
            self._handle = None

    def _settle(self, version: int) -> None:
        """Bring a commit to the disk, and at every hundredth version a checkpoint, before what it sums up may go.

        deltalake syncs neither, and what follows a publication is recorded elsewhere for good.
        """
        log = self._folder / LOG
        # The one before may be another writer's, who has not come to it yet.
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

    def sweep(
        self, *, now: datetime, keep: timedelta, dry_run: bool, published: Collection[str] = ()
    ) -> dict[str, int]:
        """Delete what no version of the last `keep` names; returns paths in the table and their sizes in bytes.

        Args:
            published: files that the ledger names. They stay, whatever the log says: it may be a part of what it was.
        """
        table = self.newest()
        if table is None:
            return {}
        with self.errors("swept"):
            folder = self._folder
            found = list(everything_under(folder))

            def litter(newest: "DeltaTable") -> list[Found]:
                referenced = self.paths(newest) | recent_files(folder, now - keep) | set(published)
                return unreferenced(folder, found, referenced, before=now - SAFE_AGE)

            goes = litter(table)
            if goes and not dry_run:
                # A writer that was paused between its check and its commit fails on this new version, and checks again.
                self.commit_empty(table, "a new version, before a sweep's files go")
                newest = self.newest()
                if newest is None:
                    raise LakeError(f"the table {self.location} is gone in the middle of a sweep")
                goes = litter(newest)
                remove(goes)
            return {name_within(folder, one.path): one.size for one in goes}

    def commit_empty(self, table: "DeltaTable", why: str) -> None:
        """Commit a new version with the same files, on which a writer that was paused has to look again."""
        from deltalake.transaction import CommitProperties

        table.create_write_transaction(
            [],
            mode="append",
            schema=table.schema(),
            partition_by=list(HOUR_PARTITION),
            commit_properties=CommitProperties(custom_metadata={"nothing": why, "files": 0}),
            post_commithook_properties=_no_hooks(),
        )
        newest = self.newest()
        if newest is not None:
            self._settle(newest.version())

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
            elif torn := self.torn():
                advice = (
                    f"its log is torn: {torn[0]}; `antenna rebuild-table {self._folder.name}` is the way back"
                )
            raise LakeError(
                f"the table {self.location} cannot be {done}: {_told(error)}; {advice}"
            ) from error

    def torn(self) -> list[Torn]:
        """What is torn in the table's log, as far as it can be read."""
        with suppress(*file_errors()):
            return torn_files(self._folder)
        return []

    def set_aside(self, paths: "list[LakePath]", into: "LakePath") -> None:
        """Move files out of the log, and forget what was read of it."""
        self._handle, self._whole = None, -1
        set_aside(paths, into)

    def held(self, table: "DeltaTable") -> set[datetime]:
        """The hours that the table has files of."""
        actions = pa.table(table.get_add_actions(flatten=True))
        if not actions.num_rows:
            return set()
        columns = [actions[f"partition.{name}"].to_pylist() for name in HOUR_PARTITION]
        return {datetime(y, m, d, h, tzinfo=UTC) for y, m, d, h in zip(*columns, strict=True)}

    def _addition(self, file: WrittenFile, partition: Mapping[str, str], now: datetime) -> "object":
        action = self._action(file, partition)
        written = datetime.fromtimestamp(lake_path(file.path).stat().st_mtime, UTC)
        require_young(file.path, begun=written, now=now)
        return action

    def _action(self, file: WrittenFile, partition: Mapping[str, str]) -> "object":
        from deltalake.transaction import AddAction

        folder = self.location + "/"
        if not file.path.startswith(folder):
            raise ValueError(
                f"expected a file in {folder}, found {file.path}; write into a folder from new_folder()"
            )
        return AddAction(
            path=file.path.removeprefix(folder),  # deltalake percent-encodes it
            size=file.size,
            partition_values=partition,
            modification_time=time.time_ns() // 10**6,
            data_change=True,
            stats=json.dumps({"numRecords": file.rows}),
        )


def _no_hooks() -> "PostCommitHookProperties":
    """Checkpoints and the log's clean-up are made after the sync, in `_settle`."""
    from deltalake import PostCommitHookProperties

    return PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


def _told(error: BaseException) -> str:
    """What deltalake says in coloured lines, in one; the words of a store's answer alone, if it gave one."""
    text = " ".join(re.sub(r"\x1b\[\d+m\u21b3?", "", str(error)).split())
    return reason_of(error) if "<Message>" in text else text
