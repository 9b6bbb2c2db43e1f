"""`antenna rebuild-table`: recovery of a lake table whose Delta log is corrupt or lost, from the ledger's
publications.

First the corrupt files of the log are set aside. If the rest holds everything that the ledger has published,
that is all; otherwise the missing hours are committed again with the files that the ledger references.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

from antenna_assets.domain.counted import counted
from antenna_assets.domain.hours import hour_key
from antenna_assets.engines.contract import WrittenFile
from antenna_assets.errors import AntennaError
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.files import files_of_hour
from antenna_assets.ledger.lake_identity import require_own_lake
from antenna_assets.publishing.delta import HourlyTable
from antenna_assets.publishing.delta_commit import Conflict
from antenna_assets.publishing.delta_log import (
    SET_ASIDE,
    Torn,
    log_files,
    newest_version,
    readable_without,
    torn_files,
)
from antenna_assets.publishing.delta_rebuild import RestoredHour, advance_version, restore
from antenna_assets.publishing.lake import Lake, LakeError
from antenna_assets.storage.paths import file_errors, in_parallel, lake_path

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from antenna_assets.storage.paths import LakePath

_AT_ONCE = 500
_ATTEMPTS = 60


class NotRebuilt(AntennaError):
    """The table could not be rebuilt; the message says what to do."""


@dataclass(frozen=True)
class PublishedHour:
    """The ledger's newest publication of an hour of a lake table.

    Attributes:
        tags: its versions beside the generation.
        files: rows by path within the table.
        table: Delta's id of the table at that time.
    """

    hour: datetime
    generation: int
    lake_version: int
    tags: dict[str, int]
    files: dict[str, int]
    table: str | None

    @property
    def versions(self) -> dict[str, int]:
        """The hour's transaction versions in the table, as `lake.replace_hour` sets them."""
        key = hour_key(self.hour)
        return {key: self.generation, **{f"{key}/{tag}": version for tag, version in self.tags.items()}}


@dataclass
class Rebuilt:
    """The changes that were, or with a dry run would be, made to a table.

    Attributes:
        torn: what was set aside of the log, or is missing in it.
        anew: whether the log as a whole was set aside.
        restored: hours that are committed again, with their files.
        to_run: hours without files that a run can publish again from their landed files.
        lost: hours that have neither files nor landed files.
    """

    torn: list[Torn] = field(default_factory=list)
    anew: bool = False
    restored: list[datetime] = field(default_factory=list)
    to_run: list[datetime] = field(default_factory=list)
    lost: list[datetime] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.torn or self.anew or self.restored or self.to_run or self.lost)


def published_hours(connection: psycopg.Connection, table: str) -> list[PublishedHour]:
    """Return the hours of a lake table that the ledger has published, by their newest publications."""
    rows = connection.execute(
        "SELECT DISTINCT ON (hour) hour, generation, lake_version, publication.users_version, attempt,"
        " content->'files', lake_table"
        " FROM ledger.publication JOIN ledger.publication_head USING (asset, hour, generation)"
        " WHERE asset = %s AND lake_version IS NOT NULL ORDER BY hour, number DESC",
        [table],
    ).fetchall()
    return [
        PublishedHour(
            hour,
            generation,
            version,
            {name: of for name, of in (("users_version", users), ("attempt", attempt)) if of is not None},
            {file["path"]: file["rows"] for file in files or []},
            id_,
        )
        for hour, generation, version, users, attempt, files, id_ in rows
    ]


def published_files(connection: psycopg.Connection, table: str) -> set[str]:
    """Return the files that a lake table would be rebuilt from: those of each hour's newest publication."""
    return {path for one in published_hours(connection, table) for path in one.files}


def missing_hours(connection: psycopg.Connection, lake: Lake, table: str) -> list[PublishedHour]:
    """Return the hours that the ledger has published and that the table lacks, or has at an older generation.

    Raises:
        LakeError: the table cannot be read.
    """
    delta = lake.table(table)
    with delta.lock:
        newest = delta.newest()
        return _missing(delta, newest, published_hours(connection, table))


def rebuild(connection: psycopg.Connection, lake: Lake, table: str, *, dry_run: bool = False) -> Rebuilt:
    """Rebuild a lake table from the ledger. Idempotent: an interrupted rebuild is finished by the next one.

    Do not run it beside a sweep; the stream and runs may go on. With `dry_run` the log and, if it is
    readable, the missing hours are only reported.

    Raises:
        WrongLake: this is not the ledger's lake.
        NotRebuilt: other writers committed first too many times.
        LakeError: the table cannot be written.
    """
    require_own_lake(connection, lake.root)
    delta, folder = lake.table(table), lake_path(lake.location(table))
    done = Rebuilt(torn_files(folder))
    done.anew = not readable_without(folder, done.torn)
    published = published_hours(connection, table)
    # The table keeps the id that certificates name, and its versions continue from here.
    id_ = max(published, key=lambda one: one.lake_version).table if published else None
    newest = max([newest_version(folder), *(one.lake_version for one in published)])
    if done.torn and dry_run:
        return done
    with delta.lock:
        if done.torn:
            torn = [one.path for one in done.torn]
            delta.set_aside(log_files(folder) if done.anew else torn, _aside(lake, table))
            commit_point("rebuild.set_aside")
        try:
            loaded = delta.newest()
        except LakeError:
            if dry_run:
                raise
            # Corrupt in a way that `torn_files` does not know.
            done.anew = True
            delta.set_aside(log_files(folder), _aside(lake, table))
        for _ in range(_ATTEMPTS):
            loaded = delta.newest()
            whole, gone = _by_files(lake, table, _missing(delta, loaded, published))
            if dry_run or not whole:
                break
            with suppress(Conflict):
                done.restored += _restore(delta, loaded or delta.create(id_), whole)
        else:
            raise NotRebuilt(f"{table}: other writers committed first {_ATTEMPTS} times; rebuild it again")
        if dry_run:
            done.restored = [one.hour for one, _ in whole]
        else:
            advance_version(delta, newest)
    for one in gone:
        (done.to_run if _landed(connection, one.hour) else done.lost).append(one.hour)
    return done


