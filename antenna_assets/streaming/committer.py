"""Committing what a reader has landed, and the heartbeat between two commits. Every reader uses this.

The transactions are in `ledger/commit.py`; here they get what they need: PostgreSQL's clock, Kafka's backlog,
and the sums of the files, read back from the disk.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import psycopg

from antenna_assets.clients.clock import TOLERANCE, Clock
from antenna_assets.clients.kafka_broker import Broker, Topic
from antenna_assets.domain.closing_rule import Backlog, observed
from antenna_assets.domain.counted import counted
from antenna_assets.domain.hours import closed_before, hour_key
from antenna_assets.engines.contract import Engine
from antenna_assets.errors import StreamError
from antenna_assets.ledger.batch import BatchContent, BatchPlan
from antenna_assets.ledger.closed_hours import quiet_hours_of
from antenna_assets.ledger.commit import Observation, commit_batch, commit_heartbeat
from antenna_assets.ledger.full_hours import full_hours
from antenna_assets.ledger.generations import expired_before
from antenna_assets.ledger.head import Head, claim_topic, read_head, require_same_topic
from antenna_assets.ledger.offsets import OffsetRange
from antenna_assets.ledger.progress import backlog_of, offsets_to_read, read_past
from antenna_assets.settings import Settings
from antenna_assets.storage.attempt import Attempt
from antenna_assets.streaming.read_back import WrittenAttempt, read_back
from antenna_assets.streaming.verdicts.bounds import Bounds

HEARTBEAT_SECONDS = 5
"""A running stream closes what it can this often, with a batch or without."""

REPORT_SECONDS = 10
"""A running stream reports this often. A micro-batch that takes longer is reported on its own."""


@dataclass(frozen=True)
class LandedBatch:
    """A micro-batch whose files are written and not yet committed.

    Attributes:
        written: None if its ranges hold only control records.
        clock: PostgreSQL's clock, by which its messages were accepted or rejected.
        began: when it was begun, on the monotonic clock.
        first: whether it is the first one of its query.
    """

    attempt: Attempt
    written: WrittenAttempt | None
    ranges: Sequence[OffsetRange]
    clock: datetime
    began: float
    first: bool


class Committer:
    """The commits and heartbeats of one stream, over all of its queries and connections.

    Args:
        say: takes one line of progress.
        on_commit: called after each commit.
        on_landed: takes the hour of each file that was committed, None for one with rejected messages.

    Attributes:
        last_commit: when something was last committed, on the monotonic clock; at first the time of the
            start.
        partitions: those of the topic when Kafka was last asked.
    """

    def __init__(
        self,
        settings: Settings,
        broker: Broker,
        *,
        say: Callable[[str], None],
        on_commit: Callable[[], None],
        on_landed: Callable[[Iterable[datetime | None]], None] = lambda _hours: None,
    ) -> None:
        self._settings = settings
        self._broker = broker
        self._say = say
        self._on_commit = on_commit
        self._on_landed = on_landed
        # One transaction at a time on the one connection: commits and heartbeats come from two threads.
        self._ledger_in_use = threading.Lock()
        self._clock: Clock | None = None
        self._clock_warning: str | None = None
        self._head: Head | None = None
        self._newest_attempt = 0
        self._oldest = settings.start
        self._full: list[datetime] = []
        self.last_commit = self._last_heartbeat = time.monotonic()
        self.partitions: frozenset[int] = frozenset()
        self._unreported = [0, 0]

    def refresh(self, connection: psycopg.Connection) -> None:
        """Read the ledger's head and what landing needs of the ledger; called when a query starts."""
        self._head = read_head(connection, self._settings.topic)
        self._newest_attempt = self._head.batch
        self._refresh_bounds(connection)

    def _refresh_bounds(self, connection: psycopg.Connection) -> None:
        """Read what landing needs of the ledger: during a commit the connection cannot be asked.

        Retention may move on meanwhile; the commit checks again.
        """
        self._read_clock(connection)
        self._oldest = max(self._settings.start, expired_before(connection) or self._settings.start)
        self._full = full_hours(connection)

    def bounds(self) -> Bounds:
        """Those of the next micro-batch, without a connection: it may be in the middle of a commit."""
        if self._clock is None:
            raise StreamError("no query runs: the clock was never read")
        clock = self._clock.now()
        return Bounds(clock, max(self._oldest, clock - self._settings.horizon), self._full)

    def new_attempt(self) -> Attempt:
        """A folder for the files of the next micro-batch.

        Its number is one above that of the last attempt, whether that one is committed by now or not. Only
        the folder's name has it: the batch's number is given by its commit.
        """
        self._newest_attempt = max(self._head.batch if self._head else 0, self._newest_attempt) + 1
        return Attempt(self._settings.lake_uri, self._newest_attempt)

    def next_offsets(self, connection: psycopg.Connection, topic: Topic) -> dict[int, int]:
        """The offset to read next, of each partition.

        Args:
            topic: with the id that the ledger knows.
        """
        return offsets_to_read(connection, self._broker, topic)

    def read_back(self, engine: Engine, batch: LandedBatch) -> BatchContent:
        """Sync the files of a micro-batch, and return them with their sums. Another one may be in its commit.

        Raises:
            LandingError, LakeUnwritable: see `streaming/read_back.py`.
        """
        if batch.written is None:
            return BatchContent()
        settings = self._settings
        with batch.attempt:
            return read_back(batch.written, engine, lake=settings.lake_uri, live=settings.live_windows)

    def commit(self, connection: psycopg.Connection, batch: LandedBatch, content: BatchContent) -> None:
        """Commit a micro-batch with what was read back of it.

        Kafka is asked for the topic's id and for the ends of its partitions; the head row is read once, under
        its lock.

        Raises:
            LedgerError, AttemptTooOld, LakeUnwritable: see `commit_batch`.
            BrokerError: Kafka does not answer.
        """
        settings = self._settings
        with self._ledger_in_use, batch.attempt:
            if self._head is None:
                raise StreamError("no query runs: the ledger's head was never read")
            # Before Kafka is asked: an event that arrives after this instant may still be on time.
            now = self._read_clock(connection)
            # After landing: the offsets of a topic that was replaced meanwhile mean other messages.
            topic = self._broker.identify()
            require_same_topic(self._head, topic.id)
            self.partitions = frozenset(topic.partitions)
            topic = replace(topic, id=self._head.topic_id)
            done = self.next_offsets(connection, topic) | {r.partition: r.until_offset for r in batch.ranges}
            backlog = backlog_of(self._broker, topic, done)
            self._head = commit_batch(
                connection,
                BatchPlan(topic.name, topic.id, self._head.batch + 1, batch.clock, batch.ranges),
                content,
                Observation(now, backlog, host_clock=self._clock_warning),
                lateness=settings.lateness,
                before_commit=batch.attempt.keep,
            )
            self._record_commit()
            self._on_landed(file.hour for file in content.files)
            self._refresh_bounds(connection)
            self._report(batch, self._head)

    def heartbeat(self, connection: psycopg.Connection) -> bool:
        """Close what can be closed by now; returns whether every partition is read out.

        Raises:
            BrokerError: Kafka does not answer.
            LedgerError: the topic is another one now, or another stream has committed.
        """
        settings = self._settings
        with self._ledger_in_use:
            # Before Kafka is asked: an event that arrives after this instant may still be on time.
            now = self._read_clock(connection)
            topic = self._broker.describe()
            head = claim_topic(connection, topic.name, topic.id)
            topic = replace(topic, id=head.topic_id)
            self.partitions = frozenset(topic.partitions)
            backlog = backlog_of(self._broker, topic, self.next_offsets(connection, topic))
            past = self._read_past(connection, head, topic, backlog, now) if backlog else None
            commit_heartbeat(
                connection,
                topic.name,
                head.batch,
                Observation(now, backlog, past, self._clock_warning),
                lateness=settings.lateness,
                quiet=settings.quiet,
            )
            self._last_heartbeat = time.monotonic()
            return not backlog

    def heartbeat_if_due(self, connection: psycopg.Connection) -> None:
        """Send a heartbeat if the last one was `HEARTBEAT_SECONDS` ago."""
        # A backlog may be of messages that the lake has no space for: that is no progress.
        if time.monotonic() - self._last_heartbeat > HEARTBEAT_SECONDS and self.heartbeat(connection):
            self._record_commit()

    def _read_past(
        self,
        connection: psycopg.Connection,
        head: Head,
        topic: Topic,
        backlog: Mapping[int, Backlog],
        now: datetime,
    ) -> datetime | None:
        """See `read_past`. Kafka is asked about quiet hours only, and never while the head is locked."""
        settings = self._settings
        state = observed(head.state, now=now, lagging=backlog, delivered={})
        quiet = quiet_hours_of(
            connection,
            replace(head, state=state),
            now=now,
            lateness=settings.lateness,
            quiet=settings.quiet,
        )
        return read_past(self._broker, topic, backlog, quiet)

    def report(self) -> bool:
        """Report what was committed since the last report; returns whether there was anything."""
        messages, batches = self._unreported
        if not messages:
            return False
        self._say(f"{counted(messages, 'message')} in {counted(batches, 'batch', 'batches')}")
        self._unreported = [0, 0]
        return True

    def _read_clock(self, connection: psycopg.Connection) -> datetime:
        """PostgreSQL's clock; a step of it, or a wrong clock of this host, is reported."""
        if self._clock is None:
            self._clock = Clock(connection)
        now = self._clock.read(connection)
        if abs(self._clock.step) > TOLERANCE:
            direction = "forwards" if self._clock.step > timedelta(0) else "back"
            step = timedelta(seconds=round(abs(self._clock.step).total_seconds()))
            self._say(
                f"PostgreSQL's clock was set {direction} by {step}; it is the clock that closes hours: if it "
                "is wrong now, stop the stream, set it right, and see `antenna reopen`"
            )
        wrong = self._clock.wrong_host
        if wrong is not None and self._clock_warning is None:
            self._say(f"{wrong}: no event is rejected and no hour closed by it, but set it right")
        self._clock_warning = wrong
        return now

    def _record_commit(self) -> None:
        self.last_commit = time.monotonic()
        self._on_commit()

    def _report(self, batch: LandedBatch, head: Head) -> None:
        """Report a commit if it was its query's first or took long; otherwise count it for `report`."""
        read = sum(r.until_offset - r.from_offset for r in batch.ranges)
        seconds = self.last_commit - batch.began
        if not batch.first and seconds <= REPORT_SECONDS:
            self._unreported = [self._unreported[0] + read, self._unreported[1] + 1]
            return
        closed = (
            f"hours before {hour_key(closed_before(head.low_watermark))} are closed"
            if head.low_watermark
            else "no hour is closed yet"
        )
        self._say(f"batch {head.batch}: {counted(read, 'message')} in {seconds:.1f} s; {closed}")
