"""Retention of Dagster's run logs: events in PostgreSQL and captured output, which Dagster itself keeps
forever.

Of the events about assets, which its pages of partitions show, the newest of each partition is kept for
`PAGES_RETENTION`, and so are the runs. The history of an hour is in the ledger, forever.
"""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from uuid import UUID

import psycopg

from antenna_assets.domain.lifetimes import PAGES_RETENTION, RUN_LOG_RETENTION
from antenna_assets.operations.sweep.retention import ROWS_AT_ONCE, Amount

_OLD_EVENTS = """SELECT id, octet_length(event) AS size FROM dagster.event_logs
    WHERE id > %(after)s AND asset_key IS NULL AND timestamp < %(before)s ORDER BY id LIMIT %(rows)s"""


def drop_run_events(connection: psycopg.Connection, *, now: datetime, dry_run: bool = False) -> Amount:
    """Delete events older than `RUN_LOG_RETENTION` that are not about an asset."""
    if connection.execute("SELECT to_regclass('dagster.event_logs')").fetchone() == (None,):
        return Amount()
    # Dagster's timestamps are in UTC and have no zone.
    values = {"before": (now - RUN_LOG_RETENTION).replace(tzinfo=None), "rows": ROWS_AT_ONCE, "after": 0}
    count = size = 0
    while rows := connection.execute(_OLD_EVENTS, values).fetchall():
        ids = [id_ for id_, _ in rows]
        if not dry_run:
            connection.execute("DELETE FROM dagster.event_logs WHERE id = ANY(%s)", [ids])
        count, size = count + len(rows), size + sum(bytes_ for _, bytes_ in rows)
        values["after"] = ids[-1]
    return Amount(count, size)


_OLD_ASSET_EVENTS = """SELECT id, octet_length(event) AS size, timestamp < %(long_before)s
        OR dagster_event_type IS DISTINCT FROM 'ASSET_MATERIALIZATION' OR EXISTS (
            SELECT FROM dagster.event_logs AS newer
            WHERE newer.asset_key = old.asset_key AND newer.id > old.id
            AND newer.dagster_event_type = 'ASSET_MATERIALIZATION'
            AND newer.partition IS NOT DISTINCT FROM old.partition
        ) AS unneeded
    FROM dagster.event_logs AS old
    WHERE id > %(after)s AND asset_key IS NOT NULL AND timestamp < %(before)s ORDER BY id LIMIT %(rows)s"""

_OLD_CHECKS = """SELECT id, octet_length(evaluation_event) AS size,
    create_timestamp < %(long_before)s OR EXISTS (
        SELECT FROM dagster.asset_check_executions AS newer WHERE newer.asset_key = old.asset_key
        AND newer.check_name = old.check_name AND newer.id > old.id
    ) AS unneeded
    FROM dagster.asset_check_executions AS old
    WHERE id > %(after)s AND create_timestamp < %(before)s ORDER BY id LIMIT %(rows)s"""

_OLD_RUNS = """SELECT id, octet_length(run_body) AS size, true AS unneeded FROM dagster.runs
    WHERE id > %(after)s AND status IN ('SUCCESS', 'FAILURE', 'CANCELED')
    AND update_timestamp < %(long_before)s ORDER BY id LIMIT %(rows)s"""


def drop_old_pages(connection: psycopg.Connection, *, now: datetime, dry_run: bool = False) -> Amount:
    """Delete events of assets and checks that a newer run has replaced, after `RUN_LOG_RETENTION`, and all of
    them, with the runs, after `PAGES_RETENTION`."""
    if connection.execute("SELECT to_regclass('dagster.event_logs')").fetchone() == (None,):
        return Amount()
    amount = Amount()
    for select, statements in (
        (
            _OLD_ASSET_EVENTS,
            (
                "DELETE FROM dagster.asset_event_tags WHERE event_id = ANY(%s)",
                "DELETE FROM dagster.event_logs WHERE id = ANY(%s)",
            ),
        ),
        (_OLD_CHECKS, ("DELETE FROM dagster.asset_check_executions WHERE id = ANY(%s)",)),
        # Their tags are deleted with them.
        (_OLD_RUNS, ("DELETE FROM dagster.runs WHERE id = ANY(%s)",)),
    ):
        amount += _drop(connection, select, statements, now=now, dry_run=dry_run)
    return amount


def _drop(
    connection: psycopg.Connection, select: str, statements: Sequence[str], *, now: datetime, dry_run: bool
) -> Amount:
    # Dagster's timestamps are in UTC and have no zone.
    values = {
        "before": (now - RUN_LOG_RETENTION).replace(tzinfo=None),
        "long_before": (now - PAGES_RETENTION).replace(tzinfo=None),
        "rows": ROWS_AT_ONCE,
        "after": 0,
    }
    amount = Amount()
    while rows := connection.execute(select.encode(), values).fetchall():
        values["after"] = rows[-1][0]
        dropped = [(id_, size or 0) for id_, size, unneeded in rows if unneeded]
        amount += Amount(len(dropped), sum(size for _, size in dropped))
        if dropped and not dry_run:
            with connection.transaction():
                for statement in statements:
                    connection.execute(statement.encode(), [[id_ for id_, _ in dropped]])
    return amount


def remove_run_output(dagster_home: Path, *, now: datetime, dry_run: bool = False) -> Amount:
    """Remove captured output of runs that is older than `RUN_LOG_RETENTION`.

    Args:
        now: by the clock of that folder's file system.
    """
    before = (now - RUN_LOG_RETENTION).timestamp()
    count = size = 0
    for folder in (dagster_home / "storage").glob("*-*-*-*-*"):
        with suppress(ValueError):  # Not a run: its name is not a UUID.
            UUID(folder.name)
            files = [file for file in folder.rglob("*") if file.is_file()]
            if max(file.stat().st_mtime for file in [folder, *files]) >= before:
                continue
            count, size = count + len(files), size + sum(file.stat().st_size for file in files)
            if not dry_run:
                shutil.rmtree(folder)
    return Amount(count, size)
