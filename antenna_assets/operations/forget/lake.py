"""A user's id in the lake: which files have it, and writing these anew without it.

Files that the ledger or a table names are replaced by others, never changed.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

from antenna_assets.domain.hours import EPOCH, hour_key
from antenna_assets.domain.landing import REJECTED_FOLDER
from antenna_assets.domain.schema import HOUR_PARTITION, LAKE_TABLES, LANDED_SCHEMA
from antenna_assets.engines.contract import Dataset, Engine
from antenna_assets.engines.output import new_folder
from antenna_assets.errors import AntennaError, Superseded
from antenna_assets.ledger.certificate import publications
from antenna_assets.ledger.publications import (
    Publication,
    begin_publication,
    end_superseded,
    record_publication,
)
from antenna_assets.operations.forget.identity import IDENTITY
from antenna_assets.operations.forget.replace_text import Search
from antenna_assets.operations.sweep.orphans import LANDING
from antenna_assets.publishing.delta_files import LOG, recent_files
from antenna_assets.publishing.digests import files_manifest
from antenna_assets.publishing.lake import SCRATCH, Lake
from antenna_assets.storage.attempt import attempt_folder
from antenna_assets.storage.files import everything_under, remove_files, remove_if_empty
from antenna_assets.storage.parquet_file import read_table
from antenna_assets.storage.paths import file_errors, lake_path, name_within, reason_of
from antenna_assets.verify.parquet import Parquet

if TYPE_CHECKING:
    pass

RUN = "forget-user"
"""In place of a run's id, in publications that forgetting a user made."""


_DROPPED = b"[dropped by antenna forget-user]"
_REWRITTEN = "rewritten when a user was forgotten"
_DROPPED_FOR = "dropped when a user was forgotten: "
SETTLED_SECONDS = 10.0
"""How long a search waits for the files of batches that are being written."""

# Files in one question to DuckDB.
_AT_ONCE = 1_000


@dataclass(frozen=True)
class Swap:
    """A landed or rejected file, and the one in its place; paths are relative to the lake's root."""

    old: str
    new: str
    size: int
    dropped: int = 0


@dataclass(frozen=True)
class Unjudged:
    """A rejected message of which nobody can say whether a user is in it, and why."""

    partition: int
    offset: int
    reason: str
    why: str


