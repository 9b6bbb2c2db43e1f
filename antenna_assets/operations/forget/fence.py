"""The fence of `forget-user`: one user is forgotten at a time, and no session that may have read the user
before publishes, replays or raises alerts afterwards.

They check it by `require_nobody_forgotten` of `ledger/publications.py`, in a transaction that has written to
one of `FENCED` before.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from antenna_assets.clients.advisory_locks import FORGET, try_lock, unlock
from antenna_assets.domain.counted import counted
from antenna_assets.domain.schema import LAKE_TABLES
from antenna_assets.errors import AntennaError
from antenna_assets.publishing.lake import Lake

# Commits take less than a second.
_LONGEST_WAIT_MILLISECONDS = 60_000
LONGEST_TRANSACTION_SECONDS = 900
"""How long to wait for open transactions of those who check the fence: an hour or a day of ten million users
is copied in one of some minutes. PostgreSQL ends those of a run that is frozen after 20 s."""

SAY_AFTER_SECONDS = 10
"""How long to wait for them without a word, and from one word to the next."""

Say = Callable[[str], None]

FENCED = ("ledger.publication_head", "ledger.replay", "ledger.period_head", "ledger.alert_head")
"""The tables by whose locks a transaction is known that checks the fence: of hours, replays, days and months,
and the watch over alerts."""


class ForgettingRunning(AntennaError):
    """Another user is being forgotten in this ledger."""


class WriterStuck(AntennaError):
    """A writer holds the ledger, or keeps its transaction open; nothing was lost, run the command again."""


@contextmanager
def only_one(connection: psycopg.Connection) -> Iterator[None]:
    """Hold the lock of `forget-user` for the block; it also ends with the connection.

    Raises:
        ForgettingRunning: another session holds it.
        WriterStuck: a writer has held the ledger for a minute.
    """
    if not try_lock(connection, FORGET):
        raise ForgettingRunning(
            "another forget-user is running on this ledger, and one user is forgotten at a time; run it again"
            " when that is done"
        )
    connection.execute("SELECT set_config('lock_timeout', %s, false)", [str(_LONGEST_WAIT_MILLISECONDS)])
    try:
        yield
    except psycopg.errors.LockNotAvailable as error:
        raise WriterStuck(
            "a writer has held the ledger for a minute; check the stream and the runs, and forget the user"
            " again"
        ) from error
    finally:
        if not connection.broken:
            connection.execute("RESET lock_timeout")
            unlock(connection, FORGET)


def raise_fence(connection: psycopg.Connection, lake: Lake, say: Say) -> None:
    """Fence every session that is open now: it can no longer publish or replay, and its commits are done on
    return.

    Args:
        say: told for whom it waits.

    Raises:
        WriterStuck: one of them keeps its transaction open.
        LakeError: a table cannot be written.
    """
    with connection.transaction():
        connection.execute("DELETE FROM ledger.fenced_session")
        # A session opened from now on reads what is there now. No clock decides which is older: it may be set
        # back.
        connection.execute(
            "INSERT INTO ledger.fenced_session (pid, backend_start)"
            " SELECT pid, backend_start FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    for table in LAKE_TABLES:
        lake.raise_fence(table)
    # Writers check the fence after they have locked one of these tables, and keep that lock to their end.
    writing = set(_writers(connection))
    began = said = time.monotonic()
    while writing := writing & set(_writers(connection)):
        now, whose = time.monotonic(), f"{counted(len(writing), 'transaction')} of runs, replays or the watch"
        if now > began + LONGEST_TRANSACTION_SECONDS:
            raise WriterStuck(
                f"{whose} did not end within {LONGEST_TRANSACTION_SECONDS} s; check these, and forget the"
                " user again"
            )
        if now > said + SAY_AFTER_SECONDS:
            say(f"waiting for {whose} since {now - began:.0f} s")
            said = now
        time.sleep(0.05)


def _writers(connection: psycopg.Connection) -> list[str]:
    rows = connection.execute(
        "SELECT virtualtransaction FROM pg_locks WHERE locktype = 'relation' AND granted"
        " AND mode = 'RowExclusiveLock' AND pid <> pg_backend_pid()"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " AND relation = ANY(%s::text[]::regclass[])",
        [list(FENCED)],
    ).fetchall()
    return [name for (name,) in rows]
