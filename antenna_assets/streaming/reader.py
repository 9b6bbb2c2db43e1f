"""The contract of a reader: it turns the messages of a topic into committed micro-batches."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

import psycopg

from antenna_assets.clients.kafka_broker import Broker, Topic
from antenna_assets.settings import Settings
from antenna_assets.streaming.committer import Committer
from antenna_assets.streaming.errors import ReaderFailed

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class Reader(Protocol):
    """Reads one topic for one stream. It is stateless: each start takes the ledger's offsets."""

    @property
    def wants_restart(self) -> bool:
        """Whether it ended early only to be started again."""
        ...

    def started(
        self, connection: psycopg.Connection, topic: Topic, *, available_now: bool
    ) -> AbstractContextManager[Callable[[], None]]:
        """Start reading at the ledger's offsets; yields a function that waits until the reading ends.

        At the end of the block the micro-batches in progress are committed, or have failed.

        Args:
            topic: with the id that the ledger knows.
            available_now: end at the broker's present end.

        Raises:
            ReaderFailed: `recover` says how to go on.
            Unreadable: a record cannot be read. Everything before it, and in the other partitions, is
                committed.
            Exception: that of the micro-batch by which the reading ended.
        """
        ...

    def recover(self, error: ReaderFailed) -> None:
        """Prepare another start after a failure of the reader.

        Raises:
            ReaderFailed: there is no way to go on.
        """
        ...

    def close(self) -> None:
        """Stop what the reader has started, and is not stopped at the end of a block of `started`."""
        ...


def new_reader(
    settings: Settings,
    broker: Broker,
    committer: Committer,
    *,
    say: Callable[[str], None],
    stop: threading.Event,
    spark: "SparkSession | None" = None,
) -> Reader:
    """The reader that `ANTENNA_STREAM_ENGINE` names. Only this one is imported.

    Args:
        spark: a session for the Spark reader, see `Stream`.
    """
    if settings.stream_engine == "duckdb":
        from antenna_assets.streaming.embedded.reader import EmbeddedReader

        return EmbeddedReader(settings, broker, committer, say=say, stop=stop)
    require_spark()
    from antenna_assets.streaming.spark.reader import SparkReader

    return SparkReader(settings, broker, committer, say=say, stop=stop, spark=spark)


def require_spark() -> None:
    """Require what the Spark reader needs of this machine: its package and a Java.

    Raises:
        EngineError: the package is not installed.
        JavaError: there is no Java that can run it.
    """
    from antenna_assets.engines.spark_session import require_pyspark
    from antenna_assets.stack.java import java_home

    require_pyspark("the stream", without="ANTENNA_STREAM_ENGINE=duckdb (`antenna stream --engine duckdb`)")
    java_home()