class Files:
    """What is known of one id in the files of a lake. No file ever changes, so each is read once.

    Attributes:
        changed: when each file was written that was there at the last look everywhere, by the clock of the files.
    """

    def __init__(self, lake: Lake, user: str, search: Search) -> None:
        self._lake = lake
        self._root = lake_path(lake.root)
        self._user = user
        self._search = search
        self.changed: dict[str, datetime] = {}
        self._rows: dict[str, int] = {}
        self._unjudged: dict[str, list[Unjudged]] = {}

    def everywhere(self, connection: psycopg.Connection) -> dict[str, int]:
        """The files anywhere in the lake that have the id, and in how many rows; paths are relative to its root.

        Files that cannot be read are among them, without rows: who knows what they hold. They are of an attempt that is being
        written, or was killed.

        Raises:
            AntennaError: a file cannot be read that the ledger or a table names.
        """
        self.changed = {}
        for folder in (LANDING, SCRATCH, *LAKE_TABLES):
            for one in everything_under(self._root / folder):
                if one.path.suffix == ".parquet" and LOG not in one.path.parts:
                    self.changed[name_within(self._root, one.path)] = one.changed
        unread = self._settled(self._read(sorted(self.changed)))
        paths = sorted(self.changed)
        if unread:
            named = self._named(connection, list(unread))
            for path, reason in sorted(unread.items()):
                if path in named:
                    raise AntennaError(
                        f"{path} cannot be searched: {reason}; restore the file, and forget the user again"
                    )
        return {path: self._rows.get(path, 0) for path in paths if path in unread or self._rows.get(path)}

    def _settled(self, unread: dict[str, str]) -> dict[str, str]:
        """What is still unread once the batches of a stream that were being written are written, or never will be.

        A file may be moved within its attempt's folder meanwhile. Batches that begin now are not waited for: whatever they
        land came later than the look.
        """
        end = time.monotonic() + SETTLED_SECONDS
        while time.monotonic() < end:
            attempts = {path.split("/")[1] for path in unread if path.startswith(f"{LANDING}/")}
            if not attempts:
                break
            time.sleep(0.2)
            again = []
            for attempt in sorted(attempts):
                for one in everything_under(self._root / LANDING / attempt):
                    if one.path.suffix == ".parquet":
                        again.append(name_within(self._root, one.path))
                        self.changed[again[-1]] = one.changed
            unread = {path: why for path, why in unread.items() if not path.startswith(f"{LANDING}/")}
            unread |= self._read(again)
        return {path: why for path, why in unread.items() if (self._root / path).exists()}

    def of(self, paths: Sequence[str]) -> list[str]:
        """Those of the files that the ledger or a table names that have the id.

        Raises:
            AntennaError: a file cannot be read.
        """
        for path, reason in self._read(paths).items():
            raise AntennaError(
                f"{path} cannot be searched: {reason}; restore the file, and forget the user again"
            )
        return [path for path in paths if self._rows.get(path)]

    def unjudged(self, paths: Sequence[str]) -> list[Unjudged]:
        """The messages in rejected files that cannot be judged."""
        return [one for path in paths for one in self._unjudged.get(path, ())]

    def _named(self, connection: psycopg.Connection, paths: list[str]) -> set[str]:
        rows = connection.execute("SELECT path FROM ledger.file WHERE path = ANY(%s)", [paths]).fetchall()
        in_tables = {f"{table}/{path}" for table in LAKE_TABLES for path in self._lake.paths(table)}
        return {path for (path,) in rows} | in_tables

    def _read(self, paths: Sequence[str]) -> dict[str, str]:
        """Read the files that were not read yet; returns those that cannot be read or have gone, with the reason."""
        new = [path for path in paths if path not in self._rows]
        unread: dict[str, str] = {}
        events: list[str] = []
        for path in new:
            try:
                columns = set(self._columns(path))
                if "value" in columns:
                    self._read_messages(path)
                elif "id" in columns:
                    events.append(path)
                else:
                    self._rows[path] = 0
            except file_errors(pa.ArrowException) as error:
                unread[path] = reason_of(error)
        with closing(Parquet()) as parquet:
            for start in range(0, len(events), _AT_ONCE):
                unread |= self._read_events(parquet, events[start : start + _AT_ONCE])
        return unread

    def _columns(self, path: str) -> list[str]:
        with (self._root / path).open("rb") as file:
            return pq.read_schema(file).names

    def _read_events(self, parquet: Parquet, paths: Sequence[str]) -> dict[str, str]:
        try:
            self._rows |= self._count(parquet, paths)
        except parquet.errors as error:
            if len(paths) == 1:
                return {paths[0]: reason_of(error)}
            unread: dict[str, str] = {}
            for path in paths:
                unread |= self._read_events(parquet, [path])
            return unread
        return {}

    def _count(self, parquet: Parquet, paths: Sequence[str]) -> dict[str, int]:
        rows = parquet.rows(
            "SELECT filename, count(*) FROM read_parquet($1, filename = true, hive_partitioning = false)"
            " WHERE id = $2 GROUP BY filename",
            [str(self._root / path) for path in paths],
            self._user,
        )
        return dict.fromkeys(paths, 0) | {
            path.removeprefix(f"{self._lake.root}/"): count for path, count in rows
        }

    def _read_messages(self, path: str) -> None:
        table = read_table(self._root / path)
        rows, unjudged = 0, []
        for row in table.to_pylist():
            value = row["value"]
            if value is None or value == _DROPPED:
                continue
            judged = self._search.judge(value)
            detail = row.get("detail") or ""
            own = detail.startswith((_REWRITTEN, _DROPPED_FOR))
            rows += judged.has or (not own and self._search.judge(detail.encode()).has)
            if judged.why_not is not None:
                partition, offset = (
                    row.get(f"kafka_{name}", row.get(name)) for name in ("partition", "offset")
                )
                unjudged.append(Unjudged(partition, offset, row.get("reason", ""), judged.why_not))
        self._rows[path], self._unjudged[path] = rows, unjudged


