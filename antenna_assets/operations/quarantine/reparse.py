"""Rejected messages validated again by the stream's own code, in a local Spark session, and the accepted ones
landed.

Which messages are replayed is decided in `replay.py`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from antenna_assets.domain.schema import LANDED_SCHEMA
from antenna_assets.engines.duckdb import DuckDBEngine
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.batch import BatchContent
from antenna_assets.publishing.lake import Lake
from antenna_assets.settings import Settings
from antenna_assets.storage.attempt import lake_errors
from antenna_assets.storage.paths import lake_path
from antenna_assets.streaming.read_back import WrittenAttempt, read_back
from antenna_assets.streaming.spark.query import AGGREGATION_MEMORY

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from antenna_assets.storage.paths import LakePath

VALIDATED = pa.schema(
    [*LANDED_SCHEMA, *(pa.field(name, pa.string()) for name in ("reason", "detail", "hour"))]
)
"""A message as the stream sees it: the event (undefined if rejected), `reason` (null: accepted), `detail`,
and `hour`, the name of its landing folder (null if rejected)."""


@contextmanager
def local_spark(lake: str) -> "Iterator[SparkSession]":
    """A local Spark session for a replay, configured as the stream's, without Kafka; stopped after the
    block."""
    from antenna_assets.engines.spark_session import session, store_configuration
    from antenna_assets.streaming.spark.parse import SESSION_CONF

    spark = session("antenna replay", master="local[*]", extra={**SESSION_CONF, **store_configuration(lake)})
    try:
        yield spark
    finally:
        spark.stop()


def validate(settings: Settings, spark: "SparkSession", messages: pa.Table, clock: datetime) -> pa.Table:
    """Parse the messages by the stream's rules at `clock`; returns a row of `VALIDATED` for each, in their
    order."""
    from antenna_assets.streaming.spark.parse import parsed

    with messages_file(settings.lake_uri, messages) as path:
        # Spark takes a name with `*` or `[` for a pattern otherwise.
        frame = spark.read.option("__globPaths__", "false").parquet(path.as_uri())
        # Coordinates repeat where a topic was created again, so each message has a number, passed as its
        # partition.
        numbered = frame.selectExpr("value", "number AS partition", "offset", "timestamp")
        rows = parsed(numbered, clock=clock, oldest=settings.start)
        found = rows.select(*VALIDATED.names).toArrow().sort_by("kafka_partition")
    place = found.schema.get_field_index("kafka_partition")
    found = found.set_column(place, "kafka_partition", messages["kafka_partition"])
    return found.cast(pa.schema([field.with_nullable(True) for field in VALIDATED]))


def land(settings: Settings, accepted: pa.Table, *, folder: str) -> BatchContent:
    """Write accepted rows of `VALIDATED` below `folder`, one file an hour, and read them back as the stream
    does."""
    begun = datetime.now(UTC)
    with lake_errors(settings.lake_uri):
        for hour in pc.unique(accepted["hour"]).to_pylist():
            target = lake_path(settings.lake_uri) / folder / f"hour={hour}" / "part-0.parquet"
            if isinstance(target, Path):
                target.parent.mkdir(parents=True)
            rows = (
                accepted.filter(pc.equal(accepted["hour"], hour))
                .select(LANDED_SCHEMA.names)
                .cast(LANDED_SCHEMA)
            )
            with target.open("wb") as file:
                pq.write_table(rows, file, compression="zstd")
    engine = DuckDBEngine(memory_limit=AGGREGATION_MEMORY, temp_directory=str(settings.home / "spill"))
    try:
        written = WrittenAttempt(folder, begun, accepted.num_rows)
        return read_back(written, engine, lake=settings.lake_uri, window=settings.window)
    finally:
        engine.close()


@contextmanager
def messages_file(lake: str, messages: pa.Table) -> "Iterator[LakePath]":
    """The messages, numbered, as a file that only its owner can read; removed afterwards.

    It is under the lake's `scratch/`: what a killed replay leaves there is swept, and searched when a user is
    forgotten.
    """
    with Lake(lake).scratch() as folder:
        path = lake_path(folder) / "messages.parquet"
        if isinstance(path, Path):
            path.parent.chmod(0o700)
            path.touch(0o600)
        table = pa.table(
            {
                "value": messages["value"],
                "partition": messages["kafka_partition"],
                "offset": messages["kafka_offset"],
                "timestamp": messages["kafka_timestamp"],
                "number": pa.array(range(messages.num_rows), pa.int32()),
            }
        )
        with path.open("wb") as file:
            pq.write_table(table, file)
        commit_point("replay.messages_written")
        yield path
