"""The micro-batches from Spark's call to the commit, and the heartbeat between two of them.

While one is committed, Spark lands the next: at most one waits for the one before it, and all are committed in the order
of their offsets. This is wiring, too: files are written in `streaming/spark/land.py` and read back in `read_back.py`, the transactions
are in `ledger/commit.py`. When a query runs, and what follows a failure, is `job.py`'s matter.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from antenna_assets.clients.clock import TOLERANCE, Clock
from antenna_assets.clients.kafka_broker import Broker, Topic
from antenna_assets.domain.closing_rule import Backlog, observed
from antenna_assets.domain.hours import closed_before, hour_key
from antenna_assets.engines.contract import Engine
from antenna_assets.errors import StreamError
from antenna_assets.ledger.batch import BatchContent, BatchPlan
from antenna_assets.ledger.closed_hours import quiet_hours_of
from antenna_assets.ledger.commit import Observation, commit_batch, commit_heartbeat
from antenna_assets.ledger.full_hours import full_hours
from antenna_assets.ledger.generations import expired_before
from antenna_assets.ledger.head import Head, claim_topic, read_head
from antenna_assets.ledger.offsets import OffsetRange
from antenna_assets.ledger.progress import backlog_of, next_to_read, read_past
from antenna_assets.settings import Settings
from antenna_assets.storage.attempt import Attempt, LakeUnwritable
from antenna_assets.streaming.batch_size import BatchSize
from antenna_assets.streaming.errors import QueryFailed, ReadingFailed, first_line, is_spark_error
from antenna_assets.streaming.exact_ranges import PART_MESSAGES, PartBounds, Unreadable, read_ranges
from antenna_assets.streaming.read_back import WrittenAttempt, read_back
from antenna_assets.streaming.spark import query
from antenna_assets.streaming.spark.land import write
from antenna_assets.streaming.spark.layout import CommonLayout
from antenna_assets.streaming.spark.planned_offsets import planned_ranges
from antenna_assets.streaming.spark.process import java_exits_within

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# How often a stream looks what it can close, with a batch or without.
HEARTBEAT_SECONDS = 5
# How often a stream that runs for ever says what it did. A micro-batch that takes longer is told by itself.
REPORT_SECONDS = 10


# Records that are read one by one before packed ones are tried again.
MOST_ONE_BY_ONE = 1_000


@dataclass(frozen=True)
class _LandedBatch:
    """A micro-batch whose files are written, with what its commit needs. It has none if there are only control records."""

    attempt: Attempt
    written: WrittenAttempt | None
    ranges: Sequence[OffsetRange]
    clock: datetime
    began: float
    first: bool


class MicroBatches:
    """The micro-batches and heartbeats of one stream, over all of its queries.

    Args:
        say: takes one line of progress.
        stop: once it is set, no micro-batch begins.
        on_commit: called when something was committed.

    Attributes:
        failure: what ended this query: the error of its first micro-batch that was not committed; None if there is none.
        size: how many messages a micro-batch takes.
        outgrown: whether the query should begin anew, as its micro-batches should be of another size.
        last_commit: when something was committed, on the monotonic clock; at first the time of the start.
    """

    def __init__(
        self,
        settings: Settings,
        broker: Broker,
        *,
        say: Callable[[str], None],
        stop: threading.Event,
        on_commit: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._broker = broker
        self._say = say
        self._stop = stop
        self._on_commit = on_commit
        self._landing = threading.Lock()
        # One transaction at a time on the one connection: micro-batches and heartbeats come from two threads.
        self._ledger_in_use = threading.Lock()
        self._committing: Future[None] | None = None
        self._clock: Clock | None = None
        self._clock_warning: str | None = None
        self._batch = self._newest_landed = 0
        self._oldest = settings.start
        self._full: list[datetime] = []
        self._layout = CommonLayout()
        self.size = BatchSize()
        self.outgrown = False
        self.failure: BaseException | None = None
        self.last_commit = self._last_heartbeat = time.monotonic()
        self._unreported = [0, 0]

    @contextmanager
    def batch_handler(
        self, connection: psycopg.Connection, engine: Engine, checkpoint: Path
    ) -> Iterator[Callable[["DataFrame", int], None]]:
        """What Spark is to call with each micro-batch of a query: it lands one and hands it over to be committed.

        At the end of the block all that was landed is committed, or has failed.
        """
        self.failure = self._committing = None
        self.outgrown = False
        self._refresh_head(connection)
        self._newest_landed = self._batch
        with ThreadPoolExecutor(1, "antenna commit") as committer:

            def process(messages: "DataFrame", spark_batch: int) -> None:
                with self._landing, self._recording_failure():
                    landed = self._land(checkpoint, messages, spark_batch)
                    if landed is not None:
                        self._committing = committer.submit(self._commit, connection, engine, landed)

            try:
                yield process
            finally:
                self.wait_until_idle()

    def heartbeat(self, connection: psycopg.Connection) -> bool:
        """Close what can be closed by now; whether nothing is left to read."""
        settings = self._settings
        with self._ledger_in_use:
            # Before Kafka is asked: whatever comes after this instant may still be on time.
            now = self._read_clock(connection)
            topic = self._broker.describe()
            left = backlog_of(self._broker, topic, self.done(connection, topic))
            head = claim_topic(connection, topic.name, topic.id)
            past = self._read_past(connection, head, topic, left, now) if left else None
            commit_heartbeat(
                connection,
                topic.name,
                head.batch,
                Observation(now, left, past, self._clock_warning),
                lateness=settings.lateness,
                quiet=settings.quiet,
            )
            self._last_heartbeat = time.monotonic()
            return not left

    def _read_past(
        self,
        connection: psycopg.Connection,
        head: Head,
        topic: Topic,
        left: Mapping[int, Backlog],
        now: datetime,
    ) -> datetime | None:
        """See `read_past`. Kafka is asked about quiet hours alone, and never while the head is locked."""
        settings = self._settings
        state = observed(head.state, now=now, lagging=left, delivered={})
        quiet = quiet_hours_of(
            connection,
            replace(head, state=state),
            now=now,
            lateness=settings.lateness,
            quiet=settings.quiet,
        )
        return read_past(self._broker, topic, left, quiet)

    def heartbeat_if_due(self, connection: psycopg.Connection) -> None:
        """Beat if the last one was `HEARTBEAT_SECONDS` ago."""
        # Messages that are left may be those that the lake has no space for: that is no going on.
        if time.monotonic() - self._last_heartbeat > HEARTBEAT_SECONDS and self.heartbeat(connection):
            self._committed()

    def done(self, connection: psycopg.Connection, topic: Topic) -> dict[int, int]:
        """See `next_to_read`."""
        return next_to_read(connection, self._broker, topic)

    def wait_until_idle(self) -> None:
        """Wait until the micro-batches under way, if there are some, are committed or have failed."""
        with self._landing:
            # Whether it failed is told by `failure`.
            wait([self._committing] if self._committing is not None else [])

    def report(self) -> bool:
        """Say what was committed since the last report; whether there was anything."""
        messages, batches = self._unreported
        if not messages:
            return False
        self._say(f"{messages:,} messages in {batches:,} batches")
        self._unreported = [0, 0]
        return True

    def _ranges(self, checkpoint: Path, spark_batch: int) -> list[OffsetRange]:
        try:
            return planned_ranges(checkpoint, self._settings.topic, spark_batch)
        except OSError as error:
            raise QueryFailed(f"the throw-away checkpoint of this start is gone: {error}") from error

    def _land(self, checkpoint: Path, messages: "DataFrame", spark_batch: int) -> _LandedBatch | None:
        """Write a micro-batch, and wait until the one before it is committed; None if Spark had nothing to read."""
        if self._stop.is_set():
            raise StreamError("stopped before this micro-batch began")
        began = time.monotonic()
        ranges = self._ranges(checkpoint, spark_batch)
        # Spark begins with an empty micro-batch if there is nothing to read.
        if not ranges:
            return None
        landed = self._written(messages, ranges, began, first=spark_batch == 0)
        if landed.written is not None:
            read = (landed.written.messages, landed.written.value_bytes)
            self.outgrown |= self.size.learn(*read, query.MESSAGES_PER_BATCH)
        return landed

    def _written(
        self,
        messages: "DataFrame",
        ranges: Sequence[OffsetRange],
        began: float,
        *,
        first: bool,
        count: int | None = None,
        record: tuple[int, int] | None = None,
    ) -> _LandedBatch:
        """The messages of the ranges as files, once the micro-batch before them is committed.

        Raises:
            ReadingFailed: Spark failed over the messages.
        """
        settings = self._settings
        clock = self._now()
        # One above the last that was landed, whether that is committed by now or not: the folder's name alone has it.
        self._newest_landed = max(self._batch, self._newest_landed) + 1
        with Attempt(settings.lake_uri, self._newest_landed) as attempt:
            with _reading(ranges, count, record):
                written = write(
                    messages,
                    lake=settings.lake_uri,
                    folder=attempt.folder,
                    clock=clock,
                    oldest=max(self._oldest, clock - settings.horizon),
                    full=self._full,
                    layout=self._layout.of(messages),
                )
            self._wait_for_commit()
        return _LandedBatch(attempt, written, ranges, clock, began, first=first)

    def read_exactly(
        self,
        connection: psycopg.Connection,
        engine: Engine,
        spark: "SparkSession",
        topic: Topic,
        until: Mapping[int, int],
        most: int,
        *,
        out_of_memory: bool,
    ) -> None:
        """Read and commit messages that Spark's reader failed over, up to an offset of each partition, in small parts.

        Args:
            most: messages of the first part; each later one may have twice as many.
            out_of_memory: whether Java ended over them.

        Raises:
            ReadingFailed: Spark failed over a part. What was before it is committed.
            Unreadable: a record that neither client can read. What is before it, and in the other partitions, is committed.
        """
        self.failure = self._committing = None
        self._refresh_head(connection)
        self._newest_landed = self._batch
        bounds = PartBounds(messages=most)
        read = [0, 0]
        while not self._stop.is_set():
            done = self.done(connection, topic)
            ranges = [
                OffsetRange(partition, done[partition], end)
                for partition, end in sorted(until.items())
                if done[partition] < end
            ]
            try:
                with closing(read_ranges(self._broker, ranges, bounds)) as parts:
                    for part in parts:
                        if self._stop.is_set():
                            return
                        # Nobody watches a query meanwhile.
                        self.heartbeat_if_due(connection)
                        count = part.messages.num_rows
                        if not count:
                            self._commit(connection, engine, self._without_messages(part.ranges))
                            continue
                        with _reading(part.ranges, count, part.record):
                            messages = spark.createDataFrame(part.messages)
                        self._commit_part(connection, engine, messages, part.ranges, count, part.record)
                        read = [read[0] + count, read[1] + part.value_bytes]
                        bounds.messages = min(2 * bounds.messages, PART_MESSAGES)
                break
            except Unreadable as stuck:
                # Records that were packed together may be too large together only.
                self._read_one_by_one(connection, engine, spark, stuck, until[stuck.partition])
        if out_of_memory:
            self.size.out_of_memory(read[0], read[1])
        else:
            self.size.learn(read[0], read[1], query.MESSAGES_PER_BATCH)

    def _without_messages(self, ranges: Sequence[OffsetRange]) -> _LandedBatch:
        attempt = Attempt(self._settings.lake_uri, self._batch + 1)
        return _LandedBatch(attempt, None, ranges, self._now(), time.monotonic(), first=False)

    def _read_one_by_one(
        self,
        connection: psycopg.Connection,
        engine: Engine,
        spark: "SparkSession",
        stuck: Unreadable,
        until: int,
    ) -> None:
        """Read on from a record by Spark's reader, which unpacks one record after the other: that one, then more and more."""
        begin, count = stuck.offset, 1
        while begin < until and count < MOST_ONE_BY_ONE and not self._stop.is_set():
            wanted = OffsetRange(stuck.partition, begin, min(until, begin + count))
            record = (wanted.partition, begin) if count == 1 else None
            with _reading([wanted], None, record):
                messages = query.read_range(spark, self._broker, wanted)
            self._commit_part(connection, engine, messages, [wanted], None, record)
            begin, count = wanted.until_offset, 2 * count

    def _commit_part(
        self,
        connection: psycopg.Connection,
        engine: Engine,
        messages: "DataFrame",
        ranges: Sequence[OffsetRange],
        count: int | None,
        record: tuple[int, int] | None,
    ) -> None:
        written = self._written(messages, ranges, time.monotonic(), first=False, count=count, record=record)
        self._commit(connection, engine, written)

    def _wait_for_commit(self) -> None:
        """Wait for the commit under way.

        Raises:
            What it raised: nothing may be committed after it.
        """
        if self._committing is not None:
            self._committing.result()

    def _commit(self, connection: psycopg.Connection, engine: Engine, batch: _LandedBatch) -> None:
        settings = self._settings
        with self._ledger_in_use, self._recording_failure(), batch.attempt:
            content = BatchContent()
            if batch.written is not None:
                content = read_back(batch.written, engine, lake=settings.lake_uri, window=settings.window)
            now = self._read_clock(connection)
            # Asked after landing: a topic that was replaced meanwhile must not be committed under the old one's offsets.
            topic = self._broker.describe()
            head = claim_topic(connection, topic.name, topic.id)
            done = self.done(connection, topic) | {r.partition: r.until_offset for r in batch.ranges}
            left = backlog_of(self._broker, topic, done)
            watermark = commit_batch(
                connection,
                BatchPlan(topic.name, head.topic_id, head.batch + 1, batch.clock, batch.ranges),
                content,
                Observation(now, left, host_clock=self._clock_warning),
                lateness=settings.lateness,
                before_commit=batch.attempt.keep,
            )
            self._committed()
            self._refresh_head(connection)
            self._report(batch, watermark)

    def _refresh_head(self, connection: psycopg.Connection) -> None:
        """What landing needs of the ledger, which the connection cannot be asked for while it commits.

        Retention may go on meanwhile; the commit looks again.
        """
        self._read_clock(connection)
        self._batch = read_head(connection, self._settings.topic).batch
        self._oldest = max(self._settings.start, expired_before(connection) or self._settings.start)
        self._full = full_hours(connection)

    def _read_clock(self, connection: psycopg.Connection) -> datetime:
        """PostgreSQL's clock, and a word on this host if its own is wrong."""
        if self._clock is None:
            self._clock = Clock(connection)
        now = self._clock.read(connection)
        if abs(self._clock.step) > TOLERANCE:
            way = "forwards" if self._clock.step > timedelta(0) else "back"
            apart = timedelta(seconds=round(abs(self._clock.step).total_seconds()))
            self._say(
                f"PostgreSQL's clock was set {way} by {apart}; it is the clock that closes hours: if it is "
                "wrong now, stop the stream, set it right, and see `antenna reopen`"
            )
        wrong = self._clock.wrong_host
        if wrong is not None and self._clock_warning is None:
            self._say(f"{wrong}: nothing is rejected or closed by it, but set it right")
        self._clock_warning = wrong
        return now

    def _now(self) -> datetime:
        """PostgreSQL's clock, as last read, for whoever cannot ask: the connection may be in the middle of a commit."""
        if self._clock is None:
            raise StreamError("no query runs: the clock was never read")
        return self._clock.now()

    @contextmanager
    def _recording_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self.failure = self.failure or error
            raise

    def _committed(self) -> None:
        self.last_commit = time.monotonic()
        self._on_commit()

    def _report(self, batch: _LandedBatch, watermark: datetime | None) -> None:
        """Say what was committed if it was the query's first micro-batch or took long; else keep it for `report`."""
        read = sum(r.until_offset - r.from_offset for r in batch.ranges)
        seconds = self.last_commit - batch.began
        if not batch.first and seconds <= REPORT_SECONDS:
            self._unreported = [self._unreported[0] + read, self._unreported[1] + 1]
            return
        closed = (
            f"hours before {hour_key(closed_before(watermark))} are closed"
            if watermark
            else "no hour is closed yet"
        )
        # The number is given in the transaction: a replay may have taken the one that was expected.
        self._say(f"batch {self._batch}: {read:,} messages in {seconds:.1f} s; {closed}")


@contextmanager
def _reading(
    ranges: Sequence[OffsetRange], count: int | None, record: tuple[int, int] | None
) -> Iterator[None]:
    """Tell Spark's failure over messages from others, as of the lake.

    Args:
        count: the messages of the ranges, if that is known: control records are in them, too.
        record: the only one.

    Raises:
        ReadingFailed: the block failed so.
    """
    try:
        yield
    except Exception as error:
        # Java that is gone refuses connections, as a lake's store may.
        of_java = isinstance(error, LakeUnwritable) and isinstance(error.__cause__, ConnectionError)
        if not (is_spark_error(error) or (of_java and java_exits_within(1))):
            raise
        why = "Java ended over them, as it does without memory" if java_exits_within(0) else first_line(error)
        until = {one.partition: one.until_offset for one in ranges}
        if count is None:
            count = sum(one.until_offset - one.from_offset for one in ranges)
        raise ReadingFailed(why, until, count, record) from error
