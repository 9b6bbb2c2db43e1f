"""Backfill a month of hours with Dagster's daemon while ten workers are killed; then compare every row."""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import psycopg

from antenna_assets.clients.postgres import connect
from antenna_assets.defs.partitions import HOURS_PER_BACKFILL_RUN
from antenna_assets.domain.hours import HOUR, hour_key
from antenna_assets.settings import PREFIX
from antenna_assets_tests.faults.dagster_daemon import IN_PROGRESS, Dagster, dagster
from benchmarks.context import Context
from benchmarks.hour_data import users_select
from benchmarks.landing import NOTE, landed_files
from benchmarks.measure import ContenderFailed
from benchmarks.month import EVENTS
from benchmarks.outcome import Claim, Measured, Outcome, Table
from benchmarks.world import settings_of

TITLE = "A backfill whose workers are killed"
KILLS = 10
BETWEEN_KILLS = (10.0, 30.0)
RETRIES = 3
"""As `docker/dagster.yaml` has it."""

_ROWS = """SELECT epoch(date_trunc('hour', timestamp))::BIGINT AS hour, {key} AS key, {extra} AS extra, {more}
    sum(bytes)::BIGINT AS bytes FROM events LEFT JOIN users USING (id) GROUP BY ALL"""
# What the tables must hold: computed from the landed files and the users, independently of the product's SQL.
ANSWERS = {
    "bytes_agg_antenna_1h": _ROWS.format(key="antenna_id", extra="''", more=""),
    "bytes_agg_user_1h": _ROWS.format(key="id", extra="coalesce(email, '')", more=""),
    "bytes_agg_app_1h": _ROWS.format(key="app", extra="''", more=""),
    "users_over_quota_1h": "SELECT * EXCLUDE (quota) FROM ("
    + _ROWS.format(key="id", extra="email || ' ' || quota", more="quota,")
    + ") WHERE bytes > quota",
}
STORED = {
    "bytes_agg_antenna_1h": "antenna_id, '', sum_antenna_bytes",
    "bytes_agg_user_1h": "id, coalesce(email, ''), sum_user_bytes",
    "bytes_agg_app_1h": "app, '', sum_app_bytes",
    "users_over_quota_1h": "id, email || ' ' || quota, sum_user_bytes",
}


def measure(context: Context) -> Outcome:
    """Measure once: it takes as long as the backfill of a month."""
    kills = 1 if context.short else KILLS
    month = context.month()
    own = month.copy(context.folder / "own")
    settings = settings_of(own)
    first, last = month.first, month.first + (month.hours - 1) * HOUR
    command = (
        "-m",
        "antenna_assets.cli",
        "backfill",
        "--from",
        hour_key(first),
        "--to",
        hour_key(last),
        "--wait",
    )
    with dagster(settings, settings.home / "dagster", show_log=False) as on:
        # The sensor would request the same hours.
        on.stop_sensor()
        on.start()
        began = time.perf_counter()
        process = on.run(sys.executable, *command)
        killed = _kill_workers(on, lambda: process.poll() is None, kills, context)
        if process.wait(3600):
            raise ContenderFailed((on.home / "log").read_text(errors="replace")[-2_000:])
        seconds = time.perf_counter() - began
    context.say(f"backfilled in {seconds:.0f} s; comparing every row")
    rows = _compared(own[f"{PREFIX}POSTGRES_URL"], landed_files(own), month.users, context.folder)
    return Outcome(
        [
            Table(
                f"{month.hours} hours of {EVENTS:,} events, {killed} workers killed",
                "s",
                [Measured("antenna backfill --wait", [seconds])],
            )
        ],
        [
            Claim(
                f"all rows equal after {kills} kills", f"{rows:,} rows equal, {killed} kills", killed == kills
            )
        ],
        notes=[
            NOTE,
            f"Two runs of {HOURS_PER_BACKFILL_RUN} hours at a time."
            " The run of a killed worker is launched again, for all of its hours.",
        ],
    )


def _kill_workers(on: Dagster, running: Callable[[], bool], kills: int, context: Context) -> int:
    """SIGKILL a worker at random intervals while the backfill runs; returns how many were killed."""
    chance = random.Random(744)
    killed = 0
    while killed < kills and running():
        time.sleep(1 if context.short else chance.uniform(*BETWEEN_KILLS))
        workers = _workers(on)
        while running() and not workers:
            time.sleep(1)
            workers = _workers(on)
        if workers:
            os.kill(chance.choice(workers), signal.SIGKILL)
            killed += 1
            context.say(f"killed worker {killed} of {kills}")
    return killed


def _workers(on: Dagster) -> list[int]:
    """The processes of runs, unless none has started, or one has its last retry: its hours would fail."""
    with connect(on.url) as connection:
        ((started, last),) = connection.execute(
            "SELECT coalesce(bool_or(status = 'STARTED'), false), coalesce(bool_or(value = %s), false)"
            " FROM dagster.runs LEFT JOIN dagster.run_tags"
            "  ON run_tags.run_id = runs.run_id AND key = 'dagster/retry_number' WHERE status = ANY(%s)",
            [str(RETRIES), list(IN_PROGRESS)],
        ).fetchall()
    return on.workers() if started and not last else []


def _compared(url: str, landed: list[str], users: int, folder: Path) -> int:
    """Compare all tables, and return how many rows they have.

    Raises:
        ContenderFailed: a row differs.
    """
    total = 0
    with connect(url) as connection, duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        database.execute(
            f"CREATE VIEW events AS SELECT * FROM read_parquet({landed}, hive_partitioning = false)"
        )
        database.execute(f"CREATE TABLE users AS {users_select(users)}")
        for table, columns in STORED.items():
            file = folder / f"{table}.csv"
            _export(connection, f"SELECT extract(epoch FROM date)::bigint, {columns} FROM {table}", file)
            found = (
                f"SELECT * FROM read_csv('{file}', header = false, nullstr = 'no null',"
                " columns = {'hour': 'BIGINT', 'key': 'VARCHAR', 'extra': 'VARCHAR', 'bytes': 'BIGINT'})"
            )
            row = database.execute(
                f"WITH found AS ({found}), expected AS ({ANSWERS[table]})"
                " SELECT (SELECT count(*) FROM (FROM expected EXCEPT ALL FROM found)),"
                " (SELECT count(*) FROM (FROM found EXCEPT ALL FROM expected)), (SELECT count(*) FROM found)"
            ).fetchone() or (0, 0, 0)
            if row[:2] != (0, 0) or not row[2]:
                raise ContenderFailed(f"{table}: {row[0]} rows are missing and {row[1]} wrong, of {row[2]}")
            total += row[2]
    return total


def _export(connection: psycopg.Connection, select: str, file: Path) -> None:
    with (
        file.open("wb") as target,
        connection.cursor().copy(f"COPY ({select}) TO STDOUT (FORMAT csv)") as copy,
    ):
        for block in copy:
            target.write(block)
