"""Sessions whose locks block the stream, for its own messages, `antenna status` and metrics."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from antenna_assets.clients.advisory_locks import HOLDERS, STREAM
from antenna_assets.clients.postgres import DatabaseError, connect

NAME = "a lock"
# A batch and a seal wait for each other for a moment, which is not reported.
_SECONDS_BETWEEN_LOOKS = 5.0
_SECONDS_TO_BE_SURE = 2.0


def blocked_by(connection: psycopg.Connection) -> str | None:
    """The lock that blocks the stream of this ledger, as text; None if none does."""
    row = connection.execute(
        f"WITH stream AS (SELECT holder.pid {HOLDERS})"  # noqa: S608
        " SELECT blocker.pid, blocker.usename, blocker.application_name FROM stream"
        " CROSS JOIN LATERAL unnest(pg_blocking_pids(stream.pid)) AS blocking (number)"
        " JOIN pg_stat_activity AS blocker ON blocker.pid = blocking.number LIMIT 1",
        {"key": STREAM},
    ).fetchone()
    if row is None:
        return None
    pid, user, application = row
    return f"{NAME} that session {pid} of {user} holds ({application or 'no application name'})"


@contextmanager
def lock_waits_reported(postgres_url: str, begin: Callable[[str, str], None]) -> Iterator[None]:
    """Report a lock that blocks the stream for seconds, while the block runs.

    Args:
        begin: takes a name and a message, as `Waiting.begin`.
    """
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_SECONDS_BETWEEN_LOOKS):
            try:
                with connect(postgres_url, application="antenna stream, watching") as connection:
                    while not ended.wait(_SECONDS_BETWEEN_LOOKS):
                        if blocked_by(connection) is None or ended.wait(_SECONDS_TO_BE_SURE):
                            continue
                        holder = blocked_by(connection)
                        if holder is not None:
                            begin(NAME, holder)
            except (psycopg.Error, DatabaseError):
                # The stream's own session has the same error, and reports it.
                continue

    watcher = threading.Thread(target=watch, name="antenna lock watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
