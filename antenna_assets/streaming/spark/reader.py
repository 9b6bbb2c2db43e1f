"""The Spark reader: one Structured Streaming query per start, and recovery from failures of Spark.

`streaming/job.py` decides when to start and whether to wait. A reader is stateless: each start takes the
ledger's offsets and a checkpoint that is thrown away afterwards.
"""

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg

from antenna_assets.clients.kafka_broker import Broker, Topic
from antenna_assets.engines.spark_session import java_has_exited
from antenna_assets.failpoints import commit_point
from antenna_assets.settings import Settings
from antenna_assets.storage.disk import FREE_SPACE_HINT, free, is_full
from antenna_assets.streaming.committer import REPORT_SECONDS, Committer
from antenna_assets.streaming.errors import (
    QueryFailed,
    ReaderFailed,
    ReadingFailed,
    StateUnwritable,
    first_line,
)
from antenna_assets.streaming.exact_ranges import PART_MESSAGES, Unreadable
from antenna_assets.streaming.spark import query as query_settings
from antenna_assets.streaming.spark.micro_batch import MicroBatches
from antenna_assets.streaming.spark.process import (
    SparkEnded,
    discard_java,
    is_spark_error,
    java_crashed,
    java_exit_detected,
    stop_spark,
)
from antenna_assets.streaming.spark.query import (
    aggregation_engine,
    new_checkpoint,
    start_spark,
    stream_messages,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from pyspark.sql.streaming import StreamingQuery

RECORD_RETRIES = 3
"""Retries of a single record over which Spark fails while its Java lives on."""

RETRY_SECONDS = 1.0


class SparkReader:
    """Reads one topic with Spark, for one stream. See `Reader`.

    Args:
        say: takes one line of progress.
        stop: set it to stop after the micro-batch in progress.
        spark: a session from `start_spark`, which stays open; if None, one is started and closed.
    """

    def __init__(
        self,
        settings: Settings,
        broker: Broker,
        committer: Committer,
        *,
        say: Callable[[str], None],
        stop: threading.Event,
        spark: "SparkSession | None" = None,
    ) -> None:
        self._settings = settings
        self._broker = broker
        self._committer = committer
        self._say = say
        self._stop = stop
        self._spark = spark
        self._owns_spark = spark is None
        self._batches = MicroBatches(settings, broker, committer, stop=stop)
        # What Spark failed over: up to which offset of each partition, and how many messages to try at once.
        self._failed_until: dict[int, int] = {}
        self._part = PART_MESSAGES
        self._failures = 0
        self._unreadable: Unreadable | None = None
        self._out_of_memory = False

    @property
    def wants_restart(self) -> bool:
        """Whether the last query ended early only to be started again."""
        return self._batches.size_changed

    @contextmanager
    def started(
        self, connection: psycopg.Connection, topic: Topic, *, available_now: bool
    ) -> Iterator[Callable[[], None]]:
        """See `Reader.started`. What Spark failed over in an earlier query is read first.

        Raises:
            QueryFailed, StateUnwritable: another start may succeed.
        """
        with java_exit_detected():
            self._read_exactly(connection, topic)
            with self._query(connection, topic, available_now=available_now) as query:
                yield lambda: self._watch(query, connection)

    def recover(self, error: ReaderFailed) -> None:
        """Prepare another start after Spark failed over messages, or its Java ended over them.

        They are read in smaller parts then, down to a single record, which is given up if Spark fails over
        that as well.

        Raises:
            SparkEnded: Java was killed, or ended by nothing that it read.
        """
        # The first caller of Java sees that it has exited: this thread, or that of the micro-batch.
        found = (error, error.__cause__, self._batches.failure)
        failed = next((one for one in found if isinstance(one, ReadingFailed)), None)
        if failed is None:
            raise error
        if isinstance(error, SparkEnded):
            if not self._owns_spark or not java_crashed():
                raise error
            discard_java()
            self._spark = None
            self._out_of_memory = True
        if failed.record is not None:
            self._failures += 1
            if isinstance(error, SparkEnded) or self._failures > RECORD_RETRIES:
                self._give_up(failed)
                return
            # The cause may be something else, as a store that is away.
            self._stop.wait(RETRY_SECONDS * self._failures)
        if self._failed_until:
            self._part = max(1, failed.messages // 2)
        self._failed_until = {**failed.until, **self._failed_until}
        self._say(f"{failed}; Kafka's own client reads them, in smaller parts")

    def _give_up(self, failed: ReadingFailed) -> None:
        """Read everything but this record and what is behind it in its partition, then fail."""
        assert failed.record is not None
        partition, offset = failed.record
        self._unreadable = self._unreadable or Unreadable(
            self._settings.topic, partition, offset, failed.reason
        )
        self._failed_until[partition] = offset
        self._part, self._failures = PART_MESSAGES, 0

    def close(self) -> None:
        """Stop the Spark session, if this reader has started one."""
        if self._spark is not None and self._owns_spark:
            stop_spark(self._spark)
            self._spark = None

    def _read_exactly(self, connection: psycopg.Connection, topic: Topic) -> None:
        """Read what Spark's reader failed over, if anything, with Kafka's own client.

        Raises:
            Unreadable: everything but a record and what is behind it in its partition was read.
        """
        if not self._failed_until:
            return
        spark = self._spark_session()
        with aggregation_engine(self._settings, spark) as engine:
            self._batches.read_exactly(
                connection,
                engine,
                spark,
                topic,
                self._failed_until,
                self._part,
                out_of_memory=self._out_of_memory,
            )
        self._failed_until, self._part = {}, PART_MESSAGES
        self._failures, self._out_of_memory = 0, False
        if self._unreadable is not None:
            raise self._unreadable

    def _spark_session(self) -> "SparkSession":
        if self._spark is None:
            self._say("starting Spark")
            self._spark = start_spark(self._settings.spark_master, self._settings.lake_uri)
        return self._spark

    @contextmanager
    def _query(
        self, connection: psycopg.Connection, topic: Topic, *, available_now: bool
    ) -> Iterator["StreamingQuery"]:
        spark = self._spark_session()
        offsets = self._committer.next_offsets(connection, topic)
        checkpoint = new_checkpoint(self._settings.home)
        limit = self._batches.size.limit(query_settings.MESSAGES_PER_BATCH)
        messages = stream_messages(spark, self._broker, topic, offsets, limit)
        writer = messages.writeStream.option("checkpointLocation", checkpoint.as_uri())
        if available_now:
            writer = writer.trigger(availableNow=True)
        elif self._settings.trigger:
            writer = writer.trigger(processingTime=f"{int(self._settings.trigger.total_seconds())} seconds")
        try:
            with (
                aggregation_engine(self._settings, spark) as engine,
                self._batches.handler(connection, engine, checkpoint) as process,
            ):
                query = writer.foreachBatch(process).start()
                try:
                    yield query
                finally:
                    # What is in progress ends first; the next micro-batch sees `stop` or the stopped query.
                    self._batches.wait_until_idle()
                    if not java_has_exited():
                        query.stop()
        finally:
            commit_point("stream.before_sweep")
            shutil.rmtree(checkpoint, ignore_errors=True)

    def _watch(self, query: "StreamingQuery", connection: psycopg.Connection) -> None:
        """Wait for the query's end, send heartbeats meanwhile, and report.

        Raises:
            QueryFailed, StateUnwritable, or the error of a micro-batch: the query ended by it.
        """
        reported = time.monotonic()
        # After a failed commit the query continues until its next micro-batch.
        while (
            query.isActive
            and self._batches.failure is None
            and not self._batches.size_changed
            and not self._stop.wait(0.2)
        ):
            self._committer.heartbeat_if_due(connection)
            if time.monotonic() - reported > REPORT_SECONDS and self._committer.report():
                reported = time.monotonic()
        self._batches.wait_until_idle()
        if not self._stop.is_set() and not (self._batches.size_changed and query.isActive):
            self._require_no_failure(query)

    def _require_no_failure(self, query: "StreamingQuery") -> None:
        failure = self._batches.failure
        if isinstance(failure, ReadingFailed):
            raise failure
        if failure is not None and is_spark_error(failure):
            raise QueryFailed(f"a micro-batch failed: {first_line(failure)}") from failure
        if failure is not None:
            raise failure
        error = query.exception()
        if error is not None and is_full(error):
            home, temporary = self._settings.home, tempfile.gettempdir()
            raise StateUnwritable(
                f"no space left for the stream's state in {home} ({free(home)}) or for Spark's temporary "
                f"files in {temporary} ({free(temporary)}); {FREE_SPACE_HINT}"
            ) from error
        if error is not None:
            raise QueryFailed(f"Spark stopped the query: {first_line(error)}") from error
