"""Work on PostgreSQL that goes on by itself after PostgreSQL was away."""

import threading
import time
from collections.abc import Callable
from datetime import timedelta

import psycopg

from antenna_assets.clients.migrations import require_migrated
from antenna_assets.clients.postgres import DatabaseError, connect
from antenna_assets.clients.postgres_errors import DatabaseUnfit, error_line, is_retryable
from antenna_assets.clients.postgres_session import Limits

MIN_WAIT_SECONDS, MAX_WAIT_SECONDS = 1.0, 30.0

_LIMITS = Limits(idle_in_transaction=timedelta(minutes=3))
"""Longer than an attempt or a look takes. What a suspended process was at is done by another one after it."""


def open_connection(url: str, what: str) -> psycopg.Connection:
    """A connection that PostgreSQL lists as `antenna alerts <what>`.

    Raises:
        DatabaseError: PostgreSQL cannot be used, or lacks migrations.
    """
    connection = connect(url, application=f"antenna alerts {what}", limits=_LIMITS)
    try:
        require_migrated(connection)
    except BaseException:
        connection.close()
        raise
    return connection


class Waiting:
    """Whether PostgreSQL is away, reported once by all workers together.

    Args:
        say: takes one line of progress.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._away = False
        self._lock = threading.Lock()

    def began(self, reason: str) -> None:
        """Report a wait, unless one is reported already."""
        with self._lock:
            if not self._away:
                self._away = True
                self._say(f"waiting: {reason}")

    def ended(self) -> None:
        """Report that it is over, if there was one."""
        with self._lock:
            if self._away:
                self._away = False
                self._say("resuming: PostgreSQL answers again")


def resuming(work: Callable[[], None], waiting: Waiting, stop: threading.Event) -> None:
    """Do the work, again from its start after transient errors of PostgreSQL.

    Raises:
        DatabaseUnfit, psycopg.Error: what waiting cannot repair.
    """
    seconds = MIN_WAIT_SECONDS
    while not stop.is_set():
        began = time.monotonic()
        try:
            work()
            return
        except (psycopg.Error, DatabaseError) as error:
            transient = is_retryable(error) if isinstance(error, psycopg.Error) else True
            if not transient or isinstance(error, DatabaseUnfit):
                raise
            waiting.began(error_line(error) if isinstance(error, psycopg.Error) else str(error))
            if time.monotonic() - began > MAX_WAIT_SECONDS:
                seconds = MIN_WAIT_SECONDS
            stop.wait(seconds)
            seconds = min(2 * seconds, MAX_WAIT_SECONDS)
