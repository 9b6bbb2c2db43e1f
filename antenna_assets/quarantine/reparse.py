"""Rejected messages parsed and landed again in a local Spark session, by the very code that the stream runs.

What is replayed and what becomes of it is `replay.py`'s matter.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import uuid4

import pyarrow as pa

from antenna_assets.settings import Settings
from antenna_assets.streaming.land import write
from antenna_assets.streaming.landed import Landed
from antenna_assets.streaming.query import engine_of_sums
from antenna_assets.streaming.read_back import read_back

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def start_spark(lake: str) -> "SparkSession":
    """A local Spark session for a replay: as the stream's, without Kafka."""
    from antenna_assets.spark_session import session, store_configuration
    from antenna_assets.streaming.parse import SESSION_CONF

    return session("antenna replay", master="local[*]", extra={**SESSION_CONF, **store_configuration(lake)})


def verdicts_on(settings: Settings, spark: "SparkSession", messages: pa.Table, clock: datetime) -> pa.Table:
    """The stream's verdict on each message, in the order of the messages."""
    from antenna_assets.streaming.parse import parsed

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
) -> Landed:
    """Write messages that are accepted at `clock` below `folder`, as the stream writes a micro-batch."""
    with _kafka_messages(settings, spark, messages) as frame, engine_of_sums(settings, spark) as engine:
        # One file an hour: Spark would write one for each of its tasks.
        one = frame.drop("number").coalesce(1)
        written = write(one, lake=settings.lake_uri, folder=folder, clock=clock, oldest=settings.start)
        return read_back(written, engine, lake=settings.lake_uri, window=settings.window)


@contextmanager
def _kafka_messages(settings: Settings, spark: "SparkSession", messages: pa.Table) -> "Iterator[DataFrame]":
    """The messages as Spark reads them from Kafka, and their `number`; through a file that is removed afterwards."""
    import pyarrow.parquet as pq

    folder = settings.home / "replays" / uuid4().hex
    folder.mkdir(parents=True)
    try:
        table = pa.table(
            {
                "value": messages["value"],
                "partition": messages["kafka_partition"],
                "offset": messages["kafka_offset"],
                "timestamp": messages["kafka_timestamp"],
                "number": pa.array(range(messages.num_rows), pa.int32()),
            }
        )
        path = folder / "messages.parquet"
        pq.write_table(table, path)
        yield spark.read.parquet(path.as_uri())
    finally:
        shutil.rmtree(folder)
