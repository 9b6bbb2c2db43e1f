"""Cleaning Dagster's events of older versions, whose previews and plots showed users (decision 29).

Each start of one of Dagster's processes calls it, as Dagster's login may change these rows.
"""

import base64
import json
import re
import time
from typing import Any

import psycopg

from antenna_assets.clients.advisory_locks import OLD_PREVIEWS, try_lock, unlock
from antenna_assets.clients.postgres import connect
from antenna_assets.clients.postgres_session import RUN
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.old_previews import read_cleaning

EVENTS_AT_ONCE = 1_000
"""Ids of events that one transaction looks through: large previews, so a few MB."""

WRITERS_SECONDS = 10.0
"""How long to wait for publications that are being committed."""

_WITH_CELLS = ("raw_parquet", "enriched_usage", "bytes_agg_user_1h", "users_over_quota_1h")
_WITH_BARS = ("bytes_agg_user_1h", "users_over_quota_1h")
_PICTURE = re.compile(r"(?<=data:image/svg\+xml;base64,)[A-Za-z0-9+/=]++")

_REMOVED = base64.b64encode(
    b'<svg xmlns="http://www.w3.org/2000/svg" width="520" height="24" font-family="sans-serif"'
    b' font-size="11" fill="#444"><text x="8" y="16">This picture was removed: it showed users.</text></svg>'
).decode()

_RIGHTS = """SELECT count(*) = 7 FROM (VALUES
        ('ledger', 'publication', 'SELECT'), ('ledger', 'old_previews', 'SELECT'),
        ('ledger', 'old_previews', 'INSERT'), ('ledger', 'old_previews', 'UPDATE'),
        ('dagster', 'event_logs', 'UPDATE'), ('dagster', 'asset_keys', 'UPDATE'),
        ('dagster', 'runs', 'SELECT')
    ) AS needed (schema, name, privilege)
    JOIN pg_namespace ON nspname = schema JOIN pg_class ON relnamespace = pg_namespace.oid AND relname = name
    WHERE has_schema_privilege(pg_namespace.oid, 'USAGE') AND has_table_privilege(pg_class.oid, privilege)"""

