"""The lake: the files of an hour at a generation, and the one way to replace them.

Only this module commits to the lake; it reads and writes no rows, which is the engines' work. How Delta does it is
in `delta.py`, and the columns of the tables are in `domain/schema.py`.
"""

import posixpath
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit
from uuid import uuid4

from antenna_assets.domain.hours import hour_key, lake_partition
from antenna_assets.domain.lifetimes import VERSION_RETENTION
from antenna_assets.domain.schema import LAKE_TABLES
from antenna_assets.engines.contract import WrittenFile
from antenna_assets.errors import Superseded, Version
from antenna_assets.failpoints import commit_point
from antenna_assets.publishing.delta import Conflict, HourlyTable, LakeError
from antenna_assets.storage.files import remove_tree
from antenna_assets.storage.paths import lake_path

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = [
    "SCRATCH",
    "TAGS",
    "HourSnapshot",
    "Lake",
    "LakeBusy",
    "LakeError",
    "NotPublished",
    "PublishedHour",
]

TAGS = ("users_version",)
"""The versions that an hour can carry beside its generation. Delta lists no keys, so they are named here."""

SCRATCH = "scratch"
"""Folder under the root for files that live as long as a run."""

ATTEMPTS = 60
"""Commits of other writers that a replacement gives way to before it gives up: about 20 s of waiting in all."""

_NO_TAG = -1
_USERS_VERSION = "users_version"
_ATTEMPT = "attempt"


class NotPublished(LakeError):
    """The hour is not in the table yet."""


class LakeBusy(LakeError):
    """Other writers committed before us too many times in a row."""


@dataclass(frozen=True)
class HourSnapshot:
    """An hour of a table as one version of the table has it.

    Attributes:
        generation: None if the hour was never published.
        files: absolute paths or URIs.
        rows: of all files.
        tags: those of `TAGS` that were published with this generation.
        version: the Delta version; -1 while the table does not exist.
        table_id: Delta's id of the table: one that was lost and built anew has another.
    """

    generation: int | None
    files: list[str]
    rows: int
    tags: dict[str, int]
    version: int
    table_id: str | None = field(default=None, compare=False)


@dataclass(frozen=True)
class PublishedHour:
    """What is built on an hour that was published: its generation, files and tags, as in `HourSnapshot`."""

    generation: int
    files: list[str]
    tags: dict[str, int]