def write_without(
    lake: Lake, engine: Engine, path: str, search: Search, identity_file: str, *, drop: bool
) -> Swap:
    """Write a landed or rejected file anew, with the pseudonym, into a folder that nobody else uses.

    Args:
        drop: messages that cannot be judged give way to a text that says so.
    """
    root = lake_path(lake.root)
    _, attempt, *rest = path.removesuffix(".parquet").split("/")
    source = root / path
    target = root / "/".join([attempt_folder(int(attempt.split("-")[0])), *rest, "part-0.parquet"])
    dropped = 0
    if is_rejected(path):
        table = read_table(source)
        changed, dropped = _judged(table, search, drop=drop)
        with new_folder(str(target.parent)), target.open("wb") as file:
            pq.write_table(changed, file, compression="zstd")
    else:
        inputs = {
            "usage": Dataset([str(source)], LANDED_SCHEMA),
            "identity": Dataset([identity_file], IDENTITY),
        }
        (written,) = engine.write(_select(LANDED_SCHEMA), inputs, LANDED_SCHEMA, str(target.parent))
        if written.path != str(target):
            raise AntennaError(f"expected the engine to write {target}, found {written.path}")
    return Swap(path, name_within(root, target), target.stat().st_size, dropped)


def is_rejected(path: str) -> bool:
    """Whether a file of the lake holds rejected messages."""
    return path.startswith(f"{LANDING}/") and path.split("/")[2] == REJECTED_FOLDER


def _judged(table: pa.Table, search: Search, *, drop: bool) -> tuple[pa.Table, int]:
    """Rejected messages without the user, and how many were dropped. A row keeps its place and its reason."""
    values, details, dropped = [], [], 0
    for value, detail in zip(table["value"].to_pylist(), table["detail"].to_pylist(), strict=True):
        if value is None or value == _DROPPED:
            values.append(value)
            details.append(detail)
            continue
        judged = search.judge(value)
        # What is left is looked at once more: a message may be both.
        why_not = search.judge(judged.value).why_not
        if drop and why_not is not None:
            value, detail = _DROPPED, _DROPPED_FOR + why_not
            dropped += 1
        elif judged.has or (detail is not None and search.judge(detail.encode()).has):
            # The detail quotes the message, perhaps a part of the id.
            value, detail = judged.value, _REWRITTEN
        values.append(value)
        details.append(detail)
    for name, column in (
        ("value", pa.array(values, pa.binary())),
        ("detail", pa.array(details, pa.string())),
    ):
        index = table.schema.get_field_index(name)
        table = table.set_column(index, table.schema.field(index), column)
    return table, dropped


def replace_hours(
    connection: psycopg.Connection,
    lake: Lake,
    engine: Engine,
    hour: datetime,
    identity_file: str,
) -> None:
    """Replace an hour of both tables of the lake by the same rows with the pseudonym, at the generation that it has.

    Raises:
        Superseded: a run published a newer generation meanwhile; nothing was changed.
    """
    for table, schema in LAKE_TABLES.items():
        if not lake.hour(table, hour).files:
            continue
        # Before the files are read that are written anew: a run that began earlier does not bring the user back.
        attempt = begin_publication(connection, table, hour, None)
        snapshot = lake.hour(table, hour)
        if snapshot.generation is None:
            raise AntennaError(f"{table} has lost {hour_key(hour)} meanwhile; forget the user again")
        inputs = {"usage": Dataset(snapshot.files, schema), "identity": Dataset([identity_file], IDENTITY)}
        folder = lake.new_folder(table, hour, snapshot.generation)
        files = engine.write(_select(schema), inputs, schema, folder)
        try:
            version = lake.replace_hour(
                table,
                hour,
                snapshot.generation,
                files,
                tags=snapshot.tags,
                metadata={"reason": RUN},
                attempt=attempt,
            )
        except Superseded:
            end_superseded(connection, table, hour, attempt)
            raise
        # A run that died before it recorded its files, or those of other users, is run again with what landed.
        before = publications(connection, hour, snapshot.generation).get(table)
        if before is None or before["users_version"] != snapshot.tags.get("users_version"):
            continue
        content = {**(before["content"] or {}), "files": files_manifest(lake.location(table), files)}
        with connection.transaction():
            record_publication(
                connection,
                Publication(
                    table,
                    hour,
                    snapshot.generation,
                    before["rows"],
                    before["bytes"],
                    before["users_version"],
                    RUN,
                    version,
                    content,
                    attempt,
                    snapshot.table_id,
                ),
            )


