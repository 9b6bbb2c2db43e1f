"""Landing micro-batches with Spark, while the one before is committed.

At most one landed micro-batch waits for the commit of the one before it, and all are committed in the order
of their offsets. What Spark's reader fails over is read again in smaller parts (decision 18). Files are
written in `land.py`; commits are in `streaming/committer.py`; queries are started in `reader.py`.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from antenna_assets.clients.kafka_broker import Broker, Topic
from antenna_assets.engines.contract import Engine
from antenna_assets.errors import StreamError
from antenna_assets.ledger.offsets import OffsetRange
from antenna_assets.settings import Settings
from antenna_assets.storage.attempt import LakeUnwritable
from antenna_assets.streaming.batch_size import BatchSize
from antenna_assets.streaming.committer import Committer, LandedBatch
from antenna_assets.streaming.errors import QueryFailed, ReadingFailed, first_line
from antenna_assets.streaming.exact_ranges import PART_MESSAGES, PartBounds, Unreadable, read_ranges
from antenna_assets.streaming.spark import query
from antenna_assets.streaming.spark.land import write
from antenna_assets.streaming.spark.planned_offsets import planned_ranges
from antenna_assets.streaming.spark.process import is_spark_error, java_exits_within

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

MAX_ONE_BY_ONE = 1_000
"""Records that are read one by one before packed ones are tried again."""


@dataclass(frozen=True)
class _Source:
    """What is read from Kafka at once.

    Attributes:
        messages: how many there are; None if unknown, as control records lie in the ranges too.
        record: partition and offset, if it is a single message.
    """

    ranges: Sequence[OffsetRange]
    messages: int | None = None
    record: tuple[int, int] | None = None

    @contextmanager
    def failures_told_apart(self) -> Iterator[None]:
        """Tell a failure of Spark over these messages from other failures, such as the lake's.

        Raises:
            ReadingFailed: Spark or its Java failed in the block.
        """
        try:
            yield
        except Exception as error:
            # A Java that has exited refuses connections, and so does a lake's store that is away.
            of_java = isinstance(error, LakeUnwritable) and isinstance(error.__cause__, ConnectionError)
            if not (is_spark_error(error) or (of_java and java_exits_within(1))):
                raise
            reason = (
                "Java ended over them, as it does without memory"
                if java_exits_within(0)
                else first_line(error)
            )
            until = {one.partition: one.until_offset for one in self.ranges}
            count = self.messages
            if count is None:
                count = sum(one.until_offset - one.from_offset for one in self.ranges)
            raise ReadingFailed(reason, until, count, self.record) from error


class MicroBatches:
    """The micro-batches of one stream, over all of its queries.

    Args:
        stop: once it is set, no micro-batch begins.

    Attributes:
        failure: the error of the query's first micro-batch that was not committed; None if there is none.
        size: how many messages a micro-batch takes.
        size_changed: whether the query should be started again, for micro-batches of another size.
    """

    def __init__(
        self, settings: Settings, broker: Broker, committer: Committer, *, stop: threading.Event
    ) -> None:
        self._settings = settings
        self._broker = broker
        self._committer = committer
        self._stop = stop
        self._landing = threading.Lock()
        self._committing: Future[None] | None = None
        self.size = BatchSize()
        self.size_changed = False
        self.failure: BaseException | None = None

    @contextmanager
    def handler(
        self, connection: psycopg.Connection, engine: Engine, checkpoint: Path
    ) -> Iterator[Callable[["DataFrame", int], None]]:
        """The function that Spark calls with each micro-batch: it lands it and hands it to the committer.

        At the end of the block everything that was landed is committed, or has failed.
        """
        self.failure = self._committing = None
        self.size_changed = False
        self._committer.refresh(connection)
        with ThreadPoolExecutor(1, "antenna commit") as executor:

            def process(messages: "DataFrame", spark_batch: int) -> None:
                with self._landing, self._recording_failure():
                    landed = self._land(checkpoint, messages, spark_batch)
                    if landed is not None:
                        self._committing = executor.submit(self._commit, connection, engine, landed)

            try:
                yield process
            finally:
                self.wait_until_idle()

    def wait_until_idle(self) -> None:
        """Wait until the micro-batches in progress, if any, are committed or have failed; see `failure`."""
        with self._landing:
            wait([self._committing] if self._committing is not None else [])

    def _land(self, checkpoint: Path, messages: "DataFrame", spark_batch: int) -> LandedBatch | None:
        """Write a micro-batch, and wait for the commit of the one before; None if it is empty."""
        if self._stop.is_set():
            raise StreamError("stopped before this micro-batch began")
        began = time.monotonic()
        try:
            ranges = planned_ranges(checkpoint, self._settings.topic, spark_batch)
        except OSError as error:
            raise QueryFailed(f"the throw-away checkpoint of this start is gone: {error}") from error
        # Spark begins with an empty micro-batch if there is nothing to read.
        if not ranges:
            return None
        landed = self._write(messages, _Source(ranges), began, first=spark_batch == 0)
        if landed.written is not None:
            read = (landed.written.messages, landed.written.value_bytes)
            self.size_changed |= self.size.learn(*read, query.MESSAGES_PER_BATCH)
        return landed

    def _write(
        self, messages: "DataFrame", source: _Source, began: float, *, first: bool = False
    ) -> LandedBatch:
        """Write messages as files; returns once the micro-batch before them is committed.

        Raises:
            ReadingFailed: Spark failed over the messages.
            Exception: the commit before failed, and nothing may be committed after it.
        """
        bounds = self._committer.bounds()
        with self._committer.new_attempt() as attempt:
            with source.failures_told_apart():
                written = write(
                    messages,
                    lake=self._settings.lake_uri,
                    folder=attempt.folder,
                    bounds=bounds,
                )
            if self._committing is not None:
                self._committing.result()
        return LandedBatch(attempt, written, source.ranges, bounds.clock, began, first)

    def _commit(self, connection: psycopg.Connection, engine: Engine, batch: LandedBatch) -> None:
        with self._recording_failure():
            self._committer.commit(connection, batch, self._committer.read_back(engine, batch))

    @contextmanager
    def _recording_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self.failure = self.failure or error
            raise

    def read_exactly(
        self,
        connection: psycopg.Connection,
        engine: Engine,
        spark: "SparkSession",
        topic: Topic,
        until: Mapping[int, int],
        max_messages: int,
        *,
        out_of_memory: bool,
    ) -> None:
        """Read and commit messages that Spark's reader failed over, in small parts.

        Args:
            topic: with the id that the ledger knows.
            until: the offset to stop before, of each partition.
            max_messages: of the first part; each later one may have twice as many.
            out_of_memory: whether Java ended over them.

        Raises:
            ReadingFailed: Spark failed over a part. Everything before it is committed.
            Unreadable: neither client can read a record. Everything before it, and in the other partitions,
                is committed.
        """
        self.failure = self._committing = None
        self._committer.refresh(connection)
        bounds = PartBounds(messages=max_messages)
        messages_read = bytes_read = 0
        while not self._stop.is_set():
            done = self._committer.next_offsets(connection, topic)
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
                        # No query is watched meanwhile, which would send them.
                        self._committer.heartbeat_if_due(connection)
                        count = part.messages.num_rows
                        if not count:
                            self._commit(connection, engine, self._without_messages(part.ranges))
                            continue
                        source = _Source(part.ranges, count, part.record)
                        with source.failures_told_apart():
                            messages = spark.createDataFrame(part.messages)
                        self._write_and_commit(connection, engine, messages, source)
                        messages_read += count
                        bytes_read += part.value_bytes
                        bounds.messages = min(2 * bounds.messages, PART_MESSAGES)
                break
            except Unreadable as stuck:
                # Records that were packed together may be too large only together.
                self._read_one_by_one(connection, engine, spark, stuck, until[stuck.partition])
        if out_of_memory:
            self.size.out_of_memory(messages_read, bytes_read)
        else:
            self.size.learn(messages_read, bytes_read, query.MESSAGES_PER_BATCH)

    def _without_messages(self, ranges: Sequence[OffsetRange]) -> LandedBatch:
        clock = self._committer.bounds().clock
        return LandedBatch(self._committer.new_attempt(), None, ranges, clock, time.monotonic(), first=False)

    def _read_one_by_one(
        self,
        connection: psycopg.Connection,
        engine: Engine,
        spark: "SparkSession",
        stuck: Unreadable,
        until: int,
    ) -> None:
        """Read on from a record with Spark's reader, which unpacks them singly: one, then more and more."""
        begin, count = stuck.offset, 1
        while begin < until and count < MAX_ONE_BY_ONE and not self._stop.is_set():
            wanted = OffsetRange(stuck.partition, begin, min(until, begin + count))
            source = _Source([wanted], record=(wanted.partition, begin) if count == 1 else None)
            with source.failures_told_apart():
                messages = query.read_range(spark, self._broker, wanted)
            self._write_and_commit(connection, engine, messages, source)
            begin, count = wanted.until_offset, 2 * count

    def _write_and_commit(
        self, connection: psycopg.Connection, engine: Engine, messages: "DataFrame", source: _Source
    ) -> None:
        self._commit(connection, engine, self._write(messages, source, time.monotonic()))
