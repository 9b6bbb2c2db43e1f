"""Who forgets and who publishes or replays at the same time: one forgets at a time, and what others had read before that
they do not commit after it.

What asks the fence is `ledger.require_nobody_forgotten`.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from antenna_assets.domain.schema import LAKE_TABLES
from antenna_assets.errors import AntennaError
from antenna_assets.publishing.lake import Lake

_FORGET_LOCK = 0x666F72676574
# Commits take less than a second.
_LONGEST_WAIT_MILLISECONDS = 60_000
LONGEST_TRANSACTION_SECONDS = 30
"""How long transactions of publications and replays under way are waited for."""


class ForgettingRunning(AntennaError):
    """Somebody else is being forgotten in this ledger."""


class WriterStuck(AntennaError):
    """A writer holds the ledger, or does not end its transaction; nothing was lost, run it again."""


@contextmanager
def only_one(connection: psycopg.Connection) -> Iterator[None]:
    """Forget within the block, and nobody else at the same time. The lock goes with the connection, too.

    Raises:
        ForgettingRunning: another one does.
        WriterStuck: a writer has held the ledger for a minute.
    """
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", [_FORGET_LOCK]).fetchone()
    if row != (True,):
        raise ForgettingRunning(
            "another forget-user is under way on this ledger, and one user is forgotten at a time; run it again when it is done"
        )
    connection.execute("SELECT set_config('lock_timeout', %s, false)", [str(_LONGEST_WAIT_MILLISECONDS)])
    try:
        yield
    except psycopg.errors.LockNotAvailable as error:
        raise WriterStuck(
            "a writer has held the ledger for a minute; see that the stream and the runs are well, and forget the user again"
        ) from error
    finally:
        if not connection.broken:
            connection.execute("RESET lock_timeout")
            connection.execute("SELECT pg_advisory_unlock(%s)", [_FORGET_LOCK])


def raise_it(connection: psycopg.Connection, lake: Lake) -> None:
    """From now on no session that is open publishes or replays; whatever such sessions commit is committed on return.

    Raises:
        WriterStuck: a transaction of one of them does not end.
        LakeError: a table cannot be written.
    """
    with connection.transaction():
        connection.execute("DELETE FROM ledger.fenced_session")
        # Who opens a session from now on reads what is there now. No clock says who is older: it may be set back.
        connection.execute(
            "INSERT INTO ledger.fenced_session (pid, backend_start) SELECT pid, backend_start FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    for table in LAKE_TABLES:
        lake.raise_fence(table)
    # They look at the fence after they have written to one of these, and keep that lock to their end.
    writing = set(_writers(connection))
    end = time.monotonic() + LONGEST_TRANSACTION_SECONDS
    while writing := writing & set(_writers(connection)):
        if time.monotonic() > end:
            raise WriterStuck(
                f"{len(writing)} publications or replays do not end their transaction in {LONGEST_TRANSACTION_SECONDS} s; "
                "see that the runs are well, and forget the user again"
            )
        time.sleep(0.05)


def _writers(connection: psycopg.Connection) -> list[str]:
    rows = connection.execute(
        "SELECT virtualtransaction FROM pg_locks WHERE locktype = 'relation' AND granted AND mode = 'RowExclusiveLock'"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " AND relation IN ('ledger.publication_head'::regclass, 'ledger.replay'::regclass) AND pid <> pg_backend_pid()"
    ).fetchall()
    return [name for (name,) in rows]
