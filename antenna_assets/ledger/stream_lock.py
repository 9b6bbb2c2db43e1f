"""The lock of the one stream of a ledger: taken by a session of PostgreSQL, and seen by others.

A stream that waits holds it from another session, in `streaming/waiting.py`.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg

from antenna_assets.errors import StreamError

STREAM_LOCK = 0x73747265616D
"""Key of the advisory lock that the one stream of a ledger holds while it runs, and while it waits if it can."""


class StreamRunning(StreamError):
    """Another stream holds this ledger."""


def require_only_stream(connection: psycopg.Connection) -> None:
    """Take the lock of the one stream, which is held until the connection ends.

    Raises:
        StreamRunning: another connection has it.
    """
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", [STREAM_LOCK]).fetchone()
    if row is None or not row[0]:
        raise StreamRunning(
            "another stream is running on this ledger and only one may; stop it first, or leave this one be"
        )


@contextmanager
def only_stream(connection: psycopg.Connection) -> Iterator[None]:
    """Hold the lock of the one stream within the block, and give it back by hand, whatever happens there.

    A session that ends keeps its locks for a moment, and a stream that starts in it would be refused.

    Raises:
        StreamRunning: another connection has it.
    """
    require_only_stream(connection)
    try:
        yield
    finally:
        # It ends with the connection anyway, if that is broken.
        with suppress(psycopg.Error):
            connection.execute("SELECT pg_advisory_unlock(%s)", [STREAM_LOCK])


def stream_runs(connection: psycopg.Connection) -> bool:
    """Whether a stream of this ledger lives, by its lock."""
    # A key of 64 bits is shown in two halves, and `objsubid` 1 says that it is one.
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1"
        "  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        "  AND classid::bigint << 32 | objid::bigint = %s)",
        [STREAM_LOCK],
    ).fetchone()
    return bool(row and row[0])
