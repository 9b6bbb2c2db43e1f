"""Reading back what an attempt wrote: only rows that are on the disk are counted and summed up.

An engine computes the sums, so that with Spark on a cluster only the rows for PostgreSQL reach this process.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from antenna_assets.domain.counted import counted
from antenna_assets.domain.hours import EPOCH, MICROSECOND
from antenna_assets.domain.landing import REJECTED_FOLDER, landing_hour
from antenna_assets.domain.schema import LANDED_SCHEMA, LIVE_TABLES, REJECTED_SCHEMA, TIMESTAMP, ServingTable
from antenna_assets.engines.contract import Dataset, Engine
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.batch import AttemptFile, BatchContent
from antenna_assets.storage.attempt import LandingError, lake_errors
from antenna_assets.storage.files import walk
from antenna_assets.storage.paths import lake_path, name_within, sync

# Within the attempt's folder; a task that failed may have left files deeper down.
_ACCEPTED = re.compile(r"hour=[^/]+/[^/]+\.parquet")
_REFUSED = re.compile(rf"{REJECTED_FOLDER}/[^/]+\.parquet")

_LANDED_FILES = """SELECT file, kafka_partition, count(*) AS rows, CAST(sum(bytes) AS BIGINT) AS bytes,
    min(timestamp) AS earliest, max(timestamp) AS latest
FROM landed GROUP BY file, kafka_partition"""
_LANDED_COLUMNS = pa.schema(
    {
        "file": pa.string(),
        "kafka_partition": pa.int32(),
        "rows": pa.int64(),
        "bytes": pa.int64(),
        "earliest": TIMESTAMP,
        "latest": TIMESTAMP,
    }
)

_REJECTED_FILES = """SELECT file, reason, count(*) AS rows,
    CAST(coalesce(sum(octet_length(value)), 0) AS BIGINT) AS bytes
FROM rejected GROUP BY file, reason"""
_REJECTED_COLUMNS = pa.schema(
    {"file": pa.string(), "reason": pa.string(), "rows": pa.int64(), "bytes": pa.int64()}
)

# Integers, because DuckDB's functions of an instant's hour and minute take three times as long as this.
_LIVE = """SELECT unix_micros(timestamp) - unix_micros(timestamp) % {window} AS start, {key},
    CAST(sum(bytes) AS BIGINT) AS bytes
FROM landed GROUP BY 1, 2"""


@dataclass(frozen=True)
class WrittenAttempt:
    """Files of an attempt that are written and not yet read back.

    Attributes:
        folder: relative to the lake's root.
        begun: when the attempt began to write.
        messages: how many were read; each must be found again.
        value_bytes: the bytes of their values.
    """

    folder: str
    begun: datetime
    messages: int
    value_bytes: int = 0


def read_back(
    written: WrittenAttempt, engine: Engine, *, lake: str, live: Mapping[str, timedelta]
) -> BatchContent:
    """Sync the files of an attempt, and return them with their sums.

    Args:
        live: the live tables to sum up for, each with the length of its windows.

    Raises:
        LandingError: the files do not hold exactly the messages that were read.
        LakeUnwritable: the lake's disk is full, or fails.
    """
    with lake_errors(lake):
        landed = _landed(written, engine, lake, live)
    found = landed.rows + sum(landed.rejections.values())
    if found != written.messages:
        raise LandingError(
            f"read {counted(written.messages, 'message')} and found {counted(found, 'row')} in "
            f"{written.folder}: nothing was committed"
        )
    return landed


def _landed(
    written: WrittenAttempt, engine: Engine, lake: str, live: Mapping[str, timedelta]
) -> BatchContent:
    folder = lake_path(lake) / written.folder
    commit_point("stream.land.before_sync")
    found = list(walk(folder))
    sync([folder.parent, folder, *(one.path for one in found)])
    commit_point("stream.land.after_sync")
    sizes = {name_within(folder, one.path): one.size for one in found}
    accepted = [f"{folder}/{file}" for file in sorted(sizes) if _ACCEPTED.fullmatch(file)]
    refused = [f"{folder}/{file}" for file in sorted(sizes) if _REFUSED.fullmatch(file)]
    landed = {"landed": Dataset(accepted, LANDED_SCHEMA, file_column="file")}
    rejected = {"rejected": Dataset(refused, REJECTED_SCHEMA, file_column="file")}
    # An attempt without accepted messages, or without rejected ones, has no files of that kind.
    accepted_sums = engine.read(_LANDED_FILES, landed, _LANDED_COLUMNS).to_pylist() if accepted else []
    rejected_sums = engine.read(_REJECTED_FILES, rejected, _REJECTED_COLUMNS).to_pylist() if refused else []
    event_times: dict[int, datetime] = {}
    for row in accepted_sums:
        partition = row["kafka_partition"]
        event_times[partition] = max(row["latest"], event_times.get(partition, row["latest"]))
    rejections: Counter[str] = Counter()
    for row in rejected_sums:
        rejections[row["reason"]] += row["rows"]
    return BatchContent(
        files=[*_files(written.folder, accepted_sums, sizes), *_files(written.folder, rejected_sums, sizes)],
        rejections=rejections,
        event_times=event_times,
        first_event_time=min((row["earliest"] for row in accepted_sums), default=None),
        live={
            name: _live_rows(engine, landed, LIVE_TABLES[name], window) if accepted else []
            for name, window in live.items()
        },
        begun=written.begun,
        lake=lake,
    )


def _files(folder: str, parts: Iterable[dict[str, Any]], sizes: Mapping[str, int]) -> Iterator[AttemptFile]:
    """Each file once, sorted by name, from the sums of its parts."""
    sums: dict[str, tuple[int, int]] = {}
    for part in parts:
        rows, bytes_ = sums.get(part["file"], (0, 0))
        sums[part["file"]] = (rows + part["rows"], bytes_ + part["bytes"])
    for file, (rows, bytes_) in sorted(sums.items()):
        path = f"{folder}/{file}"
        kind = file.split("/")[0]
        hour = None if kind == REJECTED_FOLDER else landing_hour(kind.removeprefix("hour="))
        yield AttemptFile(path, hour, rows, bytes_, sizes[file])


def _live_rows(
    engine: Engine, landed: Mapping[str, Dataset], table: ServingTable, window: timedelta
) -> list[tuple[datetime, str, int]]:
    columns = pa.schema({"start": pa.int64(), table.key: pa.string(), "bytes": pa.int64()})
    sql = _LIVE.format(window=window // MICROSECOND, key=table.key)
    found = engine.read(sql, landed, columns)
    # Few windows, many rows: a new `datetime` for each row would cost more than the sums.
    instants = {micros: EPOCH + micros * MICROSECOND for micros in pc.unique(found["start"]).to_pylist()}
    dates = map(instants.__getitem__, found["start"].to_pylist())
    return list(zip(dates, found[table.key].to_pylist(), found["bytes"].to_pylist(), strict=True))
