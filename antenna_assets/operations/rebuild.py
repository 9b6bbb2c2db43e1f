"""`antenna rebuild-table`: the way back for a table of the lake whose log was torn or lost, from the ledger's publications.

The smallest sound step first: what is torn is set aside. If the rest of the log still holds what the ledger has published,
that is all. Else the hours that are missing are committed again with the files that the ledger names.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

from antenna_assets.domain.hours import hour_key
from antenna_assets.engines.contract import WrittenFile
from antenna_assets.errors import AntennaError
from antenna_assets.failpoints import commit_point
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
    """The table could not be brought back; the message says what to do."""


@dataclass(frozen=True)
class PublishedHour:
    """What the ledger's newest publication says of an hour of a lake table. `files` are paths within it, with their rows;
    `tags` are the versions beside its generation, and `table` Delta's id of the table then."""

    hour: datetime
    generation: int
    lake_version: int
    tags: dict[str, int]
    files: dict[str, int]
    table: str | None

    @property
    def versions(self) -> dict[str, int]:
        """The marks that the table has of the hour, as `lake.replace_hour` sets them."""
        key = hour_key(self.hour)
        return {key: self.generation, **{f"{key}/{tag}": version for tag, version in self.tags.items()}}


@dataclass
class Rebuilt:
    """What was, or with a dry run would be, done to a table.

    Attributes:
        torn: what was set aside of the log, or is missing in it.
        anew: whether the log as a whole was set aside.
        restored: hours that are committed again, with their files.
        to_run: hours whose files are gone, and that a run makes again from what landed.
        lost: hours of which neither the files nor what landed is there any more.
    """

    torn: list[Torn] = field(default_factory=list)
    anew: bool = False
    restored: list[datetime] = field(default_factory=list)
    to_run: list[datetime] = field(default_factory=list)
    lost: list[datetime] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.torn or self.anew or self.restored or self.to_run or self.lost)


def published_hours(connection: psycopg.Connection, table: str) -> list[PublishedHour]:
    """The hours of a table of the lake that the ledger has published, each as its newest publication says."""
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
    """The files, within a table of the lake, that it is rebuilt from: those of each hour's newest publication. What an
    earlier one of the same generation named was replaced, and goes as any replaced file does."""
    return {path for one in published_hours(connection, table) for path in one.files}


def missing_hours(connection: psycopg.Connection, lake: Lake, table: str) -> list[PublishedHour]:
    """The hours that the ledger has published and the table does not hold, or holds of an older generation.

    Raises:
        LakeError: the table cannot be read.
    """
    delta = lake.table(table)
    with delta.lock:
        newest = delta.newest()
        return _missing(delta, newest, published_hours(connection, table))


def rebuild(connection: psycopg.Connection, lake: Lake, table: str, *, dry_run: bool = False) -> Rebuilt:
    """Bring a table of the lake to what the ledger says of it. Again is harmless, and a killed one is finished by the next.

    Ask while no sweep runs; stream and runs may. With `dry_run` only the log is looked at, and, where it can be read, which
    hours it lacks.

    Raises:
        WrongLake: this is not the ledger's lake.
        NotRebuilt: other writers were faster too many times.
        LakeError: the table cannot be written.
    """
    require_own_lake(connection, lake.root)
    delta, folder = lake.table(table), lake_path(lake.location(table))
    done = Rebuilt(torn_files(folder))
    done.anew = not readable_without(folder, done.torn)
    published = published_hours(connection, table)
    # The table stays the one that certificates name, and its versions are counted on from here.
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
            # Torn in a way that nobody has thought of.
            done.anew = True
            delta.set_aside(log_files(folder), _aside(lake, table))
        for _ in range(_ATTEMPTS):
            loaded = delta.newest()
            whole, gone = _sorted_out(lake, table, _missing(delta, loaded, published))
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
        held = delta.hours(table)
        return [
            one
            for one in published
            if _behind(table, one)
            # Of an hour whose mark is there and whose files are not, the log was cut.
            or (one.files and one.hour not in held)
        ]


def _behind(table: "DeltaTable", published: PublishedHour) -> bool:
    """Whether what the table holds of an hour is older than what was published: as every fence compares."""
    key = hour_key(published.hour)
    names = (key, f"{key}/users_version", f"{key}/attempt")
    held = [max(table.transaction_version(name) or 0, 0) for name in names]
    return held < [published.versions.get(name, 0) for name in names]


def _sorted_out(
    lake: Lake, table: str, missing: Sequence[PublishedHour]
) -> tuple[list[tuple[PublishedHour, list[WrittenFile]]], list[PublishedHour]]:
    """Of the hours that are missing those whose files are there, with these, and the others."""
    found = in_parallel(lambda one: _files(lake.location(table), one), missing)
    pairs = list(zip(missing, found, strict=True))
    return [(one, files) for one, files in pairs if files is not None], [
        one for one, files in pairs if files is None
    ]


def _files(location: str, published: PublishedHour) -> list[WrittenFile] | None:
    """The hour's files; None if one is gone or has not the rows that were published."""
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
        Conflict: it is no longer the newest.
    """
    held = delta.hours(table)
    for one, files in hours:
        if one.hour in held:
            history = {"rebuild": "as the ledger names it", "hour": hour_key(one.hour)}
            delta.replace(table, one.hour, files, one.versions, history, skip_age_check=True)
            return [one.hour]
    some = [RestoredHour(one.hour, files, one.versions) for one, files in hours[:_AT_ONCE]]
    restore(delta, table, some)
    return [one.hour for one in some]


def _landed(connection: psycopg.Connection, hour: datetime) -> bool:
    """Whether a run can make the hour again."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM ledger.file WHERE kind = 'landed' AND hour = %(hour)s)"
        " OR (SELECT rows = 0 FROM ledger.hour WHERE hour = %(hour)s)",
        {"hour": hour},
    ).fetchone()
    return bool(row and row[0])


def lines(table: str, done: Rebuilt, *, dry_run: bool) -> Iterator[str]:
    """What was or would be done, and what is left to do, for a person."""
    was, were = ("would be", "would be") if dry_run else ("was", "were")
    for one in done.torn:
        yield str(one)
    if done.anew:
        yield f"the whole log {was} set aside and built anew from the ledger"
    elif done.torn:
        yield f"the torn files {were} set aside: the rest of the log is whole"
    if done.restored:
        yield f"{len(done.restored):,} hours {were} committed again, with their files"
    if done.to_run:
        yield f"{len(done.to_run):,} hours lack files; what landed for them is there. Publish them again:"
        yield from (f"  antenna backfill --from {hour_key(hour)}" for hour in done.to_run)
    if done.lost:
        yield f"{len(done.lost):,} hours cannot be built again: their files are gone, and what landed is past the horizon:"
        yield from (f"  {hour_key(hour)}" for hour in done.lost)
    if not done:
        yield f"{table} holds every hour that the ledger has published"
