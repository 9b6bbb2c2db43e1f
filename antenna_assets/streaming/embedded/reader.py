"""The embedded reader: consume, judge and land, read back, commit, side by side.

`streaming/job.py` decides when to start and whether to wait. Each start takes the ledger's offsets.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
import pyarrow as pa

from antenna_assets.clients.clock import host_now
from antenna_assets.clients.kafka_broker import Broker, Topic
from antenna_assets.engines.contract import Engine
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.batch import BatchContent
from antenna_assets.ledger.offsets import OffsetRange
from antenna_assets.settings import Settings
from antenna_assets.streaming.committer import REPORT_SECONDS, Committer, LandedBatch
from antenna_assets.streaming.embedded.batches import ReadBatch, read_batches
from antenna_assets.streaming.embedded.consumer import TopicConsumer
from antenna_assets.streaming.embedded.errors import RecordRefused
from antenna_assets.streaming.embedded.land import Lander
from antenna_assets.streaming.embedded.stages import Handover, Stages
from antenna_assets.streaming.embedded_sums import embedded_sums
from antenna_assets.streaming.errors import ReaderFailed
from antenna_assets.streaming.exact_ranges import PartBounds, read_ranges
from antenna_assets.streaming.read_back import WrittenAttempt
from antenna_assets.streaming.verdicts.bounds import Bounds

if TYPE_CHECKING:
    from antenna_assets.streaming.verdicts.judged import Judge, Judged

FIRST_SIGN_SECONDS = 10.0
"""How long a start waits for Kafka's first answer: one without the right to read fails at once."""

RETRY_SECONDS = 1.0


class EmbeddedReader:
    """Reads one topic in this process, for one stream. See `Reader`.

    Args:
        say: takes one line of progress.
        stop: set it to stop after the micro-batches in progress.
    """

    def __init__(
        self,
        settings: Settings,
        broker: Broker,
        committer: Committer,
        *,
        say: Callable[[str], None],
        stop: threading.Event,
    ) -> None:
        self._settings = settings
        self._broker = broker
        self._committer = committer
        self._say = say
        self._stop = stop
        self._judge: Judge | None = None
        self._read_exactly_first = False
        self.wants_restart = False

    @contextmanager
    def started(
        self, connection: psycopg.Connection, topic: Topic, *, available_now: bool
    ) -> Iterator[Callable[[], None]]:
        """See `Reader.started`."""
        self.wants_restart = False
        self._committer.refresh(connection)
        with embedded_sums(self._settings) as engine, Lander(self._settings.lake_uri) as lander:
            if self._read_exactly_first:
                self._read_exactly(connection, engine, lander, topic)
            offsets = self._committer.next_offsets(connection, topic)
            until = self._broker.next_offsets(topic) if available_now else None
            begin = {partition: offsets[partition] for partition in topic.partitions}
            with TopicConsumer(self._broker, begin) as consumer:
                consumer.require_first_sign(FIRST_SIGN_SECONDS)
                running = _Running(
                    self._committer, lambda batch, first: self._land(lander, batch, first=first)
                )
                running.start(
                    consumer, begin, connection, engine, until=until, trigger=self._trigger(available_now)
                )
                try:
                    yield lambda: self._watch(running, connection, topic)
                finally:
                    running.end()

    def _trigger(self, available_now: bool) -> timedelta:
        return timedelta(0) if available_now else self._settings.trigger

    def recover(self, error: ReaderFailed) -> None:
        """See `Reader.recover`: the next start finds out what is lost, or reads within tighter bounds."""
        if isinstance(error, RecordRefused):
            self._say(f"{error}; all partitions are read within tighter bounds, up to their present ends")
            self._read_exactly_first = True
            return
        # A start checks which offsets are gone, and stops if they are. If they are not, this goes on.
        self._say(str(error))
        self._stop.wait(RETRY_SECONDS)

    def close(self) -> None:
        """See `Reader.close`."""
        if self._judge is not None:
            self._judge.close()
            self._judge = None

    def _land(self, lander: Lander, batch: ReadBatch, *, first: bool) -> LandedBatch:
        """Judge a micro-batch and write its files.

        Raises:
            LakeUnwritable: the lake's disk is full, or fails; nothing of the attempt is left there.
        """
        commit_point("stream.read")
        bounds = self._committer.bounds()
        attempt = self._committer.new_attempt()
        if not batch.messages.num_rows:
            return LandedBatch(attempt, None, batch.ranges, bounds.clock, batch.began, first)
        begun = host_now()
        judged = self._judged(batch.messages, bounds)
        commit_point("stream.land.judged")
        with attempt:
            lander.write(attempt.folder, judged.accepted, judged.rejected)
        written = WrittenAttempt(attempt.folder, begun, batch.messages.num_rows, batch.value_bytes)
        return LandedBatch(attempt, written, batch.ranges, bounds.clock, batch.began, first)

    def _judged(self, messages: pa.Table, bounds: Bounds) -> "Judged":
        from antenna_assets.streaming.verdicts.judged import Judge

        # The same for all micro-batches: it learns how the senders write.
        if self._judge is None:
            self._judge = Judge()
        return self._judge.judge(messages, bounds)

    def _read_exactly(
        self, connection: psycopg.Connection, engine: Engine, lander: Lander, topic: Topic
    ) -> None:
        """Read and commit everything up to the present ends within the bounds of `exact_ranges`.

        Raises:
            Unreadable: a record cannot be read. Everything before it, and in the other partitions, is
                committed.
        """
        offsets = self._committer.next_offsets(connection, topic)
        ranges = [
            OffsetRange(partition, offsets[partition], end)
            for partition, end in sorted(self._broker.next_offsets(topic).items())
            if offsets[partition] < end
        ]
        with closing(read_ranges(self._broker, ranges, PartBounds())) as parts:
            for part in parts:
                if self._stop.is_set():
                    return
                self._committer.heartbeat_if_due(connection)
                batch = ReadBatch(part.messages, [*part.ranges], part.value_bytes, time.monotonic())
                landed = self._land(lander, batch, first=False)
                self._committer.commit(connection, landed, self._committer.read_back(engine, landed))
        self._read_exactly_first = False

    def _watch(self, running: "_Running", connection: psycopg.Connection, topic: Topic) -> None:
        """Wait for the end, send heartbeats meanwhile, and report.

        Raises:
            Exception: the error of the stage that failed first, or of a heartbeat.
        """
        reported = time.monotonic()
        # After a failed commit the stages before it would go on until they have something to hand over.
        while running.is_running and running.failure is None and not self._stop.wait(0.1):
            self._committer.heartbeat_if_due(connection)
            # A start settles where new partitions begin.
            self.wants_restart = bool(self._committer.partitions - {*topic.partitions})
            if self.wants_restart:
                break
            if time.monotonic() - reported > REPORT_SECONDS and self._committer.report():
                reported = time.monotonic()
        running.end()
        if running.failure is not None and not self._stop.is_set():
            raise running.failure


