"""What the state machine of row 19 finds: the ledger and the tables by plain SQL, files by PyArrow, Delta's log as JSON.

It shares no code with the pipeline; what must hold of it is in `state_invariants.py`.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

import psycopg
import pyarrow.parquet as pq
from psycopg.rows import namedtuple_row

from antenna_assets_tests.faults.state_model import Coordinates, Event

LIVE = ("bytes_agg_antenna", "bytes_agg_user", "bytes_agg_app")
HOURLY = ("bytes_agg_antenna_1h", "bytes_agg_user_1h", "bytes_agg_app_1h", "users_over_quota_1h")
LAKE = ("raw_parquet", "enriched_usage")

_QUERIES = {
    "offsets": "SELECT partition, from_offset, until_offset, batch FROM ledger.batch_offset ORDER BY 1, 2",
    "batches": "SELECT batch, kind, rows, bytes, quarantined FROM ledger.batch ORDER BY batch",
    "files": "SELECT path, kind, hour, rows, bytes, size, batch, (SELECT array_agg(number ORDER BY number)"
    " FROM unnest(batches) AS part, generate_series(lower(part), upper(part) - 1) AS number) AS merged"
    " FROM ledger.file ORDER BY path",
    "rejections": "SELECT batch, reason, rows FROM ledger.rejection ORDER BY 1, 2",
    "replayed": "SELECT partition, kafka_offset, reason, batch FROM ledger.replayed ORDER BY 1, 2",
    "hours": "SELECT hour, rows, bytes, closed_at, generation FROM ledger.hour ORDER BY hour",
    "generations": "SELECT hour, generation, up_to_batch, rows, bytes FROM ledger.hour_generation ORDER BY 1, 2",
    "publications": "SELECT asset, hour, generation, rows, bytes, users_version, lake_version"
    " FROM ledger.publication ORDER BY number",
    "heads": "SELECT asset, hour, generation, users_version FROM ledger.publication_head",
    **{name: f"SELECT * FROM {name}" for name in (*LIVE, *HOURLY)},  # noqa: S608
}


class Facts(dict[str, list]):
    """The rows of every table, by its name here, in one snapshot."""

    @classmethod
    def read(cls, connection: psycopg.Connection) -> "Facts":
        with connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            with connection.cursor(row_factory=namedtuple_row) as cursor:
                return cls(
                    {name: cursor.execute(query.encode()).fetchall() for name, query in _QUERIES.items()}
                )

    def consumed(self) -> dict[Coordinates, int]:
        """The batch that read each message."""
        return {
            (of.partition, offset): of.batch
            for of in self["offsets"]
            for offset in range(of.from_offset, of.until_offset)
        }

    def replays(self) -> dict[Coordinates, int]:
        """The batch that replayed each message."""
        return {(row.partition, row.kafka_offset): row.batch for row in self["replayed"]}

    def closed(self) -> list[datetime]:
        return [row.hour for row in self["hours"] if row.closed_at is not None]

    def of_hour(self, table: str, hour: datetime) -> list[tuple]:
        """The rows of an hourly table in an hour, without their date."""
        return [tuple(row)[1:] for row in self[table] if row.date == hour]


@dataclass
class Files:
    """Parquet files by their path. A file never changes, so each is read once; `forget` reads them anew."""

    _read: dict[Path, list[dict]] = field(default_factory=dict)

    def rows(self, path: Path) -> list[dict]:
        if path not in self._read:
            self._read[path] = pq.ParquetFile(path).read().to_pylist()
        assert path.is_file(), f"{path} is gone"
        return self._read[path]

    def forget(self) -> None:
        self._read.clear()


def event_of(row: dict) -> tuple[Coordinates, Event]:
    """The event of a row, under its coordinates."""
    place = (row["kafka_partition"], row["kafka_offset"])
    return place, Event(row["timestamp"], row["app"], row["id"], row["antenna_id"], row["bytes"])


@dataclass(frozen=True)
class HourCommit:
    """An hour as a commit of a Delta table has it."""

    version: int
    hour: datetime
    generation: int
    users_version: int | None
    files: list[Path]


class DeltaLog:
    """A Delta table by its log alone, commit after commit."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._next = 0
        self._files: dict[Path, datetime] = {}

    def new_commits(self) -> Iterator[HourCommit]:
        """The commits since the last call."""
        while (path := self._folder / "_delta_log" / f"{self._next:020}.json").is_file():
            versions: dict[str, int] = {}
            for line in path.read_text(encoding="utf-8").splitlines():
                ((name, action),) = json.loads(line).items()
                if name == "add":
                    values = (
                        int(action["partitionValues"][part]) for part in ("year", "month", "day", "hour")
                    )
                    self._files[self._folder / unquote(action["path"])] = datetime(*values, tzinfo=UTC)
                elif name == "remove":
                    del self._files[self._folder / unquote(action["path"])]
                elif name == "txn":
                    versions[action["appId"]] = action["version"]
            for key, generation in versions.items():
                if "/" not in key:
                    hour = datetime.strptime(key, "%Y-%m-%d-%H:%M").replace(tzinfo=UTC)
                    files = [file for file, of in self._files.items() if of == hour]
                    users_version = versions.get(f"{key}/users_version")
                    yield HourCommit(self._next, hour, generation, users_version, files)
            self._next += 1

    @property
    def files(self) -> set[Path]:
        """The files of the newest version."""
        return set(self._files)
