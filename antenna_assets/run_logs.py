"""What runs of Dagster logged and nobody reads any more: their events in PostgreSQL and their captured output.

Dagster itself keeps them for ever. Its events about assets, which its pages of partitions are made of, stay; so do its runs.
"""

import shutil
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from uuid import UUID

import psycopg

from antenna_assets.lifetimes import RUN_LOG_RETENTION
from antenna_assets.retention import ROWS_AT_ONCE, Amount

_OLD_EVENTS = """SELECT id, octet_length(event) AS size FROM dagster.event_logs
    WHERE id > %(after)s AND asset_key IS NULL AND timestamp < %(before)s ORDER BY id LIMIT %(rows)s"""


def drop_run_events(connection: psycopg.Connection, *, now: datetime, dry_run: bool = False) -> Amount:
    """Delete the events of runs that are older than `RUN_LOG_RETENTION` and tell nothing of an asset."""
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


def remove_run_output(dagster_home: Path, *, now: datetime, dry_run: bool = False) -> Amount:
    """Remove the captured output of runs that is older than `RUN_LOG_RETENTION`."""
    before = (now - RUN_LOG_RETENTION).timestamp()
    count = size = 0
    for folder in (dagster_home / "storage").glob("*-*-*-*-*"):
        with suppress(ValueError):  # No run: its name is no UUID.
            UUID(folder.name)
            files = [file for file in folder.rglob("*") if file.is_file()]
            if max(file.stat().st_mtime for file in [folder, *files]) >= before:
                continue
            count, size = count + len(files), size + sum(file.stat().st_size for file in files)
            if not dry_run:
                shutil.rmtree(folder)
    return Amount(count, size)
