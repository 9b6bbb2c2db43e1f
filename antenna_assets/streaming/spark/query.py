"""What a query of Spark needs: the session, the messages of Kafka, and a checkpoint that is thrown away.

The ledger is the checkpoint; Spark's own only says which offsets a micro-batch has (`planned_offsets.py`).
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from antenna_assets.clients.kafka_broker import Broker, Topic
from antenna_assets.engines.contract import Engine
from antenna_assets.ledger.offsets import OffsetRange
from antenna_assets.settings import Settings
from antenna_assets.storage.disk import write_failure_message
from antenna_assets.streaming.embedded_sums import embedded_sums
from antenna_assets.streaming.errors import StateUnwritable

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

MESSAGES_PER_BATCH = 600_000
"""The most. They take 4 s on two cores: 17 % faster than twice 300,000, no slower than a million."""

POLLS_PER_BATCH = 16
"""How often a task polls Kafka's client in a micro-batch: all messages of a poll are in memory at once."""

FETCH_BYTES = 8 * 2**20
"""The most bytes that a task fetches from one partition at once."""


def start_spark(master: str = "local[*]", lake: str = "") -> "SparkSession":
    """A Spark session for a stream, with the connectors of Kafka and of the lake's store.

    Spark Connect cannot run a stream. The workers of a cluster must see the lake under the same path.

    Raises:
        ExecutorsUnfit: the executors of a cluster lack what judging needs.
    """
    from antenna_assets.engines.spark_session import session, store_configuration
    from antenna_assets.stack.jars import spark_jars
    from antenna_assets.streaming.spark.executors import prepare_executors
    from antenna_assets.streaming.spark.judging import ARROW_CONF

    store = store_configuration(lake)
    jars = [*map(str, spark_jars()), *filter(None, [store.get("spark.jars")])]
    conf = {
        **store,
        "spark.jars": ",".join(jars),
        # A micro-batch is cached for a second: compressing it costs more than its memory.
        "spark.sql.inMemoryColumnarStorage.compressed": "false",
        # Out of memory, some threads of Java would go on without others; the stream starts a new Java
        # instead.
        "spark.driver.defaultJavaOptions": "-XX:+ExitOnOutOfMemoryError",
        # Messages from this process are data; below this threshold Spark would evaluate them while it plans.
        "spark.sql.execution.arrow.localRelationThreshold": "0",
        **ARROW_CONF,
    }
    spark = session("antenna stream", master=master, extra=conf)
    prepare_executors(spark)
    return spark


@contextmanager
def aggregation_engine(settings: Settings, spark: "SparkSession") -> Iterator[Engine]:
    """The engine that sums up landed files, as set: DuckDB in this process, or the stream's own Spark."""
    if settings.engine != "spark":
        with embedded_sums(settings) as engine:
            yield engine
        return
    from antenna_assets.engines.spark import SparkEngine

    on_spark = SparkEngine(lambda: spark)
    try:
        yield on_spark
    finally:
        on_spark.close()


def new_checkpoint(home: Path) -> Path:
    """Create an empty checkpoint in the state directory, for one start.

    Raises:
        StateUnwritable: the folder cannot be created.
    """
    checkpoints = home / "checkpoints"
    # Left by a stream that was killed: the lock makes sure that no other runs.
    shutil.rmtree(checkpoints, ignore_errors=True)
    checkpoint = checkpoints / uuid4().hex
    try:
        checkpoint.mkdir(parents=True)
    except OSError as error:
        raise StateUnwritable(
            f"{write_failure_message('the state directory', home, error)}; or set ANTENNA_HOME to another "
            "path"
        ) from error
    return checkpoint


def stream_messages(
    spark: "SparkSession", broker: Broker, topic: Topic, offsets: Mapping[int, int], limit: int
) -> "DataFrame":
    """The topic's messages as a stream, each partition from its offset on, at most `limit` a micro-batch."""
    return (
        spark.readStream.format("kafka")
        .options(**_kafka_options(broker))
        .option("subscribe", topic.name)
        .option("startingOffsets", json.dumps({topic.name: {str(p): offsets[p] for p in topic.partitions}}))
        .option("maxOffsetsPerTrigger", limit)
        # For each poll Spark asks Kafka for the partition's first and last offset, twice over the network:
        # with the default of 500 messages that was a quarter of a task's time.
        .option("kafka.max.poll.records", max(1, limit // POLLS_PER_BATCH))
        .option("kafka.max.partition.fetch.bytes", FETCH_BYTES)
        .load()
    )


def read_range(spark: "SparkSession", broker: Broker, wanted: OffsetRange) -> "DataFrame":
    """The messages of a range, unpacked one by one: slow, for packed records that are too large together."""

    def place(offset: int) -> str:
        return json.dumps({broker.topic: {str(wanted.partition): offset}})

    return (
        spark.read.format("kafka")
        .options(**_kafka_options(broker))
        .option("assign", json.dumps({broker.topic: [wanted.partition]}))
        .option("startingOffsets", place(wanted.from_offset))
        .option("endingOffsets", place(wanted.until_offset))
        .option("kafka.max.poll.records", 1)
        .load()
    )


def _kafka_options(broker: Broker) -> dict[str, str]:
    return {
        **broker.config.for_spark(),
        "kafka.bootstrap.servers": broker.bootstrap,
        "failOnDataLoss": "true",
        "kafka.isolation.level": "read_committed",
    }
