"""The services of the cases, started as a user starts them, and hours that land without a stream.

Only the cases of the stream use Kafka. Where a case starts from landed hours, `land_hours` writes their files
and commits them to the ledger with the product's own transaction.
"""

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import duckdb
import psycopg
from psycopg import sql

from antenna_assets.clients.migrations import migrate
from antenna_assets.clients.postgres import connect
from antenna_assets.domain.closing_rule import NO_BACKLOG
from antenna_assets.domain.hours import HOUR, hour_of
from antenna_assets.ledger.batch import AttemptFile, BatchContent, BatchPlan
from antenna_assets.ledger.commit import Observation, commit_batch, commit_heartbeat
from antenna_assets.ledger.head import claim_topic, read_head
from antenna_assets.ledger.offsets import OffsetRange
from antenna_assets.settings import PREFIX, Settings
from antenna_assets.storage.attempt import attempt_folder
from benchmarks.context import PROJECT
from benchmarks.hour_data import events_select, users_select

PARTITIONS = 4
ANTENNA = (sys.executable, "-m", "antenna_assets.cli")


@contextmanager
def world() -> Iterator[dict[str, str]]:
    """Run PostgreSQL and Kafka in a new state directory. Yields the environment variables for it."""
    # A short path: the name of a socket is limited to about 100 characters.
    with tempfile.TemporaryDirectory(prefix="antenna-bench-") as home:
        own = {f"{PREFIX}HOME": home, "PYTHONPATH": str(PROJECT)}
        try:
            _antenna(own, "up")
            exported = _antenna(own, "env")
            lines = (shlex.split(line) for line in exported.splitlines() if line.startswith("export "))
            yield own | dict(words[1].split("=", 1) for words in lines)
        finally:
            _antenna(own, "down")


def _antenna(environment: Mapping[str, str], command: str) -> str:
    return subprocess.run(
        (*ANTENNA, command), env={**os.environ, **environment}, check=True, capture_output=True, text=True
    ).stdout


def fresh(environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the environment of the same services with an empty ledger, lake and state directory."""
    url = environment[f"{PREFIX}POSTGRES_URL"]
    name = f"bench_{uuid4().hex[:12]}"
    with connect(url) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    own = urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
    with connect(own) as connection:
        migrate(connection)
    return {
        **environment,
        f"{PREFIX}POSTGRES_URL": own,
        f"{PREFIX}HOME": str(folder),
        f"{PREFIX}LAKE": str(folder / "lake"),
    }


def settings_of(environment: Mapping[str, str]) -> Settings:
    """Return the settings of an environment of `fresh`."""
    names = ("home", "postgres_url", "kafka_bootstrap", "topic", "lake")
    return Settings(**{name: environment[PREFIX + name.upper()] for name in names})  # type: ignore[arg-type]


def add_users(connection: psycopg.Connection, count: int) -> None:
    """Replace all users by `count` others."""
    with duckdb.connect() as database:
        rows = database.execute(users_select(count)).fetchall()
    with connection.transaction():
        connection.execute("DELETE FROM user_metadata")
        with connection.cursor().copy("COPY user_metadata (id, name, email, quota) FROM STDIN") as writer:
            for row in rows:
                writer.write_row(row)


def last_full_hour() -> datetime:
    """Return the newest hour that has ended."""
    return hour_of(datetime.now(UTC) - timedelta(minutes=5)) - HOUR


def land_hours(
    environment: Mapping[str, str],
    *,
    first: datetime,
    hours: int,
    events: int,
    users: int,
) -> None:
    """Land `events` in each hour, as one batch with one file, and close the hours."""
    lake = Path(environment[f"{PREFIX}LAKE"])
    topic, topic_id = environment[f"{PREFIX}TOPIC"], "bench"
    with connect(environment[f"{PREFIX}POSTGRES_URL"]) as connection, duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        add_users(connection, users)
        claim_topic(connection, topic, topic_id)
        for number in range(hours):
            hour = first + number * HOUR
            begun = datetime.now(UTC)
            folder = f"{attempt_folder(number + 1)}/hour={hour:%Y%m%d%H}"
            path = lake / folder / "part-0.parquet"
            path.parent.mkdir(parents=True)
            select = events_select(number * events, events, users=users, hour=hour)
            database.execute(f"COPY ({select}) TO '{path}' (FORMAT parquet, COMPRESSION zstd)")
            row = database.execute(
                f"SELECT count(*), sum(bytes)::BIGINT, max(timestamp) FROM '{path}'"
            ).fetchone()
            if row is None:
                raise RuntimeError(f"expected rows in {path}")
            file = AttemptFile(f"{folder}/part-0.parquet", hour, row[0], row[1], path.stat().st_size)
            each = events // PARTITIONS
            commit_batch(
                connection,
                BatchPlan(
                    topic,
                    topic_id,
                    number + 1,
                    datetime.now(UTC),
                    [OffsetRange(p, number * each, (number + 1) * each) for p in range(PARTITIONS)],
                ),
                BatchContent(
                    files=[file],
                    event_times=dict.fromkeys(range(PARTITIONS), row[2]),
                    first_event_time=hour,
                    begun=begun,
                ),
                Observation(datetime.now(UTC), dict.fromkeys(range(PARTITIONS), NO_BACKLOG)),
                lateness=timedelta(minutes=1),
            )
        batch = read_head(connection, topic).batch
        commit_heartbeat(
            connection, topic, batch, Observation(datetime.now(UTC)), lateness=timedelta(minutes=1)
        )
