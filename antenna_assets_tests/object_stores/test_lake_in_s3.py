"""The lake's tables in S3: replaced as a whole by the newest generation only, whoever else writes, and swept."""

import multiprocessing
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from antenna_assets.domain.lifetimes import SAFE_AGE, VERSION_RETENTION
from antenna_assets.domain.schema import RAW_PARQUET
from antenna_assets.engines.contract import Dataset
from antenna_assets.engines.duckdb import DuckDBEngine
from antenna_assets.errors import EngineError, Superseded
from antenna_assets.publishing.lake import Lake, LakeError
from antenna_assets_tests.object_stores.conftest import Bucket
from antenna_assets_tests.object_stores.s3_server import environment

pytestmark = pytest.mark.services

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)

EVENTS = """SELECT TIMESTAMPTZ '{hour}' AS timestamp, 'app' AS app, 'u1' AS id, 'x' AS antenna_id,
    {generation}::BIGINT AS bytes, 0::INT AS kafka_partition, i AS kafka_offset FROM range({rows}) AS numbers(i)"""


def publish(lake: Lake, hour: datetime, generation: int, rows: int) -> int:
    engine = DuckDBEngine(threads=1)
    try:
        sql = EVENTS.format(hour=hour.isoformat(), generation=generation, rows=rows)
        files = engine.write(sql, {}, RAW_PARQUET, lake.new_folder("raw_parquet", hour, generation))
    finally:
        engine.close()
    return lake.replace_hour("raw_parquet", hour, generation, files)


def rows_of(lake: Lake, hour: datetime) -> list[tuple[int, int]]:
    """Generation and number of the rows in the hour's files."""
    engine = DuckDBEngine(threads=1)
    try:
        usage = {"usage": Dataset(lake.hour("raw_parquet", hour).files, RAW_PARQUET)}
        schema = RAW_PARQUET.empty_table().select(["bytes", "kafka_offset"]).schema
        found = engine.read("SELECT bytes, count(*) AS kafka_offset FROM usage GROUP BY bytes", usage, schema)
    finally:
        engine.close()
    return [(row["bytes"], row["kafka_offset"]) for row in found.to_pylist()]


@pytest.fixture
def lake(bucket: Bucket) -> Lake:
    return Lake(f"s3://{bucket.name}/the/lake")


def test_an_hour_is_replaced_whole_and_an_older_generation_is_refused(lake: Lake, bucket: Bucket) -> None:
    publish(lake, TEN, 1, 5)
    publish(lake, TEN + HOUR, 1, 7)
    publish(lake, TEN, 3, 2)
    assert rows_of(lake, TEN) == [(3, 2)]
    assert rows_of(lake, TEN + HOUR) == [(1, 7)]
    before = bucket.objects().keys()
    with pytest.raises(Superseded):
        publish(lake, TEN, 2, 9)
    # The refused attempt's file is gone again.
    assert bucket.objects().keys() == before


def publish_some(address: str, root: str, number: int) -> None:
    """In a process of its own: four hours, and one that all write."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(address).items():
            patch.setenv(name, value)
        lake = Lake(root)
        for hour in range(4):
            publish(lake, TEN + (1 + 4 * number + hour) * HOUR, 1, 1 + hour)
        publish(lake, TEN, 1, 1 + number)


def test_writers_at_once_lose_nothing_of_each_other(lake: Lake, bucket: Bucket) -> None:
    processes = multiprocessing.get_context("spawn")
    writers = [
        processes.Process(target=publish_some, args=(bucket.address, lake.root, number))
        for number in range(3)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    for number in range(3):
        for hour in range(4):
            assert rows_of(lake, TEN + (1 + 4 * number + hour) * HOUR) == [(1, 1 + hour)]
    assert rows_of(lake, TEN) in ([(1, 1)], [(1, 2)], [(1, 3)])
    # One version for its making, and one for each hour that was written.
    assert lake.hour("raw_parquet", TEN).version == 3 * 5


def test_a_result_that_fails_leaves_nothing_and_one_that_is_there_is_kept(lake: Lake, bucket: Bucket) -> None:
    numbers = pa.schema([pa.field("n", pa.int64(), nullable=False)])
    sql = "SELECT i AS n FROM range(1000) AS numbers(i)"
    engine = DuckDBEngine(threads=1)
    target = lake.new_folder("raw_parquet", TEN, 1)
    try:
        with pytest.raises(EngineError, match="broken on purpose"):
            engine.write("SELECT error('broken on purpose')::BIGINT AS n", {}, numbers, target)
        # Found when all is written.
        with pytest.raises(EngineError, match="expected no null"):
            engine.write(f"{sql} UNION ALL SELECT NULL", {}, numbers, target)
        assert bucket.objects() == {}
        engine.write(sql, {}, numbers, target)
        before = bucket.objects()
        with pytest.raises(EngineError, match="expected a folder that does not exist yet"):
            engine.write(sql, {}, numbers, target)
        assert bucket.objects() == before
    finally:
        engine.close()


def test_a_sweep_takes_what_no_version_names_and_nothing_young(lake: Lake, bucket: Bucket) -> None:
    publish(lake, TEN, 1, 5)
    (old,) = lake.hour("raw_parquet", TEN).files
    publish(lake, TEN, 2, 5)
    partition = "the/lake/raw_parquet/year=2026/month=11/day=22/hour=10"
    for key in (f"{partition}/g9-dead/part-0.parquet", f"{partition}/g9-dead/", "the/lake/raw_parquet/x*"):
        bucket.put(key)
    bucket.put("the/lake/raw_parquet-2/stays")
    now = datetime.now(UTC)
    assert lake.sweep("raw_parquet", now=now) == {}
    later = now + SAFE_AGE + HOUR
    litter = {
        f"{partition}/g9-dead/part-0.parquet".removeprefix("the/lake/raw_parquet/"): 6,
        f"{partition}/g9-dead".removeprefix("the/lake/raw_parquet/"): 6,
        "x*": 6,
    }
    before = bucket.objects()
    assert lake.sweep("raw_parquet", now=later, dry_run=True) == litter
    assert bucket.objects() == before
    assert lake.sweep("raw_parquet", now=later) == litter
    assert not any("dead" in key or key.endswith("x*") for key in bucket.objects())
    assert old.removeprefix(f"s3://{bucket.name}/") in bucket.objects()
    lake.sweep("raw_parquet", now=now + VERSION_RETENTION + SAFE_AGE)
    assert old.removeprefix(f"s3://{bucket.name}/") not in bucket.objects()
    assert rows_of(lake, TEN) == [(2, 5)]
    assert "the/lake/raw_parquet-2/stays" in bucket.objects()


def test_a_bucket_that_is_not_there_is_told_in_one_line(bucket: Bucket) -> None:
    with pytest.raises(
        LakeError, match="cannot be read: The specified bucket does not exist; check ANTENNA_LAKE"
    ):
        Lake(f"s3://{bucket.name}-2/lake").hour("raw_parquet", TEN)
    engine = DuckDBEngine(threads=1)
    nowhere = {"usage": Dataset([f"s3://{bucket.name}-2/lake/x.parquet"], RAW_PARQUET)}
    try:
        with pytest.raises(
            EngineError, match="^DuckDB: FileNotFoundError: The specified bucket does not exist$"
        ):
            engine.read("SELECT * FROM usage", nowhere, RAW_PARQUET)
    finally:
        engine.close()
