"""Writing a micro-batch as parquet files: accepted events by hour, rejected messages with their reasons.

An attempt writes into a folder of its own and overwrites nothing. Its files count for nothing until `commit.py` has
named them in the ledger.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING
from uuid import uuid4

from antenna_assets.crash import commit_point, task_point
from antenna_assets.disk import WHAT_TO_DO, free, is_full, unwritable
from antenna_assets.errors import AntennaError
from antenna_assets.hours import landing_hour
from antenna_assets.schema import LANDED, LIVE_TABLES, REJECTED
from antenna_assets.streaming.landed import Landed, LandedFile
from antenna_assets.streaming.parse import parsed

if TYPE_CHECKING:
    import duckdb
    from pyspark.sql import DataFrame


class LandingError(AntennaError):
    """Nothing could be landed; the message says where and what to do."""


class LakeUnwritable(LandingError):
    """The lake cannot be written now: its disk is full, or gone. A stream that ran before waits for it."""


_PROBE_BYTES = 2**16


def attempt_folder(batch: int) -> str:
    """A folder, relative to the lake's root, that no other attempt at this batch will ever use."""
    return f"landing/{batch}-{uuid4().hex[:12]}"


class Attempt:
    """A context manager with a folder of its own, which is removed if the block fails before `keep` was called.

    Else each retry on a full disk would leave a part of a micro-batch there.

    Args:
        lake: the lake's root.
        batch: the number that the batch will probably get.
    """

    def __init__(self, lake: str, batch: int) -> None:
        self.folder = attempt_folder(batch)
        self._path = Path(lake) / self.folder
        self._kept = False

    def keep(self) -> None:
        """From now on the ledger may name the files: a COMMIT that fails may have succeeded."""
        self._kept = True

    def __enter__(self) -> "Attempt":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if kind is not None and not self._kept:
            # What cannot be removed now counts for nothing, and goes with the next sweep.
            shutil.rmtree(self._path, ignore_errors=True)


def require_writable(lake: str) -> None:
    """Stop early if nothing can be written under the lake's root.

    Raises:
        LandingError: the lake is no folder.
        LakeUnwritable: the folder cannot be made or written.
    """
    if "://" in lake:
        raise LandingError(
            f"expected a folder in ANTENNA_LAKE, found {lake}: object stores are not supported yet"
        )
    probe = Path(lake) / "landing" / f".probe-{uuid4().hex}"
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        try:
            # On a full disk a file can still be made, but holds nothing.
            probe.write_bytes(bytes(_PROBE_BYTES))
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        advice = "" if is_full(error) else "; make it writable"
        raise LakeUnwritable(
            f"{unwritable('the lake', lake, error)}{advice}, or point ANTENNA_LAKE elsewhere"
        ) from error


def land(
    messages: "DataFrame", *, lake: str, folder: str, clock: datetime, oldest: datetime, window: timedelta
) -> Landed:
    """Parse a micro-batch of Kafka messages and write it below `folder`; returns the files and their sums.

    Args:
        clock: the wall clock of the verdicts.
        oldest: events before this instant are too old.
        window: length of a live window.

    Raises:
        LandingError: the files do not hold exactly the messages that were read.
        LakeUnwritable: the lake's disk is full, or fails.
    """
    root = Path(lake)
    with _lake_watched(lake):
        return _land(messages, root, folder=folder, clock=clock, oldest=oldest, window=window)


@contextmanager
def _lake_watched(lake: str) -> Iterator[None]:
    import duckdb

    try:
        yield
    except (OSError, duckdb.IOException) as error:
        if isinstance(error, OSError):
            raise LakeUnwritable(unwritable("the lake", lake, error)) from error
        raise LakeUnwritable(f"the lake {lake} cannot be read back: {error}") from error
    except Exception as error:
        if not is_full(error):
            raise
        # Java says of a file only that there is no space for it; Spark's temporary files may lie elsewhere.
        scratch = tempfile.gettempdir()
        raise LakeUnwritable(
            f"no space left on the disk of the lake {lake} ({free(lake)}) or of Spark's temporary files in {scratch} "
            f"({free(scratch)}); {WHAT_TO_DO}"
        ) from error


