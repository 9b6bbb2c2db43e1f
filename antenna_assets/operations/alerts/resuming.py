"""Work on PostgreSQL that goes on by itself after PostgreSQL was away."""

import threading
import time
from collections.abc import Callable

import psycopg

from antenna_assets.clients.postgres import DatabaseError
from antenna_assets.clients.postgres_errors import DatabaseUnfit, error_line, is_retryable

MIN_WAIT_SECONDS, MAX_WAIT_SECONDS = 1.0, 30.0


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
