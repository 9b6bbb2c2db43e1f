"""The streaming query: one pass from Kafka, with the ledger as its checkpoint.

This is wiring: parsing is in `parse.py`, files in `land.py`, the transaction in `commit.py`. Each start takes a
fresh, throw-away Spark checkpoint and the ledger's offsets.
"""

import json
import math
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg

from antenna_assets.crash import commit_point
from antenna_assets.database import DatabaseError, connect, require_migrated
from antenna_assets.disk import WHAT_TO_DO, free, is_full, unwritable
from antenna_assets.errors import AntennaError
from antenna_assets.hours import closed_before, hour_key
from antenna_assets.ledger import HourExpired, committed_offsets, expired_before
from antenna_assets.lifetimes import AttemptTooOld
from antenna_assets.settings import Settings
from antenna_assets.spark_session import java_has_ended
from antenna_assets.streaming.broker import Broker, BrokerError, Topic
from antenna_assets.streaming.commit import commit_batch, commit_heartbeat
from antenna_assets.streaming.head import claim_topic, read_head
from antenna_assets.streaming.land import Attempt, LakeUnwritable, land, require_writable
from antenna_assets.streaming.plan import planned_ranges
from antenna_assets.streaming.waiting import STREAM_LOCK, Waiting

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming import StreamingQuery

# A micro-batch of this size takes between one and two seconds: enough to hide the fixed costs, and a bound on memory.
MESSAGES_PER_BATCH = 300_000
# How long the stream is idle before the wall clock closes hours.
HEARTBEAT_SECONDS = 5
# How often a stream that runs for ever says what it did.
REPORT_SECONDS = 10
FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 30.0
# PostgreSQL sees a vanished client after 25 s; an outage of PostgreSQL itself ends all sessions.
OLD_SESSION_SECONDS = 60


def start_spark() -> "SparkSession":
    """The Spark session of a stream, with the Kafka connector. Spark Connect cannot run one."""
    from antenna_assets.spark_session import session
    from antenna_assets.stack.jars import spark_jars
    from antenna_assets.streaming.parse import SESSION_CONF

    jars = ",".join(str(jar) for jar in spark_jars())
    return session("antenna stream", master="local[*]", extra={"spark.jars": jars, **SESSION_CONF})


class StreamError(AntennaError):
    """The stream cannot go on; the message says why and what to do."""


class StreamRunning(StreamError):
    """Another stream holds this ledger."""


class QueryFailed(StreamError):
    """Spark gave the query up; another start from the ledger may succeed."""


class StateUnwritable(StreamError):
    """The state directory, or the folder of Spark's temporary files, cannot be written now."""


class SparkEnded(StreamError):
    """Spark's Java process is gone, and this process cannot have another."""


# What another attempt, from the ledger, may mend.
_PASSING = (
    psycopg.OperationalError,
    DatabaseError,
    BrokerError,
    QueryFailed,
    StreamRunning,
    AttemptTooOld,
    HourExpired,
    LakeUnwritable,
    StateUnwritable,
)
# A person who starts a stream on such a disk is told at once; only a stream that ran before waits.
_AN_ERROR_AT_THE_START = (LakeUnwritable, StateUnwritable)


def require_only_stream(connection: psycopg.Connection) -> None:
    """Take the lock of the one stream, which is held until the connection ends.

    Raises:
        StreamRunning: another connection has it.
    """
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", [STREAM_LOCK]).fetchone()
    if row is None or not row[0]:
        raise StreamRunning(
            "another stream is running on this ledger and only one may; stop it first, or leave this one be"
        )