_WRITERS = """SELECT virtualtransaction FROM pg_locks
    WHERE relation = 'ledger.publication'::regclass AND mode = 'RowExclusiveLock' AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""

# A run that Dagster has given up may still have a worker: that holds the lock of `run_lock.py`.
_UNFINISHED = """SELECT count(DISTINCT run_id) FROM ledger.publication WHERE shown_with_users AND (
        run_id IN (SELECT run_id FROM dagster.runs WHERE status NOT IN ('SUCCESS', 'FAILURE', 'CANCELED'))
        OR hashtextextended(run_id, 0) IN (
            SELECT classid::bigint << 32 | objid::bigint FROM pg_locks
            WHERE locktype = 'advisory' AND granted AND objsubid = 1
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())))"""

_EVENTS = """SELECT id, run_id, event, ARRAY[asset_key, step_key] && %(bars)s::text[] FROM dagster.event_logs
    WHERE id > %(after)s AND id <= %(to)s AND ARRAY[asset_key, step_key] && %(cells)s::text[]
    AND (strpos(event, 'TableRecord') > 0 OR strpos(event, 'svg+xml;base64,') > 0)"""

_LATEST = """SELECT id, last_materialization, asset_key = ANY(%(bars)s) FROM dagster.asset_keys
    WHERE asset_key = ANY(%(cells)s) AND last_materialization IS NOT NULL"""


def clean_old_previews(address: str) -> None:
    """Remove users from Dagster's events of older versions, once; a later call resumes an interrupted one.

    Nothing is done while another process does it, while a run of an older version is unfinished, and for a
    login without the rights: `antenna forget-user` says so then. Without such events it costs two short
    queries.
    """
    with connect(address, application="antenna dagster", limits=RUN) as connection:
        if connection.execute(_RIGHTS).fetchone() != (True,) or not read_cleaning(connection).is_due:
            return
        if not try_lock(connection, OLD_PREVIEWS):
            return
        try:
            _clean(connection)
        finally:
            unlock(connection, OLD_PREVIEWS)


def _clean(connection: psycopg.Connection) -> None:
    # Under the lock, as another process may just have finished.
    cleaning = read_cleaning(connection)
    if not cleaning.is_due:
        return
    connection.execute("INSERT INTO ledger.old_previews DEFAULT VALUES ON CONFLICT DO NOTHING")
    # Read first: publications with a smaller number that are not committed yet are being committed now.
    unfinished = _await_writers(connection) or connection.execute(_UNFINISHED).fetchall()[0][0]
    connection.execute("UPDATE ledger.old_previews SET unfinished_runs = %s", [unfinished])
    if unfinished:
        return
    # An event follows its publication, so those of all publications up to `newest` exist from here on.
    last = connection.execute("SELECT coalesce(max(id), 0) FROM dagster.event_logs").fetchall()[0][0]
    after = cleaning.event if cleaning.cleaning_to == cleaning.newest else 0
    connection.execute(
        "UPDATE ledger.old_previews SET cleaning_to = %s, event = %s", [cleaning.newest, after]
    )
    new_runs = _runs_without_users(connection)
    while after < last:
        to = min(after + EVENTS_AT_ONCE, last)
        with connection.transaction():
            _clean_events(connection, after, to, new_runs)
            connection.execute("UPDATE ledger.old_previews SET event = %s", [to])
        commit_point("old_previews.events_cleaned")
        after = to
    with connection.transaction():
        _clean_latest(connection, new_runs)
        connection.execute(
            "UPDATE ledger.old_previews SET cleaned_to = cleaning_to, cleaning_to = NULL, event = 0"
        )


def _await_writers(connection: psycopg.Connection) -> int:
    """Wait for the publications that are being committed; returns how many are not, after
    `WRITERS_SECONDS`."""
    end = time.monotonic() + WRITERS_SECONDS
    writing = {name for (name,) in connection.execute(_WRITERS).fetchall()}
    while writing and time.monotonic() < end:
        time.sleep(0.05)
        writing &= {name for (name,) in connection.execute(_WRITERS).fetchall()}
    return len(writing)


def _runs_without_users(connection: psycopg.Connection) -> set[str]:
    """The runs all of whose publications are shown without users: their plots are kept."""
    rows = connection.execute(
        "SELECT run_id FROM ledger.publication GROUP BY run_id HAVING NOT bool_or(shown_with_users)"
    )
    return {run for (run,) in rows.fetchall()}


def _clean_events(connection: psycopg.Connection, after: int, to: int, new_runs: set[str]) -> None:
    values = {"after": after, "to": to, "cells": _keys(_WITH_CELLS), "bars": _keys(_WITH_BARS)}
    changed = []
    for id_, run, event, bars in connection.execute(_EVENTS, values).fetchall():
        text = without_users(event, bars=bars and run not in new_runs)
        if text != event:
            changed.append((text, id_))
    with connection.cursor() as cursor:
        cursor.executemany("UPDATE dagster.event_logs SET event = %s WHERE id = %s", changed)


def _clean_latest(connection: psycopg.Connection, new_runs: set[str]) -> None:
    values = {"cells": _keys(_WITH_CELLS), "bars": _keys(_WITH_BARS)}
    for id_, event, bars in connection.execute(_LATEST, values).fetchall():
        # Not `last_run_id`: that is set as soon as a run plans to materialize the asset.
        record = json.loads(event)
        run = record.get("event_log_entry", record).get("run_id")
        text = without_users(event, bars=bars and run not in new_runs)
        if text != event:
            # A run may have materialized the asset meanwhile.
            connection.execute(
                "UPDATE dagster.asset_keys SET last_materialization = %s"
                " WHERE id = %s AND last_materialization = %s",
                [text, id_, event],
            )


def _keys(assets: tuple[str, ...]) -> list[str]:
    """The assets as Dagster stores them: the name of a step, and the JSON of an asset's key."""
    return [*assets, *(json.dumps([asset]) for asset in assets)]


def without_users(event: str, *, bars: bool) -> str:
    """Return an event without the rows of tables that have a user's id and, with `bars`, without its
    pictures; the same text if it has neither."""
    if bars:
        event = _PICTURE.sub(_REMOVED, event)
    content = json.loads(event)
    return json.dumps(content) if _drop_records(content) else event


def _drop_records(part: Any) -> bool:
    """Drop the records of tables with a user's id anywhere in an event; returns whether there was one."""
    if isinstance(part, dict):
        return sum(_drop_records(item) for item in part.values()) > 0
    if not isinstance(part, list):
        return False
    kept = [item for item in part if not _names_a_user(item)]
    dropped = len(kept) < len(part)
    part[:] = kept
    return sum(_drop_records(item) for item in kept) > 0 or dropped


def _names_a_user(item: Any) -> bool:
    if not isinstance(item, dict) or item.get("__class__") != "TableRecord":
        return False
    cells = item.get("data")
    return isinstance(cells, dict) and "id" in cells
