"""What a running stream waits for: said once for each change, and noted in the ledger for `antenna status`.

Which errors pass by themselves is decided in `job.py`.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import psycopg

from antenna_assets.clients.postgres import DatabaseError, connect
from antenna_assets.ledger.stream_lock import STREAM_LOCK

# The session that failed has ended, but PostgreSQL may need a moment to see it.
_LOCK_TIMEOUT = "2s"


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
        """Say what is waited for: a line for each change of what is away, not for each attempt nor wording of it."""
        if name != self._name:
            self._name, self._began = name, time.monotonic()
            self._text = reason if name in reason else f"{name}: {reason}"
            self._say(f"waiting: {self._text}")

    def wait(self, name: str, error: Exception, reason: str, stop: threading.Event, seconds: float) -> None:
        """Wait until the next attempt, and note meanwhile what for."""
        self.begin(name, reason)
        # Whoever could not connect a moment ago would only wait for that once more.
        noted = None if isinstance(error, DatabaseError) else self._note()
        try:
            stop.wait(seconds)
        finally:
            if noted is not None:
                with suppress(psycopg.Error):
                    # By hand: a session that ends keeps its locks for a moment, and the next attempt wants this one.
                    noted.execute("SELECT pg_advisory_unlock(%s)", [STREAM_LOCK])
                noted.close()

    def ended(self) -> None:
        """Something was committed, which has cleared the note."""
        if self._name:
            self._name = ""
            self._say("going on from the ledger")

    def _note(self) -> psycopg.Connection | None:
        """Write down what is waited for, if PostgreSQL is there; the connection holds the lock of the one stream."""
        try:
            connection = connect(self._postgres_url, application="antenna stream, waiting")
        except DatabaseError:
            return None
        try:
            connection.execute(f"SET lock_timeout = '{_LOCK_TIMEOUT}'")
            connection.execute("SELECT pg_advisory_lock(%s)", [STREAM_LOCK])
        except psycopg.Error:
            # Another stream has it, and the note is its own.
            connection.close()
            return None
        # A full disk of PostgreSQL may refuse even this.
        with suppress(psycopg.Error):
            connection.execute(
                "UPDATE ledger.head SET waiting_for = %s, waiting_since = clock_timestamp() - %s WHERE topic = %s",
                [self._text, timedelta(seconds=time.monotonic() - self._began), self._topic],
            )
        return connection