class Stream:
    """One stream of one topic into one ledger and lake.

    Args:
        say: takes one line of progress.
        stop: set it to stop after the micro-batch under way.
        spark: a session from `start_spark`, which stays open; one is started and closed if none is given.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        postgres_url: str,
        kafka_bootstrap: str,
        say: Callable[[str], None],
        stop: threading.Event,
        spark: "SparkSession | None" = None,
    ) -> None:
        self._settings = settings
        self._postgres_url = postgres_url
        self._broker = Broker(kafka_bootstrap, settings.topic)
        self._say = say
        self._stop = stop
        self._spark = spark
        self._owns_spark = spark is None
        # One transaction at a time on the one connection: micro-batches and heartbeats come from two threads.
        self._ledger_in_use = threading.Lock()
        self._failure: BaseException | None = None
        self._waiting = Waiting(postgres_url, settings.topic, say)
        self._last_commit = self._last_beat = time.monotonic()
        self._unreported = [0, 0]

    def read_available(self) -> None:
        """Read to the broker's present end, close the hours that can be closed, and check that nothing is left.

        Raises:
            StreamError: messages are left, or the stream cannot run; also the errors of broker and database.
        """
        with _java_watched(), self._session() as (connection, topic):
            target = self._broker.next_offsets(topic)
            with self._query(connection, topic, available_now=True) as query:
                self._watch(query, connection)
            if self._stop.is_set():
                return
            self._beat(connection)
            done = self._done(connection, topic)
            left = {
                partition: end - done[partition] for partition, end in target.items() if end > done[partition]
            }
            if left:
                raise StreamError(
                    f"expected to have read everything, but messages are left by partition: {left}"
                )

    def run(self) -> None:
        """Read until stopped. Waits while Kafka, PostgreSQL or the lake is away, and goes on from the ledger.

        Raises:
            StreamError, LedgerError: what waiting cannot mend.
        """
        wait = FIRST_WAIT_SECONDS
        lost: float | None = None
        while not self._stop.is_set():
            progress = self._last_commit
            try:
                with (
                    _java_watched(),
                    self._session() as (connection, topic),
                    self._query(connection, topic, available_now=False) as query,
                ):
                    lost = math.inf
                    try:
                        self._watch(query, connection)
                    except BrokerError as error:
                        # Said now: without Kafka, Spark takes up to a minute to stop the query.
                        self._waiting.begin(_name_of(error), _first_line(error))
                        raise
            except _PASSING as error:
                if lost is None and isinstance(error, _AN_ERROR_AT_THE_START):
                    raise
                now = time.monotonic()
                lost = now if lost == math.inf else lost
                # After a broken connection the lock may still be with our own old session, until PostgreSQL sees that
                # nobody is there.
                if isinstance(error, StreamRunning) and (lost is None or now - lost > OLD_SESSION_SECONDS):
                    raise
                # A start that comes to no commit is no progress: the next wait is longer.
                wait = FIRST_WAIT_SECONDS if self._last_commit > progress else wait
                self._waiting.wait(_name_of(error), error, _first_line(error), self._stop, wait)
                wait = min(2 * wait, LONGEST_WAIT_SECONDS)

    def close(self) -> None:
        """Stop the Spark session, if one was started."""
        if self._spark is not None and self._owns_spark:
            if not java_has_ended():
                self._spark.stop()
            self._spark = None

    def _went_on(self) -> None:
        """Something was committed."""
        self._last_commit = time.monotonic()
        self._waiting.ended()

    @contextmanager
    def _session(self) -> Iterator[tuple[psycopg.Connection, Topic]]:
        """The ledger's connection, which holds the lock of the one stream, and the topic as the ledger knows it."""
        with connect(self._postgres_url, application="antenna stream") as connection:
            require_migrated(connection)
            require_only_stream(connection)
            require_writable(self._settings.lake_uri)
            topic = self._broker.describe()
            claim_topic(connection, topic.name, topic.id)
            self._require_unread_messages_exist(connection, topic)
            yield connection, topic

    def _require_unread_messages_exist(self, connection: psycopg.Connection, topic: Topic) -> None:
        first = self._broker.earliest(topic)
        following = self._broker.next_offsets(topic)
        for partition, offset in committed_offsets(connection, topic.id, topic.partitions).items():
            if first[partition] > offset:
                raise StreamError(
                    f"partition {partition} of {topic.name}: the ledger ends at offset {offset}, but Kafka's first is "
                    f"{first[partition]}: messages {offset} to {first[partition] - 1} are gone from Kafka unread; "
                    "`antenna accept-loss` records it and lets the stream go on"
                )
            if following[partition] < offset:
                raise StreamError(
                    f"partition {partition} of {topic.name}: the ledger ends at offset {offset}, but Kafka ends at "
                    f"{following[partition]}: Kafka lost messages that were read, or this is another cluster"
                )

    @contextmanager
    def _query(
        self, connection: psycopg.Connection, topic: Topic, *, available_now: bool
    ) -> Iterator["StreamingQuery"]:
        if self._spark is None:
            self._say("starting Spark")
            self._spark = start_spark()
        committed = committed_offsets(connection, topic.id, topic.partitions)
        checkpoints = self._settings.home / "checkpoints"
        # Left by a stream that was killed; no other runs, the lock says so.
        shutil.rmtree(checkpoints, ignore_errors=True)
        checkpoint = checkpoints / uuid4().hex
        try:
            checkpoint.mkdir(parents=True)
        except OSError as error:
            raise StateUnwritable(
                f"{unwritable('the state directory', self._settings.home, error)}; or set ANTENNA_HOME to another path"
            ) from error
        messages = (
            self._spark.readStream.format("kafka")
            .option("kafka.bootstrap.servers", self._broker.bootstrap)
            .option("subscribe", topic.name)
            # -2 is Kafka's "earliest".
            .option(
                "startingOffsets",
                json.dumps({topic.name: {str(p): committed.get(p, -2) for p in topic.partitions}}),
            )
            .option("maxOffsetsPerTrigger", MESSAGES_PER_BATCH)
            .option("failOnDataLoss", "true")
            .option("kafka.isolation.level", "read_committed")
            .load()
        )
        writer = messages.writeStream.option("checkpointLocation", checkpoint.as_uri()).foreachBatch(
            lambda batch, number: self._process(connection, checkpoint, batch, number)
        )
        if available_now:
            writer = writer.trigger(availableNow=True)
        elif self._settings.trigger:
            writer = writer.trigger(processingTime=f"{int(self._settings.trigger.total_seconds())} seconds")
        self._failure = None
        query = writer.start()
        try:
            yield query
        finally:
            # A micro-batch under way comes to its end first; the next one sees `stop` or the stopped query.
            with self._ledger_in_use:
                pass
            if not java_has_ended():
                query.stop()
            commit_point("stream.before_sweep")
            shutil.rmtree(checkpoint, ignore_errors=True)

    def _watch(self, query: "StreamingQuery", connection: psycopg.Connection) -> None:
        """Wait for the query's end, let the clock close hours while it is idle, and report."""
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException

        reported = time.monotonic()
        while query.isActive and not self._stop.wait(0.2):
            now = time.monotonic()
            if now - max(self._last_commit, self._last_beat) > HEARTBEAT_SECONDS:
                self._last_beat = now
                # Messages that are left may be those that the lake has no space for: that is no going on.
                if self._beat(connection):
                    self._went_on()
            if time.monotonic() - reported > REPORT_SECONDS and self._unreported[0]:
                self._say("{} messages in {} batches".format(*(f"{n:,}" for n in self._unreported)))
                self._unreported = [0, 0]
                reported = time.monotonic()
        if self._stop.is_set():
            return
        if self._failure is not None:
            if isinstance(self._failure, (Py4JError, PySparkException)):
                raise QueryFailed(f"a micro-batch failed: {_first_line(self._failure)}") from self._failure
            raise self._failure
        error = query.exception()
        if error is not None and is_full(error):
            raise StateUnwritable(
                f"no space left for the stream's state in {self._settings.home} ({free(self._settings.home)}) or for "
                f"Spark's temporary files in {tempfile.gettempdir()} ({free(tempfile.gettempdir())}); {WHAT_TO_DO}"
            ) from error
        if error is not None:
            raise QueryFailed(f"Spark stopped the query: {_first_line(error)}") from error

    def _process(
        self, connection: psycopg.Connection, checkpoint: Path, messages: "DataFrame", spark_batch: int
    ) -> None:
        """Land and commit one micro-batch; Spark calls it in a thread of its own."""
        with self._ledger_in_use:
            if self._stop.is_set():
                raise StreamError("stopped before this micro-batch began")
            try:
                self._land_and_commit(connection, checkpoint, messages, spark_batch)
            except BaseException as error:
                self._failure = error
                raise

    def _land_and_commit(
        self, connection: psycopg.Connection, checkpoint: Path, messages: "DataFrame", spark_batch: int
    ) -> None:
        settings = self._settings
        began = time.monotonic()
        try:
            ranges = planned_ranges(checkpoint, settings.topic, spark_batch)
        except OSError as error:
            raise QueryFailed(f"the throw-away checkpoint of this start is gone: {error}") from error
        # Spark begins with an empty micro-batch if there is nothing to read.
        if not ranges:
            return
        head = read_head(connection, settings.topic)
        clock = datetime.now(UTC)
        oldest = max(settings.start, clock - settings.horizon, expired_before(connection) or settings.start)
        with Attempt(settings.lake_uri, head.batch + 1) as attempt:
            landed = land(
                messages,
                lake=settings.lake_uri,
                folder=attempt.folder,
                clock=clock,
                oldest=oldest,
                window=settings.window,
            )
            # Asked after landing: a topic that was replaced meanwhile must not be committed under the old one's offsets.
            topic = self._broker.describe()
            claim_topic(connection, topic.name, topic.id)
            following = self._broker.next_offsets(topic)
            done = self._done(connection, topic) | {r.partition: r.until_offset for r in ranges}
            watermark = commit_batch(
                connection,
                topic=topic.name,
                topic_id=topic.id,
                number=head.batch + 1,
                clock=clock,
                ranges=ranges,
                landed=landed,
                lagging=[partition for partition, end in following.items() if end > done[partition]],
                lateness=settings.lateness,
                before_commit=attempt.keep,
            )
        self._went_on()
        read = sum(r.until_offset - r.from_offset for r in ranges)
        if spark_batch == 0 or self._last_commit - began > REPORT_SECONDS:
            closed = (
                f"hours before {hour_key(closed_before(watermark))} are closed"
                if watermark
                else "no hour is closed yet"
            )
            # The number is given in the transaction: a replay may have taken the one that was expected.
            number = read_head(connection, topic.name).batch
            self._say(f"batch {number}: {read:,} messages in {self._last_commit - began:.1f} s; {closed}")
        else:
            self._unreported = [self._unreported[0] + read, self._unreported[1] + 1]

    def _beat(self, connection: psycopg.Connection) -> bool:
        """Let the wall clock close hours if nothing is left to read; whether that was so."""
        with self._ledger_in_use:
            # Before Kafka is asked: whatever comes after this instant may still be on time.
            now = datetime.now(UTC)
            topic = self._broker.describe()
            done = self._done(connection, topic)
            if any(done[partition] < end for partition, end in self._broker.next_offsets(topic).items()):
                return False
            head = claim_topic(connection, topic.name, topic.id)
            commit_heartbeat(
                connection, topic=topic.name, batch=head.batch, now=now, lateness=self._settings.lateness
            )
            return True

    def _done(self, connection: psycopg.Connection, topic: Topic) -> dict[int, int]:
        """The offset to read next, of every partition: one that was never read begins at Kafka's first message."""
        return self._broker.earliest(topic) | committed_offsets(connection, topic.id, topic.partitions)


@contextmanager
def _java_watched() -> Iterator[None]:
    """Say it in one sentence if Spark's Java process is gone: every call into it fails in another way then.

    Raises:
        SparkEnded: it is; what is committed is whole, as ever.
    """
    try:
        yield
    except Exception as error:
        # The connection breaks a moment before the process can be seen to be gone.
        if _is_of_java(error) and _ends_within(1):
            raise SparkEnded(
                "Spark's Java process ended: it was killed, or there was no memory left; "
                "start the stream again, and it goes on from the ledger"
            ) from error
        raise


def _is_of_java(error: BaseException) -> bool:
    from py4j.protocol import Py4JError

    # A batch's failure is wrapped by then.
    return isinstance(error, (Py4JError, ConnectionError, EOFError, QueryFailed))


def _ends_within(seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not java_has_ended():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _name_of(error: Exception) -> str:
    """What is away, by the error that says so."""
    names: dict[type[Exception], str] = {
        BrokerError: "Kafka",
        QueryFailed: "Spark",
        StreamRunning: "another stream",
        AttemptTooOld: "the next attempt",
        HourExpired: "the next attempt",
        LakeUnwritable: "the lake",
        StateUnwritable: "the state",
    }
    return names.get(type(error), "PostgreSQL")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
