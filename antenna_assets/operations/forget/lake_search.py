"""The search for a user's id in the files of the lake: which files hold it, and in how many rows."""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

from antenna_assets.domain.landing import REJECTED_FOLDER
from antenna_assets.domain.schema import HOUR_PARTITION, LAKE_TABLES
from antenna_assets.errors import AntennaError
from antenna_assets.operations.forget.replace_text import Search
from antenna_assets.operations.sweep.orphans import LANDING
from antenna_assets.publishing.delta_files import LOG
from antenna_assets.publishing.lake import SCRATCH, Lake
from antenna_assets.storage.files import walk
from antenna_assets.storage.parquet_file import read_table
from antenna_assets.storage.paths import file_errors, lake_path, name_within, reason_of
from antenna_assets.verify.parquet import Parquet

DROPPED = b"[dropped by antenna forget-user]"
"""The value of a rejected message that could not be judged and was dropped."""

REWRITTEN = "rewritten when a user was forgotten"
DROPPED_FOR = "dropped when a user was forgotten: "
"""The detail of a rejected message that was rewritten, and the beginning of that of a dropped one."""

SETTLED_SECONDS = 10.0
"""How long a search waits for the files of batches that are being written."""

# Files in one query to DuckDB.
_AT_ONCE = 1_000


@dataclass(frozen=True)
class Unjudged:
    """A rejected message that may hold the id.

    Attributes:
        reason: why it was rejected.
        unclear: why it cannot be judged.
    """

    partition: int
    offset: int
    reason: str
    unclear: str


class LakeSearch:
    """The search for one id in the files of a lake. Files never change, so each is read once.

    Attributes:
        changed: when each file of the last `everywhere` was written, by the clock of the files.
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
        """Return all files in the lake that hold the id, with the number of rows; paths are relative to its
        root.

        Files that cannot be read are among them, with 0 rows, since they may hold it: an attempt is writing
            them, or was
        killed.

        Raises:
            AntennaError: a file that the ledger or a table references cannot be read.
        """
        self.changed = {}
        for folder in (LANDING, SCRATCH, *LAKE_TABLES):
            for one in walk(self._root / folder):
                if one.path.suffix == ".parquet" and LOG not in one.path.parts:
                    self.changed[name_within(self._root, one.path)] = one.changed
        unread = self._settled(self._read(sorted(self.changed)))
        paths = sorted(self.changed)
        if unread:
            referenced = self._referenced(connection, list(unread))
            for path, reason in sorted(unread.items()):
                if path in referenced:
                    raise AntennaError(
                        f"{path} cannot be searched: {reason}; restore the file, and forget the user again"
                    )
        return {path: self._rows.get(path, 0) for path in paths if path in unread or self._rows.get(path)}

    def _settled(self, unread: dict[str, str]) -> dict[str, str]:
        """Wait for batches that the stream is writing, and return the files that are still unreadable.

        A file may move within its attempt's folder meanwhile. Batches that begin now are not waited for: what
        they land is later than the search.
        """
        end = time.monotonic() + SETTLED_SECONDS
        while time.monotonic() < end:
            attempts = {path.split("/")[1] for path in unread if path.startswith(f"{LANDING}/")}
            if not attempts:
                break
            time.sleep(0.2)
            again = []
            for attempt in sorted(attempts):
                for one in walk(self._root / LANDING / attempt):
                    if one.path.suffix == ".parquet":
                        again.append(name_within(self._root, one.path))
                        self.changed[again[-1]] = one.changed
            unread = {path: why for path, why in unread.items() if not path.startswith(f"{LANDING}/")}
            unread |= self._read(again)
        return {path: why for path, why in unread.items() if (self._root / path).exists()}

    def of(self, paths: Sequence[str]) -> list[str]:
        """Return those of the files, which the ledger or a table references, that hold the id.

        Raises:
            AntennaError: a file cannot be read.
        """
        for path, reason in self._read(paths).items():
            raise AntennaError(
                f"{path} cannot be searched: {reason}; restore the file, and forget the user again"
            )
        return [path for path in paths if self._rows.get(path)]

    def unjudged(self, paths: Sequence[str]) -> list[Unjudged]:
        """Return the messages in these files that cannot be judged."""
        return [one for path in paths for one in self._unjudged.get(path, ())]

    def _referenced(self, connection: psycopg.Connection, paths: list[str]) -> set[str]:
        rows = connection.execute("SELECT path FROM ledger.file WHERE path = ANY(%s)", [paths]).fetchall()
        in_tables = {f"{table}/{path}" for table in LAKE_TABLES for path in self._lake.paths(table)}
        return {path for (path,) in rows} | in_tables

    def _read(self, paths: Sequence[str]) -> dict[str, str]:
        """Read the files that were not read yet; returns those that are unreadable or gone, with the
        reason."""
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
            if value is None or value == DROPPED:
                continue
            judged = self._search.judge(value)
            detail = row.get("detail") or ""
            own = detail.startswith((REWRITTEN, DROPPED_FOR))
            rows += judged.found or (not own and self._search.judge(detail.encode()).found)
            if judged.unclear is not None:
                partition, offset = (
                    row.get(f"kafka_{name}", row.get(name)) for name in ("partition", "offset")
                )
                unjudged.append(Unjudged(partition, offset, row.get("reason", ""), judged.unclear))
        self._rows[path], self._unjudged[path] = rows, unjudged


def is_rejected(path: str) -> bool:
    """Whether a file of the lake holds rejected messages."""
    return path.startswith(f"{LANDING}/") and path.split("/")[2] == REJECTED_FOLDER


def hours_with(lake: Lake, users: Sequence[str]) -> set[datetime]:
    """Return the hours in which the newest version of a table holds one of these users."""
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


def files_after(connection: psycopg.Connection, batch: int) -> list[str]:
    """Return the files of the batches after this one, by the ledger."""
    rows = connection.execute("SELECT path FROM ledger.file WHERE batch > %s ORDER BY batch, path", [batch])
    return [path for (path,) in rows.fetchall()]
