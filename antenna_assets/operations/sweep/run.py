"""`antenna sweep`: the order in which unneeded data is removed, safe to interrupt at any point, and its
report.

What is unneeded is decided in the modules beside this one and in `publishing/lake.py`, lifetimes in
`domain/lifetimes.py`.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from antenna_assets.clients.advisory_locks import SWEEP, try_lock, unlock
from antenna_assets.clients.clock import database_now
from antenna_assets.clients.migrations import require_migrated
from antenna_assets.clients.postgres import connect
from antenna_assets.clients.postgres_errors import error_line, is_retryable
from antenna_assets.domain.lifetimes import RUN_LOG_RETENTION, VERSION_RETENTION
from antenna_assets.domain.schema import LAKE_TABLES
from antenna_assets.errors import AntennaError
from antenna_assets.ledger.head import lock_heads
from antenna_assets.ledger.lake_identity import require_matching_lake
from antenna_assets.operations.rebuild import published_files
from antenna_assets.operations.sweep.compaction import forget_removed_files, merge_batches
from antenna_assets.operations.sweep.notices import drop_alerts, drop_notices
from antenna_assets.operations.sweep.orphans import (
    LANDING,
    forget_replaced,
    old_attempts,
    unreferenced,
)
from antenna_assets.operations.sweep.retention import (
    Amount,
    drop_live_windows,
    drop_user_hours,
    expire_files,
    live_tables,
    remove_expired_files,
)
from antenna_assets.operations.sweep.run_logs import drop_old_pages, drop_run_events, remove_run_output
from antenna_assets.publishing.lake import Lake
from antenna_assets.storage.files import file_system_now, remove
from antenna_assets.storage.paths import file_errors, lake_path, reason_of

if TYPE_CHECKING:
    from rich.table import Table

    from antenna_assets.storage.paths import LakePath

# Commits take less than a second.
LONGEST_WAIT_FOR_LOCK = timedelta(minutes=1)


class SweepError(AntennaError):
    """The sweep failed; what it removed until then was unneeded. The message says what to do."""


class SweepRunning(SweepError):
    """Another sweep of this ledger is running."""


def sweep(
    postgres_url: str,
    lake: str,
    *,
    dagster_home: Path,
    horizon: timedelta,
    keep_user_hours: timedelta | None = None,
    keep_notices: timedelta = timedelta(days=90),
    now: datetime | None = None,
    dry_run: bool = False,
) -> dict[str, Amount]:
    """Remove unneeded data; returns how much was, or with `dry_run` would be, removed of each kind.

    Args:
        lake: the lake's root.
        dagster_home: folder of Dagster's instance; it need not exist.
        keep_user_hours: how long users' hours are kept in PostgreSQL; None: for ever.
        keep_notices: how long notices are kept that no channel waits for, and alerts that are resolved.
        now: the instant to sweep at, by default PostgreSQL's. This machine's clock is never used: the age of
            a file is taken by the clock of its file system or store.

    Raises:
        WrongLake: this is not the ledger's lake. Nothing was removed.
        SweepRunning: another sweep is running.
        SweepError: a file or folder cannot be read or removed, or a writer held the ledger for a minute.
        LakeError: a table cannot be swept.
        UserHoursInUse: somebody reads users' hours that are not kept any more; all else was done.
    """
    root = lake_path(lake)
    amounts: dict[str, Amount] = {}
    with (
        connect(postgres_url, application="antenna sweep") as connection,
        _errors(lake),
        ExitStack() as claims,
    ):
        require_migrated(connection)
        require_matching_lake(connection, lake)
        clock = database_now(connection)
        now = now or clock
        files_now = _files_now(root, clock) + (now - clock)
        if not dry_run:
            claims.enter_context(_claim(connection))
            # From here on no attempt commits that is older than the longest run.
            with connection.transaction():
                lock_heads(connection)
        # Before more rows expire: their files are for another sweep, after the grace period.
        amounts["expired files, after their grace period"] = remove_expired_files(
            connection, root, now=now, dry_run=dry_run
        )
        expired = expire_files(connection, horizon=horizon, now=now, dry_run=dry_run)
        amounts["landed files past the horizon, removed after a grace period"] = expired["landed"]
        amounts["rejected files past the horizon, removed after a grace period"] = expired["rejected"]
        amounts["batches past the horizon, merged to one an hour"] = merge_batches(
            connection, horizon=horizon, now=now, dry_run=dry_run
        )
        amounts["names of removed files, merged to one sum an hour"] = forget_removed_files(
            connection, now=now, dry_run=dry_run
        )
        amounts["orphaned files and folders in landing and scratch"] = _sweep_landing(
            connection, root, now=files_now, clock=now, dry_run=dry_run
        )
        tables, days = Lake(lake), VERSION_RETENTION.days
        for table in LAKE_TABLES:
            swept = tables.sweep(
                table, now=files_now, dry_run=dry_run, published=published_files(connection, table)
            )
            amounts[f"files and folders in {table} that no version of the last {days} days references"] = (
                Amount(len(swept), sum(swept.values()))
            )
        for live in live_tables():
            amounts[f"rows of {live.name} past their retention"] = drop_live_windows(
                connection, live, now=now, dry_run=dry_run
            )
        amounts["notices that were sent or given up, past their retention"] = drop_notices(
            connection, keep=keep_notices, now=now, dry_run=dry_run
        )
        amounts["alerts that are resolved, past the retention of notices"] = drop_alerts(
            connection, keep=keep_notices, now=now, dry_run=dry_run
        )
        days = RUN_LOG_RETENTION.days
        amounts[f"events of Dagster's runs older than {days} days, except those about assets"] = (
            drop_run_events(connection, now=now, dry_run=dry_run)
        )
        amounts["Dagster's asset events, replaced or older than 400 days, and such runs"] = drop_old_pages(
            connection, now=now, dry_run=dry_run
        )
        output = dagster_home / "storage"
        amounts[f"files with output of Dagster's runs older than {days} days"] = (
            remove_run_output(dagster_home, now=file_system_now(output) + (now - clock), dry_run=dry_run)
            if output.is_dir()
            else Amount()
        )
        # At the end: it gives up if somebody reads them.
        amounts["days of users' hours that are not kept any more"] = drop_user_hours(
            connection, keep=keep_user_hours, now=now, dry_run=dry_run
        )
    return amounts


def report(amounts: dict[str, Amount], *, dry_run: bool) -> "Table":
    """Return a table of what was or would be removed."""
    from antenna_assets.domain.fitting_table import FittingTable, number_columns

    table = FittingTable("would be removed" if dry_run else "removed", *number_columns("count", "bytes"))
    for what, amount in amounts.items():
        table.add_row(what, f"{amount.count:,}", f"{amount.bytes:,}")
    return table


def _files_now(root: "LakePath", clock: datetime) -> datetime:
    """Return the present time by the clock of the lake's files; `clock` if there is no lake yet."""
    if isinstance(root, Path) and not root.is_dir():
        return clock
    landing = root / LANDING
    return file_system_now(root if isinstance(root, Path) and not landing.is_dir() else landing)