def _aside(lake: Lake, table: str) -> "LakePath":
    return lake_path(lake.root) / SET_ASIDE / table


def _missing(
    delta: HourlyTable, table: "DeltaTable | None", published: Iterable[PublishedHour]
) -> list[PublishedHour]:
    if table is None:
        return list(published)
    with delta.errors("read"):
        held, versions = delta.hours(table), delta.versions(table)
        return [
            one
            for one in published
            if _behind(versions, one)
            # An hour with its version but without its files: the log was truncated.
            or (one.files and one.hour not in held)
        ]


def _behind(versions: Mapping[str, int], published: PublishedHour) -> bool:
    """Whether the table's version of an hour is older than the published one, compared as every fence
    does.

    Args:
        versions: the table's application transactions.
    """
    key = hour_key(published.hour)
    names = (key, f"{key}/users_version", f"{key}/attempt")
    held = [max(versions.get(name, 0), 0) for name in names]
    return held < [published.versions.get(name, 0) for name in names]


def _by_files(
    lake: Lake, table: str, missing: Sequence[PublishedHour]
) -> tuple[list[tuple[PublishedHour, list[WrittenFile]]], list[PublishedHour]]:
    """Split the missing hours into those whose files exist, with the files, and the others."""
    found = in_parallel(lambda one: _files(lake.location(table), one), missing)
    pairs = list(zip(missing, found, strict=True))
    return [(one, files) for one, files in pairs if files is not None], [
        one for one, files in pairs if files is None
    ]


def _files(location: str, published: PublishedHour) -> list[WrittenFile] | None:
    """Return the hour's files; None if one is missing or has not the published number of rows."""
    files = []
    for path, rows in published.files.items():
        place = f"{location}/{path}"
        try:
            with lake_path(place).open("rb") as file:
                found = pq.read_metadata(file).num_rows
            size = lake_path(place).stat().st_size
        except (*file_errors(), pa.ArrowException):
            return None
        if found != rows:
            return None
        files.append(WrittenFile(place, rows, size))
    return files


def _restore(
    delta: HourlyTable, table: "DeltaTable", hours: Sequence[tuple[PublishedHour, list[WrittenFile]]]
) -> list[datetime]:
    """Commit some of the hours on this version, and return them.

    Raises:
        Conflict: the version is no longer the newest.
    """
    held = delta.hours(table)
    for one, files in hours:
        if one.hour in held:
            history = {"rebuild": "as the ledger names it", "hours": hour_key(one.hour)}
            delta.replace(table, {one.hour: files}, one.versions, history, skip_age_check=True)
            return [one.hour]
    some = [RestoredHour(one.hour, files, one.versions) for one, files in hours[:_AT_ONCE]]
    restore(delta, table, some)
    return [one.hour for one in some]


def _landed(connection: psycopg.Connection, hour: datetime) -> bool:
    """Whether a run can publish the hour again from its landed files."""
    row = connection.execute("SELECT rows = 0 FROM ledger.hour WHERE hour = %s", [hour]).fetchone()
    return row == (True,) or bool(files_of_hour(connection, hour))


def lines(table: str, done: Rebuilt, *, dry_run: bool) -> Iterator[str]:
    """Yield what was or would be done, and what is left to do."""
    was, were = ("would be", "would be") if dry_run else ("was", "were")
    for one in done.torn:
        yield str(one)
    if done.anew:
        yield f"the whole log {was} set aside and rebuilt from the ledger"
    elif done.torn:
        yield f"the torn files {were} set aside: the rest of the log is complete"
    if done.restored:
        restored = counted(len(done.restored), f"hour {was}", f"hours {were}")
        yield f"{restored} committed again, with the files"
    if done.to_run:
        to_run = counted(len(done.to_run), "hour lacks", "hours lack")
        yield f"{to_run} files, and the landed ones are there. Publish again:"
        yield from (f"  antenna backfill --from {hour_key(hour)}" for hour in done.to_run)
    if done.lost:
        yield (
            f"{counted(len(done.lost), 'hour')} cannot be rebuilt: the files are gone, and the landed ones"
            " are past the horizon:"
        )
        yield from (f"  {hour_key(hour)}" for hour in done.lost)
    if not done:
        yield f"{table} holds every hour that the ledger has published"
