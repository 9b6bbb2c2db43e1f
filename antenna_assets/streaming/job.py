"""The stream: one pass from Kafka, with the ledger as its checkpoint, again after whatever passes by itself.

This is wiring: each start takes the ledger's offsets and a fresh Spark query (`streaming/spark/query.py`), which hands its
micro-batches to `micro_batch.py`.
"""

import math
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg

from antenna_assets.clients.kafka_broker import (
    Broker,
    BrokerError,
    BrokerRefuses,
    RightMissing,
    Topic,
    kept_too_shortly,
)
from antenna_assets.clients.kafka_config import PLAIN, KafkaConfig
from antenna_assets.clients.migrations import require_migrated
from antenna_assets.clients.postgres import DatabaseError, connect
from antenna_assets.clients.postgres_errors import DatabaseUnfit, passes
from antenna_assets.clients.postgres_session import STREAM
from antenna_assets.domain.lifetimes import AttemptTooOld
from antenna_assets.engines.spark_session import java_has_exited
from antenna_assets.errors import StreamError
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger import blocked
from antenna_assets.ledger.errors import HourExpired
from antenna_assets.ledger.first_partition import require_start
from antenna_assets.ledger.head import claim_topic
from antenna_assets.ledger.lake_identity import WrongLake, require_own_lake
from antenna_assets.ledger.offsets import committed_offsets
from antenna_assets.ledger.partition_starts import read_from, read_starts, settle_starts
from antenna_assets.ledger.stream_lock import StreamRunning, only_stream
from antenna_assets.settings import Settings
from antenna_assets.storage.attempt import FilesGone, LakeUnwritable, lake_within_reach, require_writable
from antenna_assets.storage.disk import WHAT_TO_DO, free, is_full
from antenna_assets.streaming.double_counting import doubled_reading
from antenna_assets.streaming.errors import (
    QueryFailed,
    ReadingFailed,
    StateUnwritable,
    first_line,
    is_spark_error,
)
from antenna_assets.streaming.exact_ranges import PART_MESSAGES, Unreadable
from antenna_assets.streaming.micro_batch import REPORT_SECONDS, MicroBatches
from antenna_assets.streaming.spark import query as query_settings
from antenna_assets.streaming.spark.process import (
    SparkEnded,
    discard_java,
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
from antenna_assets.streaming.waiting import Waiting

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from pyspark.sql.streaming import StreamingQuery

FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 30.0
# A single record with which Spark fails, and its Java lives on, is tried again so often.
FAILURES_OF_A_RECORD = 3
# PostgreSQL sees a vanished client after 25 s; an outage of PostgreSQL itself ends all sessions.
OLD_SESSION_SECONDS = 60


# What another attempt, from the ledger, may mend.
_RETRYABLE = (
    psycopg.Error,
    DatabaseError,
    BrokerError,
    QueryFailed,
    StreamRunning,
    AttemptTooOld,
    HourExpired,
    LakeUnwritable,
    WrongLake,
    StateUnwritable,
)
# A person who starts a stream like that is told at once; only a stream that ran before waits.
_FATAL_AT_START = (LakeUnwritable, WrongLake, StateUnwritable, BrokerRefuses)


class Stream:
    """One stream of one topic into one ledger and lake.

    Args:
        say: takes one line of progress.
        stop: set it to stop after the micro-batch under way.
        start: where a topic begins that the ledger has not read yet, as `starts.read_from` takes it.
        spark: a session from `start_spark`, which stays open; one is started and closed if none is given.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        postgres_url: str,
        kafka_bootstrap: str,
        kafka_config: KafkaConfig = PLAIN,
        say: Callable[[str], None],
        stop: threading.Event,
        spark: "SparkSession | None" = None,
        start: str | None = None,
    ) -> None:
        self._settings = settings
        self._start = None if start is None else read_from(start)
        self._warned: set[str] = set()
        self._postgres_url = postgres_url
        self._broker = Broker(kafka_bootstrap, settings.topic, kafka_config)
        self._say = say
        self._stop = stop
        self._spark = spark
        self._owns_spark = spark is None
        # What Spark's reader failed over: up to which offset of each partition, and how many messages to try at once.
        self._unread: dict[int, int] = {}
        self._part = PART_MESSAGES
        self._failures = 0
        self._unreadable: Unreadable | None = None
        self._memory_was_short = False
        self._waiting = Waiting(postgres_url, settings.topic, say)
        self._batches = MicroBatches(
            settings, self._broker, say=say, stop=stop, on_commit=self._waiting.ended
        )

    def read_available(self) -> None:
        """Read to the broker's present end, close the hours that can be closed, and check that nothing is left.

        Raises:
            StreamError: messages are left, or the stream cannot run; also the errors of broker and database.
        """
        while True:
            try:
                if self._read_to_the_present_end():
                    return
            except (ReadingFailed, SparkEnded) as error:
                self._reduce_part_size(error)

    def _read_to_the_present_end(self) -> bool:
        """Whether it is reached; if not, another query should go on."""
        with java_exit_detected(), self._session() as (connection, topic):
            target = self._broker.next_offsets(topic)
            self._read_exactly(connection, topic)
            with self._query(connection, topic, available_now=True) as query:
                self._watch(query, connection)
            if self._stop.is_set():
                return True
            if self._batches.outgrown:
                return False
            self._batches.heartbeat(connection)
            done = self._batches.done(connection, topic)
            left = {
                partition: end - done[partition] for partition, end in target.items() if end > done[partition]
            }
            if left:
                raise StreamError(
                    f"expected to have read everything, but messages are left by partition: {left}"
                )
            return True

    def run(self) -> None:
        """Read until stopped. Waits while Kafka, PostgreSQL or the lake is away, and goes on from the ledger.

        Raises:
            StreamError, LedgerError: what waiting cannot mend.
        """
        wait = FIRST_WAIT_SECONDS
        lost: float | None = None
        while not self._stop.is_set():
            progress = self._batches.last_commit
            try:
                with java_exit_detected(), self._session() as (connection, topic):
                    self._read_exactly(connection, topic)
                    with self._query(connection, topic, available_now=False) as query:
                        lost = math.inf
                        try:
                            self._watch(query, connection)
                        except BrokerError as error:
                            # Said now: without Kafka, Spark takes up to a minute to stop the query.
                            self._waiting.begin(_name_of(error), first_line(error))
                            raise
            except (ReadingFailed, SparkEnded) as error:
                self._reduce_part_size(error)
            except _RETRYABLE as error:
                if isinstance(error, psycopg.Error) and not passes(error):
                    raise
                if isinstance(error, DatabaseUnfit) or (lost is None and isinstance(error, _FATAL_AT_START)):
                    raise
                now = time.monotonic()
                lost = now if lost == math.inf else lost
                # After a broken connection the lock may still be with our own old session, until PostgreSQL sees that
                # nobody is there.
                if isinstance(error, StreamRunning) and (lost is None or now - lost > OLD_SESSION_SECONDS):
                    raise
                # A start that comes to no commit is no progress: the next wait is longer.
                wait = FIRST_WAIT_SECONDS if self._batches.last_commit > progress else wait
                self._waiting.wait(_name_of(error), error, first_line(error), self._stop, wait)
                wait = min(2 * wait, LONGEST_WAIT_SECONDS)

    def close(self) -> None:
        """Stop the Spark session, if one was started."""
        if self._spark is not None and self._owns_spark:
            stop_spark(self._spark)
            self._spark = None

    @contextmanager
    def _session(self) -> Iterator[tuple[psycopg.Connection, Topic]]:
        """The ledger's connection, which holds the lock of the one stream, and the topic as the ledger knows it."""
        with connect(self._postgres_url, application="antenna stream", limits=STREAM) as connection:
            require_migrated(connection)
            require_start(connection, self._settings.start)
            with only_stream(connection):
                # Before anything is written there, a probe included.
                with lake_within_reach(self._settings.lake_uri):
                    require_own_lake(connection, self._settings.lake_uri)
                require_writable(self._settings.lake_uri)
                found = self._broker.describe()
                head = claim_topic(connection, found.name, found.id)
                topic = replace(found, id=head.topic_id)
                self._warn(topic)
                # Whatever the ledger ends at must be there before anything is noted.
                self._require_unread_messages_exist(connection, topic)
                settle_starts(
                    connection,
                    self._broker,
                    topic,
                    self._start,
                    self._say,
                    lambda first: doubled_reading(
                        connection, self._broker, topic, self._settings.lake_uri, first
                    ),
                )
                # Before Spark, which takes its time: a stream that starts again and again closes hours, too.
                self._batches.heartbeat(connection)
                with blocked.blocks_told(self._postgres_url, self._waiting.begin):
                    yield connection, topic

    def _warn(self, topic: Topic) -> None:
        """Say once what of the topic may lose messages without an error."""
        for warning in (
            topic.unseen,
            kept_too_shortly(topic.name, topic.kept_by_sender, self._settings.horizon),
        ):
            if warning and warning not in self._warned:
                self._warned.add(warning)
                self._say(warning)

    def _require_unread_messages_exist(self, connection: psycopg.Connection, topic: Topic) -> None:
        first = self._broker.earliest(topic)
        following = self._broker.next_offsets(topic)
        starts = {start.partition: start.start_offset for start in read_starts(connection, topic.id).values()}
        unread = starts | committed_offsets(connection, topic.id, topic.partitions)
        for partition, offset in unread.items():
            if first[partition] > offset:
                raise StreamError(
                    f"partition {partition} of {topic.name}: the ledger ends at offset {offset}, but Kafka's first is "
                    f"{first[partition]}: messages {offset} to {first[partition] - 1} are gone from Kafka unread; "
                    "`antenna accept-loss` records it and lets the stream go on"
                )
            if following[partition] < offset:
                raise StreamError(
                    f"partition {partition} of {topic.name}: the ledger ends at offset {offset}, but Kafka ends at "
                    f"{following[partition]}: Kafka lost messages that were read, or this is another cluster; "
                    "`antenna accept-loss` records it, and `antenna stream --from` says where to go on"
                )

    def _read_exactly(self, connection: psycopg.Connection, topic: Topic) -> None:
        """Read what Spark's reader failed over, if there is something, with Kafka's own client.

        Raises:
            Unreadable: all but a record and what is behind it in its partition was read.
        """
        if not self._unread:
            return
        spark = self._spark_session()
        with aggregation_engine(self._settings, spark) as engine:
            self._batches.read_exactly(
                connection,
                engine,
                spark,
                topic,
                self._unread,
                self._part,
                out_of_memory=self._memory_was_short,
            )
        self._unread, self._part = {}, PART_MESSAGES
        self._failures, self._memory_was_short = 0, False
        if self._unreadable is not None:
            raise self._unreadable

    def _reduce_part_size(self, error: ReadingFailed | SparkEnded) -> None:
        """Take note of messages that Spark failed over, and of a Java that ended by them.

        Raises:
            SparkEnded: Java was killed, or ended by nothing that it read.
        """
        # Whoever asks Java first sees that it is gone: this thread, or that of the micro-batch.
        found = (error, error.__cause__, self._batches.failure)
        failed = next((one for one in found if isinstance(one, ReadingFailed)), None)
        if failed is None:
            raise error
        if isinstance(error, SparkEnded):
            if not self._owns_spark or not java_crashed():
                raise error
            discard_java()
            self._spark = None
            self._memory_was_short = True
        if failed.record is not None:
            self._failures += 1
            if isinstance(error, SparkEnded) or self._failures > FAILURES_OF_A_RECORD:
                self._give_up(failed)
                return
            # What failed may be something else, as a store.
            self._stop.wait(FIRST_WAIT_SECONDS * self._failures)
        if self._unread:
            self._part = max(1, failed.messages // 2)
        self._unread = {**failed.until, **self._unread}
        self._say(f"{failed}; Kafka's own client reads them, in smaller parts")

    def _give_up(self, failed: ReadingFailed) -> None:
        """Read all but this record and what is behind it in its partition, and then end by it."""
        assert failed.record is not None
        partition, offset = failed.record
        self._unreadable = self._unreadable or Unreadable(self._settings.topic, partition, offset, failed.why)
        self._unread[partition] = offset
        self._part, self._failures = PART_MESSAGES, 0

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
        done = self._batches.done(connection, topic)
        checkpoint = new_checkpoint(self._settings.home)
        limit = self._batches.size.limit(query_settings.MESSAGES_PER_BATCH)
        messages = stream_messages(spark, self._broker, topic, done, limit)
        writer = messages.writeStream.option("checkpointLocation", checkpoint.as_uri())
        if available_now:
            writer = writer.trigger(availableNow=True)
        elif self._settings.trigger:
            writer = writer.trigger(processingTime=f"{int(self._settings.trigger.total_seconds())} seconds")
        try:
            with (
                aggregation_engine(self._settings, spark) as engine,
                self._batches.batch_handler(connection, engine, checkpoint) as process,
            ):
                query = writer.foreachBatch(process).start()
                try:
                    yield query
                finally:
                    # What is under way comes to its end first; the next micro-batch sees `stop` or the stopped query.
                    self._batches.wait_until_idle()
                    if not java_has_exited():
                        query.stop()
        finally:
            commit_point("stream.before_sweep")
            shutil.rmtree(checkpoint, ignore_errors=True)

    def _watch(self, query: "StreamingQuery", connection: psycopg.Connection) -> None:
        """Wait for the query's end, close hours meanwhile, and report.

        Raises:
            QueryFailed, StateUnwritable, or the error of a micro-batch: the query ended by it.
        """
        reported = time.monotonic()
        # The query itself goes on after a failed commit, until it has a next micro-batch.
        while (
            query.isActive
            and self._batches.failure is None
            and not self._batches.outgrown
            and not self._stop.wait(0.2)
        ):
            self._batches.heartbeat_if_due(connection)
            if time.monotonic() - reported > REPORT_SECONDS and self._batches.report():
                reported = time.monotonic()
        self._batches.wait_until_idle()
        if not self._stop.is_set() and not (self._batches.outgrown and query.isActive):
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
            raise StateUnwritable(
                f"no space left for the stream's state in {self._settings.home} ({free(self._settings.home)}) or for "
                f"Spark's temporary files in {tempfile.gettempdir()} ({free(tempfile.gettempdir())}); {WHAT_TO_DO}"
            ) from error
        if error is not None:
            raise QueryFailed(f"Spark stopped the query: {first_line(error)}") from error


def _name_of(error: Exception) -> str:
    """What is away, by the error that says so."""
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return "PostgreSQL's primary"
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return blocked.NAME
    names: dict[type[Exception], str] = {
        BrokerError: "Kafka",
        BrokerRefuses: "Kafka",
        RightMissing: "Kafka",
        QueryFailed: "Spark",
        StreamRunning: "another stream",
        AttemptTooOld: "the next attempt",
        FilesGone: "the next attempt",
        HourExpired: "the next attempt",
        LakeUnwritable: "the lake",
        WrongLake: "the lake",
        StateUnwritable: "the state",
    }
    return names.get(type(error), "PostgreSQL")