def _sweep_landing(
    connection: psycopg.Connection, root: "LakePath", *, now: datetime, clock: datetime, dry_run: bool
) -> Amount:
    amount = Amount()
    for found in old_attempts(connection, root, now=now, clock=clock):
        orphans = unreferenced(connection, root, found, clock=clock)
        if orphans and not dry_run:
            # Queried again and removed under the lock that a commit takes before it checks its files, so one
            # of the two comes first. Some hundred files at a time, since the stream waits meanwhile.
            with connection.transaction():
                lock_heads(connection)
                orphans = unreferenced(connection, root, found, clock=clock)
                remove(orphans)
        amount += Amount(len(orphans), sum(orphan.size for orphan in orphans))
    if not dry_run:
        forget_replaced(connection, clock=clock)
    return amount


@contextmanager
def _claim(connection: psycopg.Connection) -> Iterator[None]:
    """Let one sweep run at a time: two would be harmless, but do the same work."""
    if not try_lock(connection, SWEEP):
        raise SweepRunning("another sweep of this ledger is running and does the same work; wait for it")
    try:
        milliseconds = str(LONGEST_WAIT_FOR_LOCK // timedelta(milliseconds=1))
        connection.execute("SELECT set_config('lock_timeout', %s, false)", [milliseconds])
        yield
    finally:
        # PostgreSQL sees some time later that a connection was closed: the next sweep would be refused.
        unlock(connection, SWEEP)


@contextmanager
def _errors(lake: str) -> Iterator[None]:
    try:
        yield
    except psycopg.errors.LockNotAvailable as error:
        raise SweepError(
            "a writer has held the ledger for a minute; check the stream with `antenna status`, and"
            " sweep again"
        ) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise SweepError(
            f"{str(error).strip().splitlines()[0]}: sweep as a member of antenna_administrator; the rights "
            "on Dagster's tables are granted when its webserver or daemon starts: restart it"
        ) from error
    except psycopg.Error as error:
        if not is_retryable(error):
            raise
        raise SweepError(
            f"the connection to PostgreSQL was lost during the sweep: {error_line(error)}; sweep again"
        ) from error
    except file_errors() as error:
        place = getattr(error, "filename", None) or lake
        raise SweepError(
            f"{place} cannot be swept: {reason_of(error)}; make it readable and writable, and sweep again"
        ) from error
