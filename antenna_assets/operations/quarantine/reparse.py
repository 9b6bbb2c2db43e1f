"""Rejected messages parsed and landed again in a local Spark session, by the very code that the stream runs.

What is replayed and what becomes of it is `replay.py`'s matter.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.batch import BatchContent
from antenna_assets.publishing.lake import Lake
from antenna_assets.settings import Settings
from antenna_assets.storage.paths import lake_path
from antenna_assets.streaming.read_back import read_back
from antenna_assets.streaming.spark.land import write
from antenna_assets.streaming.spark.query import aggregation_engine

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from antenna_assets.storage.paths import LakePath


def start_spark(lake: str) -> "SparkSession":
    """A local Spark session for a replay: as the stream's, without Kafka."""
    from antenna_assets.engines.spark_session import session, store_configuration
    from antenna_assets.streaming.spark.parse import SESSION_CONF

    return session("antenna replay", master="local[*]", extra={**SESSION_CONF, **store_configuration(lake)})


def verdicts_on(settings: Settings, spark: "SparkSession", messages: pa.Table, clock: datetime) -> pa.Table:
    """The stream's verdict on each message, in the order of the messages."""
    from antenna_assets.streaming.spark.parse import parsed

    columns = ("number", "kafka_partition", "kafka_offset", "reason", "detail", "hour", "bytes")
    with _kafka_messages(settings, spark, messages) as frame:
        # The topic's id is no part of what is parsed, and coordinates of a topic that was created again repeat: the
        # message's number stands for its partition.
        numbered = frame.selectExpr("value", "number AS partition", "offset", "timestamp")
        verdicts = parsed(numbered, clock=clock, oldest=settings.start).selectExpr(
            "kafka_partition AS number", "reason", "detail", "hour", "bytes"
        )
        found = verdicts.toArrow().sort_by("number")
    coordinates = messages.select(["kafka_partition", "kafka_offset"])
    for name in coordinates.schema.names:
        found = found.append_column(name, coordinates[name])
    return found.select(columns)


def land_messages(
    settings: Settings, spark: "SparkSession", messages: pa.Table, *, folder: str, clock: datetime
) -> BatchContent:
    """Write messages that are accepted at `clock` below `folder`, as the stream writes a micro-batch."""
    with _kafka_messages(settings, spark, messages) as frame, aggregation_engine(settings, spark) as engine:
        # One file an hour: Spark would write one for each of its tasks.
        one = frame.drop("number").coalesce(1)
        written = write(one, lake=settings.lake_uri, folder=folder, clock=clock, oldest=settings.start)
        return read_back(written, engine, lake=settings.lake_uri, window=settings.window)


@contextmanager
def _kafka_messages(settings: Settings, spark: "SparkSession", messages: pa.Table) -> "Iterator[DataFrame]":
    """The messages as Spark reads them from Kafka, and their `number`."""
    with messages_file(settings.lake_uri, messages) as path:
        # The name of a lake may hold what Spark takes for a pattern.
        yield spark.read.option("__globPaths__", "false").parquet(path.as_uri())


@contextmanager
def messages_file(lake: str, messages: pa.Table) -> "Iterator[LakePath]":
    """The messages, numbered, as a file that its owner alone can read; removed afterwards.

    It lies in the lake's scratch: what a killed replay leaves there goes with a sweep, and is found when a user is forgotten.
    """
    import pyarrow.parquet as pq

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
