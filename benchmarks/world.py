"""The services of the cases, started as a user starts them; for each use an empty ledger, lake and topic."""

import os
import shlex
import shutil
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
from antenna_assets.domain.hours import HOUR, hour_of
from antenna_assets.settings import PREFIX, Settings
from benchmarks.context import PROJECT
from benchmarks.hour_data import users_select

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
    """Return the environment of the same services with an empty ledger, lake and state directory.

    Its topic has a name of its own, and is not there yet.
    """
    own = _new(environment, folder, sql.SQL(""))
    with connect(own[f"{PREFIX}POSTGRES_URL"]) as connection:
        migrate(connection)
    return own


def copied(environment: Mapping[str, str], of: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the environment of the same services with a copy of another's ledger and lake.

    Nobody may be connected to that ledger.
    """
    ledger = sql.Identifier(urlsplit(of[f"{PREFIX}POSTGRES_URL"]).path[1:])
    # With the other strategy every page goes through the log of the server.
    own = _new(environment, folder, sql.SQL(" TEMPLATE {} STRATEGY file_copy").format(ledger))
    # No file of a lake is written twice.
    shutil.copytree(of[f"{PREFIX}LAKE"], own[f"{PREFIX}LAKE"], copy_function=os.link)
    return own


def _new(environment: Mapping[str, str], folder: Path, template: sql.Composable) -> dict[str, str]:
    url = environment[f"{PREFIX}POSTGRES_URL"]
    name = f"bench_{uuid4().hex[:12]}"
    with connect(url) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}{}").format(sql.Identifier(name), template))
    return {
        **environment,
        f"{PREFIX}POSTGRES_URL": urlunsplit(urlsplit(url)._replace(path=f"/{name}")),
        f"{PREFIX}HOME": str(folder),
        f"{PREFIX}LAKE": str(folder / "lake"),
        f"{PREFIX}TOPIC": name,
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
        # Old hours are judged by the quotas of then: there were no others.
        connection.execute("DELETE FROM user_quota_change")
        with connection.cursor().copy("COPY user_metadata (id, name, email, quota) FROM STDIN") as writer:
            for row in rows:
                writer.write_row(row)


def last_full_hour() -> datetime:
    """Return the newest hour that has ended."""
    return hour_of(datetime.now(UTC) - timedelta(minutes=5)) - HOUR
