"""The thread of a stream that merges small files, beside its commits and with a connection of its own.

It reads and writes files while the stream commits, and holds the ledger's lock for some milliseconds a merge
(decision 30). Nothing depends on it: files that it did not merge are read as well.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

import psycopg

from antenna_assets.clients.postgres import connect
from antenna_assets.clients.postgres_session import STREAM
from antenna_assets.ledger.merge import FILES_PER_MERGE, FilesChanged, files_waiting
from antenna_assets.streaming.errors import first_line
from antenna_assets.streaming.merge_files import merge_some

SHARE = 0.2
"""The most of its time that it merges: if many hours are due at once, commits come first."""

RETRY_SECONDS = 60.0
"""How long nothing is merged after an error."""

JOIN_SECONDS = 10.0
"""How long the end of a session waits for a merge in progress. A longer one ends by itself, which is safe."""


@dataclass
class _Session:
    """What the thread of one session is to do.

    Attributes:
        waiting: files that landed and are not merged, by hour; under None those with rejected messages.
    """

    waiting: Counter[datetime | None]
    changed: threading.Condition = field(default_factory=threading.Condition)
    ended: threading.Event = field(default_factory=threading.Event)

    def landed(self, hours: Iterable[datetime | None]) -> None:
        with self.changed:
            self.waiting.update(hours)
            self.changed.notify()

    def end(self) -> None:
        with self.changed:
            self.ended.set()
            self.changed.notify()

    def due(self) -> Iterator[datetime | None]:
        """The hours that have enough files, each as soon as it has, until the session ends."""
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.ended.is_set() or self._full())
                if self.ended.is_set():
                    return
                (hour,) = self._full()
                del self.waiting[hour]
            yield hour

    def _full(self) -> list[datetime | None]:
        """The hour with most files, if these are enough to merge."""
        return [hour for hour, files in self.waiting.most_common(1) if files >= FILES_PER_MERGE[0]]


class Merger:
    """Merges small files of one stream, over all of its sessions.

    Args:
        lake: the lake's root.
        say: takes one line of progress.
    """

    def __init__(self, lake: str, postgres_url: str, say: Callable[[str], None]) -> None:
        self._lake = lake
        self._postgres_url = postgres_url
        self._say = say
        self._session: _Session | None = None
        self._said = ""

    def landed(self, hours: Iterable[datetime | None]) -> None:
        """Count files that were committed, by their hours; None for rejected messages."""
        if self._session is not None:
            self._session.landed(hours)

    @contextmanager
    def running(self, connection: psycopg.Connection) -> Iterator[None]:
        """Merge while the block runs.

        Args:
            connection: the stream's, which is asked once which files landed before.
        """
        self._session = session = _Session(Counter(files_waiting(connection)))
        thread = threading.Thread(target=self._run, args=[session], name="antenna merge", daemon=True)
        thread.start()
        try:
            yield
        finally:
            session.end()
            thread.join(JOIN_SECONDS)

    def _run(self, session: _Session) -> None:
        connection: psycopg.Connection | None = None
        for hour in session.due():
            try:
                if connection is None or connection.closed:
                    connection = connect(
                        self._postgres_url, application="antenna stream, merging", limits=STREAM
                    )
                self._merge(connection, hour, session.ended)
                self._said = ""
            except FilesChanged:
                # A run that sealed the hour was faster. What is left is counted from now on.
                continue
            # Whatever it is, the stream goes on without merging, and says so.
            except Exception as error:
                reason = first_line(error)
                if reason != self._said:
                    self._said = reason
                    self._say(f"small files are not merged: {reason}; the stream goes on")
                session.ended.wait(RETRY_SECONDS)
        if connection is not None:
            connection.close()

    def _merge(self, connection: psycopg.Connection, hour: datetime | None, ended: threading.Event) -> None:
        """Merge small files of an hour until there are no longer enough of them."""
        while not ended.is_set():
            began = time.monotonic()
            if merge_some(connection, self._lake, hour) is None:
                return
            ended.wait((time.monotonic() - began) * (1 / SHARE - 1))
