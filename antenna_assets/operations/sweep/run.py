"""`antenna sweep`: removes what nothing needs any more, in an order in which dying anywhere leaves nothing wrong.

This is the order and the report. What is old and unneeded is decided in `orphans.py`, `retention.py` and `publishing/lake.py`;
how long things live is in `domain/lifetimes.py`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from antenna_assets.clients.clock import database_now
from antenna_assets.clients.migrations import require_migrated
from antenna_assets.clients.postgres import connect
from antenna_assets.clients.postgres_errors import passes, told
from antenna_assets.domain.lifetimes import RUN_LOG_RETENTION, VERSION_RETENTION
from antenna_assets.domain.schema import LAKE_TABLES
from antenna_assets.errors import AntennaError
from antenna_assets.ledger.head import lock_heads
from antenna_assets.ledger.lake_identity import require_not_anothers
from antenna_assets.operations.rebuild import published_files
from antenna_assets.operations.sweep.compaction import forget_removed_files, merge_batches
from antenna_assets.operations.sweep.orphans import LANDING, old_attempts, unnamed
from antenna_assets.operations.sweep.retention import (
    Amount,
    drop_live_windows,
    expire_files,
    live_tables,
    remove_expired_files,
)
from antenna_assets.operations.sweep.run_logs import drop_old_pages, drop_run_events, remove_run_output
from antenna_assets.publishing.lake import Lake
from antenna_assets.storage.files import Found, file_system_now, remove
from antenna_assets.storage.paths import file_errors, lake_path, reason_of

if TYPE_CHECKING:
    from rich.table import Table

    from antenna_assets.storage.paths import LakePath

_SWEEP_LOCK = 0x7377656570
# Commits take less than a second.
LONGEST_WAIT_FOR_LOCK = timedelta(minutes=1)


class SweepError(AntennaError):
    """The sweep cannot go on; what it removed until then was not needed. The message says what to do."""


class SweepRunning(SweepError):
    """Another sweep of this ledger is under way."""


def sweep(
    postgres_url: str,
    lake: str,
    *,
    dagster_home: Path,
    horizon: timedelta,
    now: datetime | None = None,
    dry_run: bool = False,
) -> dict[str, Amount]:
    """Remove what is unneeded; returns how much of it went, or with `dry_run` would go, by what it is.

    Args:
        lake: the lake's root.
        dagster_home: folder of Dagster's instance; it need not exist.
        now: an instant to sweep at; that of PostgreSQL's clock if none is given. This machine's clock is not asked: the
            ages of files are counted by the clock of their file system or store.

    Raises:
        WrongLake: this is not the ledger's lake. Nothing was removed.
        SweepRunning: another sweep is under way.
        SweepError: a file or folder cannot be read or removed, or a writer has held the ledger for a minute.
        LakeError: a table cannot be swept.
    """
    root = lake_path(lake)
    amounts: dict[str, Amount] = {}
    with connect(postgres_url, application="antenna sweep") as connection, _errors(lake):
        require_migrated(connection)
        require_not_anothers(connection, lake)
        clock = database_now(connection)
        now = now or clock
        files_now = _files_now(root, clock) + (now - clock)
        if not dry_run:
            _claim(connection)
            # From here on, no attempt commits that was older than the longest run before.
            with connection.transaction():
                lock_heads(connection)
        # Before the rows of others expire: theirs are for another sweep, after the grace.
        amounts["expired files, after their grace"] = remove_expired_files(
            connection, root, now=now, dry_run=dry_run
        )
        expired = expire_files(connection, horizon=horizon, now=now, dry_run=dry_run)
        amounts["landed files past the horizon, to go after a grace"] = expired["landed"]
        amounts["rejected files past the horizon, to go after a grace"] = expired["rejected"]
        amounts["batches past the horizon, which become one an hour"] = merge_batches(
            connection, horizon=horizon, now=now, dry_run=dry_run
        )
        amounts["names of removed files, which become a sum an hour"] = forget_removed_files(
            connection, now=now, dry_run=dry_run
        )
        amounts["files and folders in landing and scratch that the ledger does not name"] = _sweep_landing(
            connection, root, now=files_now, clock=now, dry_run=dry_run
        )
        tables, days = Lake(lake), VERSION_RETENTION.days
        for table in LAKE_TABLES:
            swept = tables.sweep(
                table, now=files_now, dry_run=dry_run, published=published_files(connection, table)
            )
            amounts[f"files and folders in {table} that no version of {days} days names"] = Amount(
                len(swept), sum(swept.values())
            )
        for live in live_tables():
            amounts[f"rows of {live.name} past their retention"] = drop_live_windows(
                connection, live, now=now, dry_run=dry_run
            )
        days = RUN_LOG_RETENTION.days
        amounts[f"events of Dagster's runs older than {days} days, but for those on assets"] = (
            drop_run_events(connection, now=now, dry_run=dry_run)
        )
        amounts["what Dagster's pages say of assets, replaced or older than 400 days, and such runs"] = (
            drop_old_pages(connection, now=now, dry_run=dry_run)
        )
        output = dagster_home / "storage"
        amounts[f"files with output of Dagster's runs older than {days} days"] = (
            remove_run_output(dagster_home, now=file_system_now(output) + (now - clock), dry_run=dry_run)
            if output.is_dir()
            else Amount()
        )
    return amounts


def report(amounts: dict[str, Amount], *, dry_run: bool) -> "Table":
    """What went or would go, as a table to show."""
    from rich.table import Table

    table = Table("would go" if dry_run else "gone")
    for name in ("count", "bytes"):
        table.add_column(name, justify="right")
    for what, amount in amounts.items():
        table.add_row(what, f"{amount.count:,}", f"{amount.bytes:,}")
    return table


def _files_now(root: "LakePath", clock: datetime) -> datetime:
    """The present by the clock of the lake's files. Without a lake there are none."""
    if isinstance(root, Path) and not root.is_dir():
        return clock
    landing = root / LANDING
    return file_system_now(root if isinstance(root, Path) and not landing.is_dir() else landing)


