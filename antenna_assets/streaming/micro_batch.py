"""One micro-batch from Spark's call to the commit, and the heartbeat between two of them.

This is wiring, too: files are written in `land.py`, the transactions are in `commit.py`. When a query runs, and what
follows a failure, is `job.py`'s matter.
"""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from antenna_assets.hours import closed_before, hour_key
from antenna_assets.ledger import committed_offsets, expired_before
from antenna_assets.settings import Settings
from antenna_assets.streaming.broker import Broker, Topic
from antenna_assets.streaming.commit import commit_batch, commit_heartbeat
from antenna_assets.streaming.errors import QueryFailed, StreamError
from antenna_assets.streaming.head import claim_topic, read_head
from antenna_assets.streaming.land import Attempt, land
from antenna_assets.streaming.plan import OffsetRange, planned_ranges

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

# How long the stream is idle before the wall clock closes hours.
HEARTBEAT_SECONDS = 5
# How often a stream that runs for ever says what it did. A micro-batch that takes longer is told by itself.
REPORT_SECONDS = 10


class MicroBatches:
    """The micro-batches and heartbeats of one stream, over all of its queries.

    Args:
        say: takes one line of progress.
        stop: once it is set, no micro-batch begins.
        went_on: called when something was committed.

    Attributes:
        failure: what ended the last micro-batch of this query; None if it was committed.
        last_commit: when something was committed, on the monotonic clock; at first the time of the start.
    """

    def __init__(
        self,
        settings: Settings,
        broker: Broker,
        *,
        say: Callable[[str], None],
        stop: threading.Event,
        went_on: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._broker = broker
        self._say = say
        self._stop = stop
        self._went_on = went_on
        # One transaction at a time on the one connection: micro-batches and heartbeats come from two threads.
        self._ledger_in_use = threading.Lock()
        self.failure: BaseException | None = None
        self.last_commit = self._last_beat = time.monotonic()
        self._unreported = [0, 0]

    def process(
        self, connection: psycopg.Connection, checkpoint: Path, messages: "DataFrame", spark_batch: int
    ) -> None:
        """Land and commit one micro-batch; Spark calls it in a thread of its own."""
        with self._ledger_in_use:
            if self._stop.is_set():
                raise StreamError("stopped before this micro-batch began")
            try:
                began = time.monotonic()
                ranges = self._ranges(checkpoint, spark_batch)
                # Spark begins with an empty micro-batch if there is nothing to read.
                if not ranges:
                    return
                watermark = self._land_and_commit(connection, messages, ranges)
                self._committed()
                self._report(connection, ranges, watermark, began=began, first=spark_batch == 0)
            except BaseException as error:
                self.failure = error
                raise

    def beat(self, connection: psycopg.Connection) -> bool:
        """Let the wall clock close hours if nothing is left to read; whether that was so."""
        with self._ledger_in_use:
            # Before Kafka is asked: whatever comes after this instant may still be on time.
            now = datetime.now(UTC)
            topic = self._broker.describe()
            done = self.done(connection, topic)
            if any(done[partition] < end for partition, end in self._broker.next_offsets(topic).items()):
                return False
            head = claim_topic(connection, topic.name, topic.id)
            commit_heartbeat(
                connection, topic=topic.name, batch=head.batch, now=now, lateness=self._settings.lateness
            )
            return True

    def beat_if_idle(self, connection: psycopg.Connection) -> None:
        """Beat after `HEARTBEAT_SECONDS` without a commit or a beat."""
        now = time.monotonic()
        if now - max(self.last_commit, self._last_beat) > HEARTBEAT_SECONDS:
            self._last_beat = now
            # Messages that are left may be those that the lake has no space for: that is no going on.
            if self.beat(connection):
                self._committed()

    def done(self, connection: psycopg.Connection, topic: Topic) -> dict[int, int]:
        """The offset to read next, of every partition: one that was never read begins at Kafka's first message."""
        return self._broker.earliest(topic) | committed_offsets(connection, topic.id, topic.partitions)

    def wait_until_idle(self) -> None:
        """Wait until the micro-batch under way, if there is one, is committed or has failed."""
        with self._ledger_in_use:
            pass

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

    def _land_and_commit(
        self, connection: psycopg.Connection, messages: "DataFrame", ranges: list[OffsetRange]
    ) -> datetime | None:
        """Returns the new low watermark."""
        settings = self._settings
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
            done = self.done(connection, topic) | {r.partition: r.until_offset for r in ranges}
            return commit_batch(
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

    def _committed(self) -> None:
        self.last_commit = time.monotonic()
        self._went_on()

    def _report(
        self,
        connection: psycopg.Connection,
        ranges: list[OffsetRange],
        watermark: datetime | None,
        *,
        began: float,
        first: bool,
    ) -> None:
        """Say what was committed if it was the query's first micro-batch or took long; else keep it for `report`."""
        read = sum(r.until_offset - r.from_offset for r in ranges)
        seconds = self.last_commit - began
        if not first and seconds <= REPORT_SECONDS:
            self._unreported = [self._unreported[0] + read, self._unreported[1] + 1]
            return
        closed = (
            f"hours before {hour_key(closed_before(watermark))} are closed"
            if watermark
            else "no hour is closed yet"
        )
        # The number is given in the transaction: a replay may have taken the one that was expected.
        number = read_head(connection, self._settings.topic).batch
        self._say(f"batch {number}: {read:,} messages in {seconds:.1f} s; {closed}")