class _Running:
    """The four stages between a start and its end.

    Args:
        land: writes the files of a micro-batch; also gets whether it is the first one.
    """

    def __init__(self, committer: Committer, land: Callable[[ReadBatch, bool], LandedBatch]) -> None:
        self._committer = committer
        self._land = land
        self._halt = threading.Event()
        self._stages = Stages()
        self._read: Handover[ReadBatch] = Handover()
        self._landed: Handover[LandedBatch] = Handover()
        self._summed: Handover[tuple[LandedBatch, BatchContent]] = Handover()

    def start(
        self,
        consumer: TopicConsumer,
        begin: Mapping[int, int],
        connection: psycopg.Connection,
        engine: Engine,
        *,
        until: Mapping[int, int] | None,
        trigger: timedelta,
    ) -> None:
        """Start the stages; see `read_batches` for `until` and `trigger`."""

        def read() -> None:
            batches: Iterable[ReadBatch] = read_batches(
                consumer,
                begin,
                stop=self._halt,
                is_wanted=lambda: self._read.is_wanted,
                until=until,
                trigger=trigger,
            )
            for batch in batches:
                self._read.give(batch)

        def land() -> None:
            for number, batch in enumerate(self._read):
                if self._halt.is_set():
                    return
                landed = self._land(batch, number == 0)
                # If the commit before it has failed, its files are removed.
                with landed.attempt:
                    self._landed.give(landed)

        def read_back() -> None:
            for landed in self._landed:
                content = self._committer.read_back(engine, landed)
                with landed.attempt:
                    self._summed.give((landed, content))

        def commit() -> None:
            for landed, content in self._summed:
                self._committer.commit(connection, landed, content)

        self._stages.start("antenna commit", commit, takes=self._summed)
        self._stages.start("antenna read back", read_back, takes=self._landed, gives=self._summed)
        self._stages.start("antenna land", land, takes=self._read, gives=self._landed)
        self._stages.start("antenna read", read, gives=self._read)

    @property
    def is_running(self) -> bool:
        return self._stages.are_running

    @property
    def failure(self) -> BaseException | None:
        """The error of the stage that failed first."""
        return self._stages.failure

    def end(self) -> None:
        """Read nothing more; returns once everything that was read is committed, or has failed."""
        self._halt.set()
        self._stages.join()