def _land(
    messages: "DataFrame", root: Path, *, folder: str, clock: datetime, oldest: datetime, window: timedelta
) -> Landed:
    from pyspark.sql import Observation
    from pyspark.sql import functions as F

    begun = datetime.now(UTC)
    # Counted while the messages are parsed, before anything is written: an action of its own costs more than a small batch.
    counted = Observation()
    # Both writes below need the verdicts: parse once, and keep the raw bytes of those alone that are rejected.
    verdicts = (
        parsed(messages, clock=clock, oldest=oldest)
        .withColumn("value", F.expr("CASE WHEN reason IS NOT NULL THEN value END"))
        .observe(counted, F.count("*").alias("messages"), F.count("reason").alias("rejected"))
        .persist()
    )
    try:
        accepted = verdicts.where("reason IS NULL").select(*LANDED.names, "hour")
        commit_point("stream.land.before_write")
        with task_point("stream.jvm.task", messages.sparkSession.sparkContext):
            accepted.write.partitionBy("hour").parquet(str(root / folder))
        if counted.get["rejected"]:
            rejected = verdicts.where("reason IS NOT NULL").select(*REJECTED.names)
            rejected.coalesce(1).write.parquet(str(root / folder / "rejected"))
    finally:
        verdicts.unpersist()
    landed = replace(_landed(root, folder, window), begun=begun)
    written = landed.rows + sum(landed.rejections.values())
    if written != counted.get["messages"]:
        raise LandingError(
            f"read {counted.get['messages']} messages and found {written} rows in {folder}: nothing was committed"
        )
    return landed


def _landed(root: Path, folder: str, window: timedelta) -> Landed:
    """Read back what an attempt wrote: only rows that are on disk are counted."""
    import duckdb

    landed_paths = sorted((root / folder).glob("hour=*/*.parquet"))
    rejected_paths = sorted((root / folder / "rejected").glob("*.parquet"))
    commit_point("stream.land.before_sync")
    _sync(root / folder)
    commit_point("stream.land.after_sync")
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        files = [
            *_measure(connection, root, landed_paths),
            *_measure_rejected(connection, root, rejected_paths),
        ]
        rejections = dict(
            _rows(connection, "SELECT reason, count(*) FROM read_parquet(?) GROUP BY reason", rejected_paths)
        )
        event_times = dict(
            _rows(
                connection,
                "SELECT kafka_partition, max(timestamp) FROM read_parquet(?) GROUP BY kafka_partition",
                landed_paths,
            )
        )
        first = _rows(connection, "SELECT min(timestamp) FROM read_parquet(?)", landed_paths)
        live = {
            table.name: _rows(
                connection,
                f"SELECT time_bucket(to_seconds({int(window.total_seconds())}), timestamp), {table.key},"  # noqa: S608
                " CAST(sum(bytes) AS BIGINT) FROM read_parquet(?) GROUP BY ALL",
                landed_paths,
            )
            for table in LIVE_TABLES.values()
        }
    return Landed(
        files=files,
        rejections=rejections,
        event_times=event_times,
        first_event_time=first[0][0] if first else None,
        live=live,
    )


def _rows(connection: "duckdb.DuckDBPyConnection", query: str, paths: list[Path]) -> list[tuple]:
    # DuckDB refuses an empty list of files.
    return connection.execute(query, [[str(path) for path in paths]]).fetchall() if paths else []


def _measure(connection: "duckdb.DuckDBPyConnection", root: Path, paths: list[Path]) -> Iterator[LandedFile]:
    query = (
        "SELECT filename, count(*), CAST(sum(bytes) AS BIGINT)"
        " FROM read_parquet(?, filename = true, hive_partitioning = false) GROUP BY filename"
    )
    for name, rows, bytes_ in sorted(_rows(connection, query, paths)):
        path = Path(name)
        hour = landing_hour(path.parent.name.removeprefix("hour="))
        yield LandedFile(path.relative_to(root).as_posix(), hour, rows, bytes_, path.stat().st_size)


def _measure_rejected(
    connection: "duckdb.DuckDBPyConnection", root: Path, paths: list[Path]
) -> Iterator[LandedFile]:
    query = (
        "SELECT filename, count(*), CAST(coalesce(sum(octet_length(value)), 0) AS BIGINT)"
        " FROM read_parquet(?, filename = true) GROUP BY filename"
    )
    for name, rows, bytes_ in _rows(connection, query, paths):
        path = Path(name)
        yield LandedFile(path.relative_to(root).as_posix(), None, rows, bytes_, path.stat().st_size)


def _sync(folder: Path) -> None:
    """Bring an attempt's files and their names to the disk, up to the folder that holds the attempts."""
    paths = [folder.parent, folder, *folder.rglob("*")]
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