def _select(schema: pa.Schema) -> str:
    """The rows of `usage`, with the pseudonym where they are of the user. An unknown user gets no name and no e-mail."""
    changed = {
        "id": "coalesce(identity.new_id, usage.id) AS id",
        "name": "CASE WHEN usage.name IS NULL THEN NULL ELSE coalesce(identity.new_name, usage.name) END AS name",
        "email": "CASE WHEN usage.email IS NULL THEN NULL ELSE coalesce(identity.new_email, usage.email) END AS email",
    }
    columns = ", ".join(changed.get(name, f"usage.{name}") for name in schema.names)
    return f"SELECT {columns} FROM usage LEFT JOIN identity ON usage.id = identity.id"  # noqa: S608


def hours_with(lake: Lake, users: Sequence[str]) -> set[datetime]:
    """The hours of which the newest version of a table has one of these users."""
    found = set()
    with closing(Parquet()) as parquet:
        for table in LAKE_TABLES:
            paths = [f"{lake.root}/{table}/{path}" for path in sorted(lake.paths(table))]
            rows = parquet.rows(
                "SELECT DISTINCT filename FROM read_parquet($1, filename = true, hive_partitioning = false)"
                " WHERE id IN (SELECT unnest($2))",
                paths,
                list(users),
            )
            for (path,) in rows:
                values = dict(
                    part.split("=") for part in path.removeprefix(lake.root).split("/") if "=" in part
                )
                year, month, day, hour = (int(values[name]) for name in HOUR_PARTITION)
                found.add(datetime(year, month, day, hour, tzinfo=UTC))
    return found


def named_after(connection: psycopg.Connection, batch: int) -> list[str]:
    """The files that the ledger names of the batches after this one."""
    rows = connection.execute("SELECT path FROM ledger.file WHERE batch > %s ORDER BY batch, path", [batch])
    return [path for (path,) in rows.fetchall()]


def remove_replaced(
    connection: psycopg.Connection, lake: Lake, found: Mapping[str, datetime], *, before: datetime
) -> None:
    """Remove those of the files with the user that nothing needs any more.

    In landing these are files that were replaced or are past their time: another may be of a stream's batch under way. In
    the tables, files that the newest version does not name: an older version cannot be read any more for the hours that are
    changed. Attempts of runs there, and what lies in scratch, go if they are older than the fence, behind which none of
    their runs commits.

    Args:
        found: the files with the user, and when each was written.
        before: an instant by the same clock, before the fence was raised.
    """
    root = lake_path(lake.root)
    replaced = {path for (path,) in connection.execute("SELECT path FROM ledger.replaced_file").fetchall()}
    expired = connection.execute(
        "SELECT path FROM ledger.expired_file WHERE path = ANY(%s)", [list(found)]
    ).fetchall()
    gone = replaced | {path for (path,) in expired}
    current = {f"{table}/{path}" for table in LAKE_TABLES for path in lake.paths(table)}
    named = {f"{table}/{path}" for table in LAKE_TABLES for path in recent_files(root / table, EPOCH)}
    for path, changed in found.items():
        if path.split("/")[0] != LANDING and path not in current and (path in named or changed < before):
            gone.add(path)
    remove_files(root / path for path in sorted(gone))
    for path in sorted(gone):
        folder = (root / path).parent
        remove_if_empty(folder)
        if path.split("/")[0] == LANDING:
            remove_if_empty(folder.parent)
    connection.execute("DELETE FROM ledger.replaced_file WHERE path = ANY(%s)", [list(replaced)])
