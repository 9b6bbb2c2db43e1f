"""The stream: start, wait, restart.

Recovery, for an operator:

- **Prepared.** The ledger in PostgreSQL is the only checkpoint. Nothing in the state directory is needed to
  recover: Spark's own checkpoint is created for each start and thrown away, and the embedded reader has none.
- **After a crash.** Start the stream again, on this host or on another one. It takes the stream's lock, reads
  the last committed offset of each partition from the ledger, and reads on from there. A kill at any point, a
  lost disk of the stream's host, an upgrade and a failover all mean the same. While it runs, it restarts
  itself after transient errors: Kafka, PostgreSQL or the lake away, a full disk, a failed query. It waits 1
  s, then twice as long each time, 30 s at most.
- **Unit of recovery.** The micro-batch. Its offsets, files, rows per hour and live sums are committed in one
  transaction (`ledger/commit.py`), so a micro-batch is recovered as a whole or read again as a whole. Files
  of an attempt that was not committed are orphans: nothing reads them, and a sweep removes them.
- **Guarantee.** Each message is in the ledger exactly once: a commit requires that each partition's range
  starts where the last committed one ends. After an error at COMMIT nothing is retried in place: the ledger
  is read again. The lock only keeps a second stream away; the rule holds without it.
- **Not recovered automatically.** Messages that Kafka removed unread, a topic that was created again, and a
  record that no client can read: the stream stops and names the command that records the loss.

A reader turns messages into files, and is all that differs between the two ways (`ANTENNA_STREAM_ENGINE`):
`embedded/` for a single machine, `spark/` for a cluster.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg

from antenna_assets.clients.kafka_broker import AuthenticationFailed, Broker, BrokerError, Topic
from antenna_assets.clients.kafka_config import PLAIN, KafkaConfig
from antenna_assets.clients.postgres import DatabaseError
from antenna_assets.clients.postgres_errors import DatabaseUnfit, is_retryable
from antenna_assets.domain.lifetimes import AttemptTooOld
from antenna_assets.errors import StreamError
from antenna_assets.ledger import blocked
from antenna_assets.ledger.errors import HourExpired
from antenna_assets.ledger.lake_identity import WrongLake
from antenna_assets.ledger.partition_starts import parse_start_position
from antenna_assets.ledger.stream_lock import StreamRunning
from antenna_assets.settings import Settings
from antenna_assets.storage.attempt import LakeUnwritable
from antenna_assets.streaming.committer import Committer
from antenna_assets.streaming.errors import QueryFailed, ReaderFailed, StateUnwritable, first_line
from antenna_assets.streaming.merger import Merger
from antenna_assets.streaming.reader import new_reader
from antenna_assets.streaming.session import StreamSessions
from antenna_assets.streaming.waiting import Waiting, resource_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MIN_WAIT_SECONDS = 1.0
MAX_WAIT_SECONDS = 30.0

OLD_SESSION_SECONDS = 60
"""How long our own broken session may hold the lock: PostgreSQL sees a vanished client after 25 s."""

# Another start, from the ledger, may succeed.
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
# At the start these are reported at once; only a stream that has run before waits.
_FATAL_AT_START = (LakeUnwritable, WrongLake, StateUnwritable, AuthenticationFailed)


class Stream:
    """One stream of one topic into one ledger and lake.

    Args:
        say: takes one line of progress.
        stop: set it to stop after the micro-batch in progress.
        start: where a topic begins that the ledger has not read yet, see `parse_start_position`.
        spark: for the Spark reader: a session from `start_spark`, which stays open; if None, one is started
            and closed.
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
        self._postgres_url = postgres_url
        self._stop = stop
        self._broker = broker = Broker(kafka_bootstrap, settings.topic, kafka_config)
        begin = None if start is None else parse_start_position(start)
        self._sessions = StreamSessions(settings, postgres_url, broker, start=begin, say=say)
        self._waiting = Waiting(postgres_url, settings.topic, say)
        self._merger = Merger(settings.lake_uri, postgres_url, say)
        self._committer = Committer(
            settings, broker, say=say, on_commit=self._waiting.ended, on_landed=self._merger.landed
        )
        self._reader = new_reader(settings, broker, self._committer, say=say, stop=stop, spark=spark)

    def read_available(self) -> None:
        """Read to the broker's present end, and close the hours that can be closed.

        Raises:
            StreamError: messages are left, or the stream cannot run; also the errors of broker and database.
        """
        while True:
            try:
                if self._read_to_the_present_end():
                    return
            except ReaderFailed as error:
                self._reader.recover(error)

    def _read_to_the_present_end(self) -> bool:
        """Read once; returns whether the end was reached, or the stream was stopped."""
        with self._session() as (connection, topic):
            target = self._broker.next_offsets(topic)
            with self._reader.started(connection, topic, available_now=True) as wait:
                wait()
            if self._stop.is_set():
                return True
            if self._reader.wants_restart:
                return False
            self._committer.heartbeat(connection)
            done = self._committer.next_offsets(connection, topic)
            left = {
                partition: end - done[partition] for partition, end in target.items() if end > done[partition]
            }
            if left:
                raise StreamError(
                    f"expected to have read everything, but messages are left by partition: {left}"
                )
            return True

    def run(self) -> None:
        """Read until stopped; wait while Kafka, PostgreSQL or the lake is away, and resume from the ledger.

        Raises:
            StreamError, LedgerError: what waiting cannot repair.
        """
        wait_seconds = MIN_WAIT_SECONDS
        # When the running stream was lost; None before a first query, infinity while one runs.
        lost: float | None = None
        while not self._stop.is_set():
            last_commit = self._committer.last_commit
            try:
                with (
                    self._session() as (connection, topic),
                    self._reader.started(connection, topic, available_now=False) as wait,
                ):
                    lost = math.inf
                    try:
                        wait()
                    except BrokerError as error:
                        # Reported now: without Kafka a reader may take up to a minute to stop.
                        self._waiting.begin(resource_of(error), first_line(error))
                        raise
            except ReaderFailed as error:
                self._reader.recover(error)
            except _RETRYABLE as error:
                if isinstance(error, psycopg.Error) and not is_retryable(error):
                    raise
                if isinstance(error, DatabaseUnfit) or (lost is None and isinstance(error, _FATAL_AT_START)):
                    raise
                now = time.monotonic()
                lost = now if lost == math.inf else lost
                # After a broken connection our own old session may hold the lock until PostgreSQL sees that
                # it is dead.
                if isinstance(error, StreamRunning) and (lost is None or now - lost > OLD_SESSION_SECONDS):
                    raise
                # A start without a commit is no progress: back off further.
                if self._committer.last_commit > last_commit:
                    wait_seconds = MIN_WAIT_SECONDS
                self._waiting.wait(resource_of(error), error, first_line(error), self._stop, wait_seconds)
                wait_seconds = min(2 * wait_seconds, MAX_WAIT_SECONDS)

    def close(self) -> None:
        """Stop what the reader has started."""
        self._reader.close()

    @contextmanager
    def _session(self) -> Iterator[tuple[psycopg.Connection, Topic]]:
        with self._sessions.open() as (connection, topic):
            # Before the reader, which takes its time to start: a stream that restarts again and again closes
            # hours, too.
            self._committer.heartbeat(connection)
            with (
                blocked.lock_waits_reported(self._postgres_url, self._waiting.begin),
                self._merger.running(connection),
            ):
                yield connection, topic
