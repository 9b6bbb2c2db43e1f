"""What a running stream waits for: reported once per change, and noted in the ledger for `antenna status`.

Which errors are retryable is decided in `job.py`.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import psycopg

from antenna_assets.clients.advisory_locks import STREAM, unlock
from antenna_assets.clients.kafka_broker import AuthenticationFailed, AuthorizationFailed, BrokerError
from antenna_assets.clients.postgres import DatabaseError, connect
from antenna_assets.domain.lifetimes import AttemptTooOld
from antenna_assets.ledger import blocked
from antenna_assets.ledger.errors import HourExpired
from antenna_assets.ledger.lake_identity import WrongLake
from antenna_assets.ledger.stream_lock import StreamRunning
from antenna_assets.storage.attempt import FilesGone, LakeUnwritable
from antenna_assets.streaming.errors import QueryFailed, StateUnwritable

# The session that failed has ended, but PostgreSQL may need a moment to notice.
_LOCK_TIMEOUT = "2s"

_RESOURCES: dict[type[Exception], str] = {
    BrokerError: "Kafka",
    AuthenticationFailed: "Kafka",
    AuthorizationFailed: "Kafka",
    QueryFailed: "Spark",
    StreamRunning: "another stream",
    AttemptTooOld: "the next attempt",
    FilesGone: "the next attempt",
    HourExpired: "the next attempt",
    LakeUnwritable: "the lake",
    WrongLake: "the lake",
    StateUnwritable: "the state",
}


def resource_of(error: Exception) -> str:
    """What a stream with this error waits for."""
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return "PostgreSQL's primary"
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return blocked.NAME
    return _RESOURCES.get(type(error), "PostgreSQL")


class Waiting:
    """The present wait of a stream, if it waits.

    Args:
        say: takes one line of progress.
    """

    def __init__(self, postgres_url: str, topic: str, say: Callable[[str], None]) -> None:
        self._postgres_url = postgres_url
        self._topic = topic
        self._say = say
        self._name = ""
        self._text = ""
        self._began = time.monotonic()

    def begin(self, name: str, reason: str) -> None:
        """Report a wait: one line when another resource is away, none for each attempt or wording."""
        if name != self._name:
            self._name, self._began = name, time.monotonic()
            self._text = reason if name in reason else f"{name}: {reason}"
            self._say(f"waiting: {self._text}")

    def wait(self, name: str, error: Exception, reason: str, stop: threading.Event, seconds: float) -> None:
        """Wait until the next attempt, with a note in the ledger meanwhile."""
        self.begin(name, reason)
        # After a failed connection another attempt at one would only wait for the same.
        noted = None if isinstance(error, DatabaseError) else self._note()
        try:
            stop.wait(seconds)
        finally:
            if noted is not None:
                # Explicitly: a closed session keeps its locks for a moment, and the next attempt needs this
                # one.
                unlock(noted, STREAM)
                noted.close()

    def ended(self) -> None:
        """End the wait after a commit, which has cleared the note."""
        if self._name:
            self._name = ""
            self._say("resuming from the ledger")

    def _note(self) -> psycopg.Connection | None:
        """Note the wait in the ledger if that is possible; returns a connection with the stream's lock."""
        try:
            connection = connect(self._postgres_url, application="antenna stream, waiting")
        except DatabaseError:
            return None
        try:
            connection.execute(f"SET lock_timeout = '{_LOCK_TIMEOUT}'")
            connection.execute("SELECT pg_advisory_lock(%s)", [STREAM])
        except psycopg.Error:
            # Another stream holds it, and the note is that stream's.
            connection.close()
            return None
        # A full disk of PostgreSQL may refuse even this.
        with suppress(psycopg.Error):
            connection.execute(
                "UPDATE ledger.head SET waiting_for = %s, waiting_since = clock_timestamp() - %s"
                " WHERE topic = %s",
                [self._text, timedelta(seconds=time.monotonic() - self._began), self._topic],
            )
        return connection
