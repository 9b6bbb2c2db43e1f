"""The lake: the files of an hour at a generation, and the one way to replace them.

Only this module commits to the lake. Rows are read and written by the engines, Delta is handled in
`delta.py`, and the fence's comparison is in `fence.py`.
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
from antenna_assets.errors import Superseded
from antenna_assets.failpoints import commit_point
from antenna_assets.publishing.delta import HourlyTable, LakeError
from antenna_assets.publishing.delta_commit import Conflict
from antenna_assets.publishing.fence import TAGS, USERS_VERSION, Replacement, history, hour_tags
from antenna_assets.storage.files import remove_tree
from antenna_assets.storage.paths import lake_path

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = [
    "SCRATCH",
    "TAGS",
    "USERS_VERSION",
    "HourSnapshot",
    "Lake",
    "LakeBusy",
    "LakeError",
    "NotPublished",
    "PublishedHour",
]

SCRATCH = "scratch"
"""Folder under the root for files that live as long as a run."""

ATTEMPTS = 60
"""Commits of other writers after which a replacement gives up: about 20 s of back-off in all."""


class NotPublished(LakeError):
    """The hour is not in the table yet."""


class LakeBusy(LakeError):
    """Other writers committed first too many times in a row."""


@dataclass(frozen=True)
class HourSnapshot:
    """An hour of a table at one version of the table.

    Attributes:
        generation: None if the hour was never published.
        files: absolute paths or URIs.
        rows: of all files.
        tags: those of `TAGS` that were published with this generation.
        version: the Delta version; -1 while the table does not exist.
        table_id: Delta's id of the table; a table that was lost and created again has another.
    """

    generation: int | None
    files: list[str]
    rows: int
    tags: dict[str, int]
    version: int
    table_id: str | None = field(default=None, compare=False)

    def published(self, table: str, hour: datetime) -> "PublishedHour":
        """The hour as input of the next asset.

        Raises:
            NotPublished: the table does not hold it.
        """
        if self.generation is None:
            raise NotPublished(
                f"{table} does not hold {hour_key(hour)} yet; materialize {table} for it first"
            )
        return PublishedHour(self.generation, self.files, self.tags)


def generations(snapshots: Mapping[datetime, HourSnapshot]) -> dict[datetime, int]:
    """The generation of each hour that a table holds."""
    return {hour: one.generation for hour, one in snapshots.items() if one.generation is not None}


@dataclass(frozen=True)
class PublishedHour:
    """A published hour as input of the next asset: its generation, files and tags, as in `HourSnapshot`."""

    generation: int
    files: list[str]
    tags: dict[str, int]


@dataclass(frozen=True)
class Replaced:
    """The Delta version that holds the replaced hours, and why others were left out."""

    version: int
    superseded: Mapping[datetime, Superseded]


class Lake:
    """The Delta tables under a root: a path, or a URI whose credentials deltalake finds itself.

    Safe to use from several threads and processes.

    Raises:
        LakeError: deltalake cannot use such a root.
    """

    def __init__(self, root: str) -> None:
        if root.startswith("file://"):
            root = unquote(urlsplit(root).path)
        if "://" in root:
            # deltalake 1.6.6 encodes such a prefix twice, so that the log would be elsewhere than the files.
            if quote(root, safe=":/") != root:
                raise LakeError(
                    f"the lake's URI must hold only letters, digits and ._~-/; found {root}; "
                    "use another prefix"
                )
            self.root = root.rstrip("/")
        elif "%" in root:
            # deltalake writes to the literal path and reads from the decoded one.
            raise LakeError(f"the lake's path must not contain %, found {root}; use another folder")
        else:
            self.root = str(Path(root).absolute())
        self._tables = {
            name: HourlyTable(self.location(name), columns) for name, columns in LAKE_TABLES.items()
        }

    def table(self, name: str) -> HourlyTable:
        """A table itself, for repairing its log."""
        return self._tables[name]

    def location(self, table: str) -> str:
        """Path or URI of a table."""
        return posixpath.join(self.root, table)

    def new_folder(self, table: str, hour: datetime, generation: int) -> str:
        """A name, unique to this call, for the folder of one attempt at an hour; it is not created."""
        partition = "/".join(f"{name}={value}" for name, value in lake_partition(hour).items())
        return posixpath.join(self.location(table), partition, f"g{generation}-{uuid4().hex}")

    @contextmanager
    def scratch(self) -> Iterator[str]:
        """A folder of one run for files that the engine reads, removed after the block.

        A sweep removes what a killed run leaves there.
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
        """An hour as the newest version of a table holds it.

        Raises:
            LakeError: the table cannot be read.
        """
        return self.hours(table, [hour])[hour]

    def hours(self, table: str, hours: Collection[datetime]) -> dict[datetime, HourSnapshot]:
        """Some hours as one version of a table, the newest, holds them.

        Raises:
            LakeError: the table cannot be read.
        """
        delta = self._tables[table]
        with delta.reading() as newest:
            if newest is None:
                return dict.fromkeys(hours, HourSnapshot(None, [], 0, {}, -1))
            version, table_id = newest.version(), newest.metadata().id
            versions = delta.versions(newest)
            found = {}
            for hour, files in delta.files(newest, hours).items():
                generation = versions.get(hour_key(hour))
                tags = {} if generation is None else hour_tags(versions, hour)
                found[hour] = HourSnapshot(
                    generation, list(files), sum(files.values()), tags, version, table_id
                )
            return found

    def published_hour(self, table: str, hour: datetime) -> PublishedHour:
        """An hour of the newest version of a table, as input of the next asset.

        Raises:
            NotPublished: the table does not hold it.
            LakeError: the table cannot be read.
        """
        return self.hour(table, hour).published(table, hour)

    def table_id(self, table: str) -> str | None:
        """Delta's id of the table; None while it does not exist. A table that is created again has another.

        Raises:
            LakeError: the table cannot be read.
        """
        with self._tables[table].reading() as newest:
            return None if newest is None else newest.metadata().id

    def paths(self, table: str) -> set[str]:
        """The files of a table's newest version, relative to the table.

        Raises:
            LakeError: the table cannot be read.
        """
        delta = self._tables[table]
        with delta.reading() as newest:
            return set() if newest is None else delta.paths(newest)

    def replace_hours(
        self,
        table: str,
        replacements: Sequence[Replacement],
        *,
        before_commit: Callable[[], None] = lambda: None,
    ) -> Replaced:
        """Make the files of each replacement, and no others, the table's hour, in one commit.

        The fence: generation, users' version and attempt of each hour are compared, in this order, on a
        loaded version, and the commit succeeds only on top of that version. An hour that is held at a newer
        version is left out. Files that were not committed are removed, so that repeated attempts do not fill
        the disk.

        Args:
            replacements: of different hours; their files are complete and synced, in folders from
                `new_folder`.
            before_commit: raises if something else forbids the commit; called before each attempt to commit.

        Raises:
            LakeBusy: other writers committed first `ATTEMPTS` times.
            AttemptTooOld: the files are older than any run may be.
            LakeError: the table cannot be written.
        """
        delta = self._tables[table]
        commit_point("publish.lake.files_written")
        # The newest version before this attempt: nothing of it is committed up to there.
        beyond: int | None = None
        try:
            for number in range(ATTEMPTS):
                if number:
                    time.sleep(random.uniform(0, min(0.7, 0.01 * 2**number)))
                with delta.lock, suppress(Conflict):
                    loaded = delta.newest() or delta.create()
                    beyond = loaded.version() if beyond is None else beyond
                    before_commit()
                    done = self._replace_on(table, loaded, replacements, is_retry=number > 0)
                    for one in replacements:
                        if one.hour in done.superseded:
                            delta.discard(one.files, beyond=beyond)
                    return done
            names = ", ".join(one.name for one in replacements)
            raise LakeBusy(f"{names}: other writers committed first {ATTEMPTS} times; run the hours again")
        except Exception:
            with delta.lock:
                for one in replacements:
                    delta.discard(one.files, beyond=-1 if beyond is None else beyond)
            raise

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
    ) -> int:
        """Make these files one hour of a table, as `replace_hours`; returns the Delta version of the commit.

        Args:
            tags, metadata, attempt: see `Replacement`.

        Raises:
            Superseded: the hour holds a newer generation, or of the same one a newer users' version or a
                later attempt.
        """
        one = Replacement(table, hour, generation, files, tags or {}, attempt, metadata or {})
        done = self.replace_hours(table, [one])
        if hour in done.superseded:
            raise done.superseded[hour]
        return done.version

    def _replace_on(
        self, table: str, loaded: "DeltaTable", replacements: Sequence[Replacement], *, is_retry: bool
    ) -> Replaced:
        """Check the fences on the loaded version and commit on top of it.

        The caller holds the table's lock.

        Raises:
            Conflict: the version is no longer the newest.
            AttemptTooOld, LakeError: as `replace_hours`.
        """
        delta = self._tables[table]
        superseded: dict[datetime, Superseded] = {}
        with delta.errors("read"):
            held_at = delta.versions(loaded)
            for one in replacements:
                if newer := one.superseded_on(held_at):
                    superseded[one.hour] = newer
            left = [one for one in replacements if one.hour not in superseded]
            # A commit may be stored and still be reported as failed: then the hours hold exactly these files.
            if is_retry and any(one.files for one in left):
                held = delta.files(loaded, [one.hour for one in left])
                if all(held[one.hour].keys() == {file.path for file in one.files} for one in left):
                    return Replaced(loaded.version(), superseded)
            versions = {key: version for one in left for key, version in one.versions(held_at).items()}
        if not left:
            return Replaced(loaded.version(), superseded)
        files = {one.hour: one.files for one in left}
        return Replaced(delta.replace(loaded, files, versions, history(left)), superseded)

    def raise_fence(self, table: str) -> None:
        """Make a writer that was paused between its check and its commit check again.

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
        """Delete the files that no version of the last `keep` names.

        These include the orphans of attempts that never committed. Files younger than `SAFE_AGE` are always
        kept. The log keeps every version for Delta's own 30 days.

        Args:
            now: by the clock of the table's file system or store.
            keep: longer than the longest reader of a version.
            published: files that the ledger names, which are kept.
            dry_run: delete nothing.

        Returns:
            The files and empty folders that were or would be deleted, as paths within the table, and their
            bytes.

        Raises:
            LakeError: the table cannot be read or its files cannot be deleted.
        """
        delta = self._tables[table]
        with delta.lock:
            return delta.sweep(now=now, keep=keep, dry_run=dry_run, published=published)
