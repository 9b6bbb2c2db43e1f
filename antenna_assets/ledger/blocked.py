"""Who keeps the stream from going on by a lock: looked up in PostgreSQL, for the stream's own lines, status and metrics.

How long a session of ours may keep a lock without doing anything is in `clients/postgres_session.py`.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from antenna_assets.clients.postgres import DatabaseError, connect
from antenna_assets.ledger.stream_lock import STREAM_LOCK

NAME = "a lock"
# A batch and a seal wait for each other for a moment: that is nothing to tell.
_SECONDS_BETWEEN_LOOKS = 5.0
_SECONDS_TO_BE_SURE = 2.0


def blocked_by(connection: psycopg.Connection) -> str | None:
    """What the stream of this ledger waits for, if another session's lock holds it up."""
    row = connection.execute(
        "SELECT holder.pid, holder.usename, holder.application_name FROM pg_locks AS streams"
        " CROSS JOIN LATERAL unnest(pg_blocking_pids(streams.pid)) AS blocking (number)"
        " JOIN pg_stat_activity AS holder ON holder.pid = blocking.number"
        " WHERE streams.locktype = 'advisory' AND streams.granted AND streams.objsubid = 1"
        "  AND streams.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        "  AND streams.classid::bigint << 32 | streams.objid::bigint = %s LIMIT 1",
        [STREAM_LOCK],
    ).fetchone()
    if row is None:
        return None
    pid, user, application = row
    return f"{NAME} that session {pid} of {user} holds ({application or 'no application name'})"


@contextmanager
def blocks_told(postgres_url: str, begin: Callable[[str, str], None]) -> Iterator[None]:
    """Within the block, say what the stream waits for while another session's lock holds it up for seconds.

    Args:
        begin: takes a name and what to say, as `Waiting.begin`.
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
                # The stream's own session meets the same, and says so.
                continue

    watcher = threading.Thread(target=watch, name="antenna lock watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