class Lake:
    """The Delta tables under a root: a path, or a URI whose credentials deltalake finds by itself.

    Safe to use from several threads and processes.

    Raises:
        LakeError: deltalake cannot use such a root.
    """

    def __init__(self, root: str) -> None:
        if root.startswith("file://"):
            root = unquote(urlsplit(root).path)
        if "://" in root:
            # deltalake 1.6.6 encodes such a prefix twice, so that the log would lie elsewhere than the files.
            if quote(root, safe=":/") != root:
                raise LakeError(
                    f"the lake's URI must hold only letters, digits and ._~-/; found {root}; use another prefix"
                )
            self.root = root.rstrip("/")
        elif "%" in root:
            # It writes to the path as it is and reads from the decoded one.
            raise LakeError(f"the lake's path must not contain %, found {root}; use another folder")
        else:
            self.root = str(Path(root).absolute())
        self._tables = {
            name: HourlyTable(self.location(name), columns) for name, columns in LAKE_TABLES.items()
        }

    def table(self, name: str) -> HourlyTable:
        """A table, for those who mend its log."""
        return self._tables[name]

    def location(self, table: str) -> str:
        """Path or URI of a table."""
        return posixpath.join(self.root, table)

    def new_folder(self, table: str, hour: datetime, generation: int) -> str:
        """Name a folder for the files of one attempt at an hour. It is not made here, and never named twice."""
        partition = "/".join(f"{name}={value}" for name, value in lake_partition(hour).items())
        return posixpath.join(self.location(table), partition, f"g{generation}-{uuid4().hex}")

    @contextmanager
    def scratch(self) -> Iterator[str]:
        """A folder of a run's own for what it hands to the engine, whose workers may be elsewhere; gone after the block.

        What a killed run leaves there goes with a sweep.
        """
        folder = posixpath.join(self.root, SCRATCH, uuid4().hex)
        path = lake_path(folder)
        if isinstance(path, Path):
            path.mkdir(parents=True)
        try:
            yield folder
        finally:
            remove_tree(path, within=lake_path(self.root))

    def hour(self, table: str, hour: datetime) -> HourSnapshot:
        """What the newest version of a table holds of an hour.

        Raises:
            LakeError: the table cannot be read.
        """
        delta = self._tables[table]
        with delta.lock:
            newest = delta.newest()
            if newest is None:
                return HourSnapshot(None, [], 0, {}, -1)
            with delta.errors("read"):
                generation = newest.transaction_version(hour_key(hour))
                files = delta.files(newest, hour)
                tags = {} if generation is None else _tags(newest, hour)
                return HourSnapshot(
                    generation,
                    list(files),
                    sum(files.values()),
                    tags,
                    newest.version(),
                    newest.metadata().id,
                )

    def published_hour(self, table: str, hour: datetime) -> PublishedHour:
        """The hour as the newest version of a table holds it, for those who build on it.

        Raises:
            NotPublished: the table does not hold it.
            LakeError: the table cannot be read.
        """
        found = self.hour(table, hour)
        if found.generation is None:
            raise NotPublished(
                f"{table} does not hold {hour_key(hour)} yet; materialize {table} for it first"
            )
        return PublishedHour(found.generation, found.files, found.tags)

    def table_id(self, table: str) -> str | None:
        """Delta's id of the table, None while there is none: one that was lost and built anew has another.

        Raises:
            LakeError: the table cannot be read.
        """
        delta = self._tables[table]
        with delta.lock:
            newest = delta.newest()
            if newest is None:
                return None
            with delta.errors("read"):
                return newest.metadata().id

    def paths(self, table: str) -> set[str]:
        """The files of a table's newest version, by their path within the table.

        Raises:
            LakeError: the table cannot be read.
        """
        delta = self._tables[table]
        with delta.lock:
            newest = delta.newest()
            if newest is None:
                return set()
            with delta.errors("read"):
                return delta.paths(newest)

    def replace_hour(
        self,
        table: str,
        hour: datetime,
        generation: int,
        files: Sequence[WrittenFile],
        *,
        tags: Mapping[str, int] | None = None,
        metadata: Mapping[str, str] | None = None,
        attempt: int | None = None,
        before_commit: Callable[[], None] = lambda: None,
    ) -> int:
        """Make these files, and no others, the table's hour. Without files the hour is published as empty.

        The fence: generation, users' version and attempt are compared, in this order, on a loaded version, and the commit
        succeeds only on top of that version. Files that were not committed are removed: a disk that is full gets no fuller with each attempt.

        Args:
            files: complete and synced, in a folder from `new_folder`.
            tags: versions to keep with the hour, of `TAGS`; those of an earlier publication are dropped.
            metadata: for the reader of the table's history.
            attempt: what `ledger.begin_publication` gave; None if no other writer's matters.
            before_commit: raises if there is another reason against it; called on each version before the commit on top of it.

        Returns:
            The Delta version of the commit.

        Raises:
            Superseded: the hour holds a newer generation, or of the same one a newer users' version or a later attempt.
            LakeBusy: other writers were faster `ATTEMPTS` times.
            AttemptTooOld: the files are older than any run may be.
            LakeError: the table cannot be written.
        """
        given = dict(tags or {})
        if unknown := given.keys() - set(TAGS):
            raise ValueError(f"expected tags of {', '.join(TAGS)}; found {', '.join(sorted(unknown))}")
        key = hour_key(hour)
        history: dict[str, str | int] = {"hour": key, "generation": generation, **(metadata or {})}
        delta = self._tables[table]
        commit_point("publish.lake.files_written")
        # The newest version before this attempt; none of it is committed up to there.
        beyond: int | None = None
        try:
            for commit in range(ATTEMPTS):
                if commit:
                    time.sleep(random.uniform(0, min(0.7, 0.01 * 2**commit)))
                with delta.lock, suppress(Conflict):
                    loaded = delta.newest() or delta.create()
                    beyond = loaded.version() if beyond is None else beyond
                    before_commit()
                    return self._replace_on(
                        loaded,
                        table,
                        hour,
                        generation,
                        files,
                        tags=given,
                        history=history,
                        attempt=attempt,
                        again=commit > 0,
                    )
            raise LakeBusy(
                f"{table} of {key}: other writers committed first {ATTEMPTS} times; run the hour again"
            )
        except Exception:
            with delta.lock:
                delta.discard(files, beyond=-1 if beyond is None else beyond)
            raise

    def _replace_on(
        self,
        loaded: "DeltaTable",
        table: str,
        hour: datetime,
        generation: int,
        files: Sequence[WrittenFile],
        *,
        tags: Mapping[str, int],
        history: Mapping[str, str | int],
        attempt: int | None,
        again: bool,
    ) -> int:
        """One attempt of `replace_hour` on the version that is loaded, under the table's lock; returns its version.

        Args:
            again: an earlier attempt failed.

        Raises:
            Conflict: the version is no longer the newest.
            Superseded, AttemptTooOld, LakeError: as `replace_hour`.
        """
        delta, key = self._tables[table], hour_key(hour)
        with delta.errors("read"):
            held = _held(loaded, hour)
            if held is not None:
                # What is not given is not compared: no table has it for some hours only.
                given = Version(
                    generation,
                    tags.get(_USERS_VERSION, held.users),
                    held.attempt if attempt is None else attempt,
                )
                if held > given:
                    raise Superseded(f"{table} of {key}", given, held)
            # A commit can be stored and still be reported as failed: then these very files are there.
            if again and files and delta.files(loaded, hour).keys() == {file.path for file in files}:
                return loaded.version()
            versions = {key: generation}
            for tag in tags.keys() | _tags(loaded, hour).keys():
                versions[f"{key}/{tag}"] = tags.get(tag, _NO_TAG)
            if attempt is not None:
                versions[f"{key}/{_ATTEMPT}"] = attempt
        return delta.replace(loaded, hour, files, versions, history)

    def raise_fence(self, table: str) -> None:
        """Let a writer that was paused between its look at a version and its commit on top of it look again.

        Raises:
            LakeError: the table cannot be written.
        """
        delta = self._tables[table]
        with delta.lock:
            loaded = delta.newest() or delta.create()
            with delta.errors("written"):
                delta.commit_empty(loaded, "a user was forgotten")

    def sweep(
        self,
        table: str,
        *,
        now: datetime,
        keep: timedelta = VERSION_RETENTION,
        dry_run: bool = False,
        published: Collection[str] = (),
    ) -> dict[str, int]:
        """Delete the files that no version of the last `keep` names, those of attempts that never committed included.

        Files younger than `SAFE_AGE` stay, whatever they are. The log keeps every version for Delta's own 30 days.

        Args:
            now: by the clock of the table's files.
            keep: longer than the longest reader of a version.
            published: files that the ledger names, which stay.
            dry_run: delete nothing.

        Returns:
            The paths within the table of the files and empty folders that were or would be deleted, and their bytes.

        Raises:
            LakeError: the table cannot be read or its files cannot be deleted.
        """
        delta = self._tables[table]
        with delta.lock:
            return delta.sweep(now=now, keep=keep, dry_run=dry_run, published=published)


def _held(table: "DeltaTable", hour: datetime) -> Version | None:
    """What the fence compares with; None if the hour was never published."""
    generation = table.transaction_version(hour_key(hour))
    if generation is None:
        return None
    attempt = table.transaction_version(f"{hour_key(hour)}/{_ATTEMPT}")
    return Version(generation, _tags(table, hour).get(_USERS_VERSION, 0), attempt or 0)


def _tags(table: "DeltaTable", hour: datetime) -> dict[str, int]:
    found = {tag: table.transaction_version(f"{hour_key(hour)}/{tag}") for tag in TAGS}
    return {tag: version for tag, version in found.items() if version is not None and version != _NO_TAG}
