"""Publishing in a process of its own, as it must be possible to kill it: one hour's run, or one tick of the sensor.

The process is forked from a server that has imported Dagster already: a second instead of five.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from antenna_assets.clients.postgres import connect
from antenna_assets.definitions import build_definitions
from antenna_assets.defs.requested_runs import RANGE_END_TAG, RANGE_START_TAG
from antenna_assets.domain.hours import hour_key
from antenna_assets.domain.schema import LAKE_TABLES, RAW_PARQUET
from antenna_assets.engines.contract import WrittenFile
from antenna_assets.ledger import failing
from antenna_assets.publishing.lake import Lake, LakeError
from antenna_assets.settings import Settings, load_settings
from antenna_assets.storage.parquet_file import read_table
from antenna_assets.storage.paths import lake_path
from antenna_assets_tests.local_runs import execute, tick

_PROCESSES = multiprocessing.get_context("forkserver")
# DuckDB too, which the assets import where they use it: a process that finds it loaded starts sooner.
_PROCESSES.set_forkserver_preload([__name__, "duckdb"])


def publish_hour(key: str) -> None:
    """Run the six assets for an hour; a run that fails raises."""
    job = build_definitions().resolve_job_def("hourly_usage")
    with dg.DagsterInstance.ephemeral() as instance:
        job.execute_in_process(instance=instance, tags={"dagster/partition": key})


def publish_range(keys: str) -> None:
    """Run the six assets for a range of hours, `2026-11-22-10:00...2026-11-22-12:00`; a run that fails raises."""
    first, _, last = keys.partition("...")
    job = build_definitions().resolve_job_def("hourly_usage")
    with dg.DagsterInstance.ephemeral() as instance:
        job.execute_in_process(instance=instance, tags={RANGE_START_TAG: first, RANGE_END_TAG: last})


def tick_once(folder: str) -> None:
    """One tick of the sensor on the instance of a folder."""
    with dg.instance_for_test(temp_dir=folder) as instance:
        tick(instance)


def publish_what_is_asked_for(environment: dict[str, str], folder: str) -> list[str]:
    """One tick of the sensor on the instance of a folder, and its runs; the errors of those that failed.

    Attempts follow each other without the wait that the sensor has between them.
    """
    os.environ.update(environment)
    Path(folder).mkdir(exist_ok=True)
    failing.FIRST_WAIT = timedelta(0)
    with dg.instance_for_test(temp_dir=folder) as instance:
        runs = [execute(instance, request) for request in tick(instance)]
    return [str(step.step_failure_data.error) for run in runs for step in run.filter_events(_failed)]


def _failed(event: dg.DagsterEvent) -> bool:
    return event.is_step_failure


Row = tuple[int, int]
"""Partition and offset of an event."""


def published_in_the_lake(environment: dict[str, str]) -> dict[tuple[str, str], tuple[int, list[Row]]]:
    """Generation and rows, read from the files, of each hour of each table of the lake, by table and hour."""
    os.environ.update(environment)
    settings = load_settings()
    with connect(settings.postgres_url or "") as connection:
        hours = [hour for (hour,) in connection.execute("SELECT hour FROM ledger.hour").fetchall()]
    found = {}
    for table in LAKE_TABLES:
        for hour in hours:
            snapshot = Lake(settings.lake_uri).hour(table, hour)
            if snapshot.generation is not None:
                rows = [row for file in snapshot.files for row in _coordinates(file)]
                found[table, hour_key(hour)] = (snapshot.generation, sorted(rows))
    return found


def _coordinates(file: str) -> list[Row]:
    table = read_table(lake_path(file), ["kafka_partition", "kafka_offset"])
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def write_rows(root: str, hour: datetime, generation: int, rows: int) -> WrittenFile:
    """Write a file for `raw_parquet` of a lake, and commit nothing."""
    folder = Path(Lake(root).new_folder("raw_parquet", hour, generation))
    folder.mkdir(parents=True)
    events = [("app", "user", "antenna", 1, 0, offset) for offset in range(rows)]
    arrays = [pa.array([hour] * rows, RAW_PARQUET[0].type)]
    arrays += [
        pa.array(column, field.type)
        for column, field in zip(zip(*events, strict=True), list(RAW_PARQUET)[1:], strict=True)
    ]
    path = folder / "part-0.parquet"
    pq.write_table(pa.Table.from_arrays(arrays, schema=RAW_PARQUET), path)
    return WrittenFile(str(path), rows, path.stat().st_size)


def commit_rows(root: str, hour: datetime, generation: int, file: WrittenFile) -> str | None:
    """Make the file the hour of `raw_parquet`; the error if that fails."""
    try:
        Lake(root).replace_hour("raw_parquet", hour, generation, [file])
    except LakeError as error:
        return str(error)
    return None


def generation_and_rows(root: str, hour: datetime) -> tuple[int | None, int]:
    """What `raw_parquet` of a lake holds of an hour, by its files."""
    snapshot = Lake(root).hour("raw_parquet", hour)
    return snapshot.generation, sum(len(_coordinates(file)) for file in snapshot.files)


def die(settings: Settings, crash_at: str, what: Callable[[str], None], argument: str | Path) -> None:
    """Call the function in a process of its own, which must die at the point."""
    # The server that it is forked from has the environment of the test that was the first to need it.
    environment = {**os.environ, **settings.exports(), "ANTENNA_CRASH_AT": crash_at}
    process = _PROCESSES.Process(target=_call, args=(environment, what, str(argument)))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL, (
        f"expected to be killed at {crash_at}, found {process.exitcode}"
    )


def _call(environment: dict[str, str], what: Callable[[str], None], argument: str) -> None:
    os.environ.update(environment)
    what(argument)
