"""What Spark is told: the session, what of Kafka to read, and the checkpoint that is thrown away.

The ledger is the checkpoint that counts; Spark's is only how it says which offsets a micro-batch has (`planned_offsets.py`).
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
from antenna_assets.storage.disk import unwritable
from antenna_assets.streaming.batch_size import POLLS_PER_BATCH
from antenna_assets.streaming.errors import StateUnwritable

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# A micro-batch of this size takes four seconds on two cores: 17 % faster than twice 300,000, and no slower than a million.
MESSAGES_PER_BATCH = 600_000

FETCH_BYTES = 8 * 2**20
"""What a task takes from Kafka at once, of one partition."""

AGGREGATION_MEMORY = "1GiB"
"""What DuckDB may use beside Spark: many times what the sums of a micro-batch need."""


def start_spark(master: str = "local[*]", lake: str = "") -> "SparkSession":
    """The Spark session of a stream into a lake, with the connectors of Kafka and of the lake's store. Spark Connect cannot run one.

    On a cluster's master its workers must see the lake under the same path.
    """
    from antenna_assets.engines.spark_session import session, store_configuration
    from antenna_assets.stack.jars import spark_jars
    from antenna_assets.streaming.spark.parse import SESSION_CONF

    store = store_configuration(lake)
    jars = [*map(str, spark_jars()), *filter(None, [store.get("spark.jars")])]
    conf = {
        **store,
        "spark.jars": ",".join(jars),
        # A micro-batch is kept for a second: packing it costs more than its memory.
        "spark.sql.inMemoryColumnarStorage.compressed": "false",
        # Without memory some threads of Java would go on without the others; the stream starts another one instead.
        "spark.driver.defaultJavaOptions": "-XX:+ExitOnOutOfMemoryError",
        # Messages that come from this process are data, and no part of a plan that Spark computes while it plans.
        "spark.sql.execution.arrow.localRelationThreshold": "0",
        **SESSION_CONF,
    }
    return session("antenna stream", master=master, extra=conf)


@contextmanager
def aggregation_engine(settings: Settings, spark: "SparkSession") -> Iterator[Engine]:
    """What sums up the landed files, as the settings say: DuckDB in this process, or the stream's own Spark."""
    if settings.engine == "spark":
        from antenna_assets.engines.spark import SparkEngine

        engine: Engine = SparkEngine(lambda: spark)
    else:
        from antenna_assets.engines.duckdb import DuckDBEngine

        engine = DuckDBEngine(memory_limit=AGGREGATION_MEMORY, temp_directory=str(settings.home / "spill"))
    try:
        yield engine
    finally:
        engine.close()


def new_checkpoint(home: Path) -> Path:
    """Make an empty checkpoint in the state directory, for one start.

    Raises:
        StateUnwritable: the folder cannot be made.
    """
    checkpoints = home / "checkpoints"
    # Left by a stream that was killed; no other runs, the lock says so.
    shutil.rmtree(checkpoints, ignore_errors=True)
    checkpoint = checkpoints / uuid4().hex
    try:
        checkpoint.mkdir(parents=True)
    except OSError as error:
        raise StateUnwritable(
            f"{unwritable('the state directory', home, error)}; or set ANTENNA_HOME to another path"
        ) from error
    return checkpoint


def stream_messages(
    spark: "SparkSession", broker: Broker, topic: Topic, offsets: Mapping[int, int], limit: int
) -> "DataFrame":
    """The topic's messages as a stream, at most `limit` a micro-batch: each partition from its offset on."""
    return (
        spark.readStream.format("kafka")
        .options(**_kafka_options(broker))
        .option("subscribe", topic.name)
        .option("startingOffsets", json.dumps({topic.name: {str(p): offsets[p] for p in topic.partitions}}))
        .option("maxOffsetsPerTrigger", limit)
        # Spark asks Kafka for the partition's first and last offset, twice over the network, for as many messages as one
        # poll gives: with the default of 500 that was a quarter of a task's time. All of a poll are in memory at once.
        .option("kafka.max.poll.records", max(1, limit // POLLS_PER_BATCH))
        .option("kafka.max.partition.fetch.bytes", FETCH_BYTES)
        .load()
    )


def read_range(spark: "SparkSession", broker: Broker, wanted: OffsetRange) -> "DataFrame":
    """The messages of a range, unpacked one by one: the slow way for a batch of records that is large when unpacked."""

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