def _sweep_landing(
    connection: psycopg.Connection, root: "LakePath", *, now: datetime, clock: datetime, dry_run: bool
) -> Amount:
    amount = Amount()
    for found in old_attempts(connection, root, now=now, clock=clock):
        going = unnamed(connection, root, found)
        if going and not dry_run:
            # Asked again and removed under the lock that a commit takes, which looks at its files: one of the two comes
            # first. At most some hundred files at a time, as the stream waits for it.
            with connection.transaction():
                lock_heads(connection)
                going = unnamed(connection, root, found)
                remove(going)
        amount += Amount(len(going), _size(going))
    return amount


def _size(found: list[Found]) -> int:
    return sum(one.size for one in found)


def _claim(connection: psycopg.Connection) -> None:
    """One sweep at a time; the lock goes with the connection. Two would do no harm, only the same work."""
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", [_SWEEP_LOCK]).fetchone()
    if row is None or not row[0]:
        raise SweepRunning("another sweep is under way on this ledger; it does the same, so leave it to it")
    milliseconds = str(LONGEST_WAIT_FOR_LOCK // timedelta(milliseconds=1))
    connection.execute("SELECT set_config('lock_timeout', %s, false)", [milliseconds])


@contextmanager
def _errors(lake: str) -> Iterator[None]:
    try:
        yield
    except psycopg.errors.LockNotAvailable as error:
        raise SweepError(
            "a writer has held the ledger for a minute; see that the stream is well, and sweep again"
        ) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise SweepError(
            f"{str(error).strip().splitlines()[0]}: sweep as a member of antenna_administrator; of Dagster's tables its "
            "webserver or daemon gives that role its rights when it starts: start it again"
        ) from error
    except psycopg.Error as error:
        if not passes(error):
            raise
        raise SweepError(
            f"PostgreSQL went away in the middle of a sweep: {told(error)}; sweep again"
        ) from error
    except file_errors() as error:
        place = getattr(error, "filename", None) or lake
        raise SweepError(
            f"{place} cannot be swept: {reason_of(error)}; make it readable and writable, and sweep again"
        ) from error
