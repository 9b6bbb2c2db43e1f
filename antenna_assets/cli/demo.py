"""`antenna demo`: the whole line once, from nothing to a checked result, and then live if asked for.

Every step is the one that a user would take; nothing is computed here.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import psycopg
from rich.console import Console
from rich.table import Column, Table

from antenna_assets.clients.clock import database_now
from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import HOUR, hour_key, hour_of
from antenna_assets.domain.safe_text import safe_cell
from antenna_assets.errors import AntennaError
from antenna_assets.settings import Settings
from antenna_assets.simulator.run import send_live
from antenna_assets.stack.services import services
from antenna_assets.stack.start import environment, environment_of, start
from antenna_assets.storage.project_files import workspace_file

EVENTS = 60_000
HOURS = 2
SEED = 20261123
LIVE_RATE = 200
ADDRESS = ("127.0.0.1", 3000)
WHAT_NEXT = f"""
PostgreSQL and Kafka keep running, so you can look around:
  .venv/bin/antenna status           lag, hours, generations, quarantine
  .venv/bin/antenna demo --serve     live events, and Dagster's UI on http://{ADDRESS[0]}:{ADDRESS[1]}
  .venv/bin/antenna down             stop everything"""
Say = Callable[[str], None]


class DemoFailed(AntennaError):
    """A step of the demonstration did not give what it should."""


def run_demo(settings: Settings, *, out: Console, say: Say) -> None:
    """Send two closed hours of events, run what the sensor asks for, show the results and compare them.

    Raises:
        DemoFailed: a run failed, or a table is not what the answers say.
    """
    from antenna_assets.simulator.run import check, simulate
    from antenna_assets.simulator.scenario import Scenario
    from antenna_assets.streaming.job import Stream
    from antenna_assets.streaming.spark.query import start_spark

    began = time.monotonic()
    found = start(settings, say)
    first = _unused_hours(settings, found.postgres_url)
    scenario = Scenario(
        events=EVENTS, seed=SEED, start=first, hours=HOURS, late=0.02, malformed=0.005, unknown_users=0.01
    )
    answers = settings.home / "demo-answers.json"
    # Spark takes five seconds to start: meanwhile the events are sent.
    with environment_of(settings), ThreadPoolExecutor(1) as pool:
        spark = pool.submit(start_spark, lake=settings.lake_uri)
        say(f"sending {EVENTS:,} events of {hour_key(first)} and the hour after it to Kafka")
        simulate(
            settings,
            scenario,
            bootstrap=found.kafka_bootstrap,
            config=found.kafka_config,
            answers=answers,
            progress=lambda _count: None,
        )
        say("reading them with Spark")
        Stream(
            settings,
            postgres_url=found.postgres_url,
            kafka_bootstrap=found.kafka_bootstrap,
            kafka_config=found.kafka_config,
            say=say,
            stop=threading.Event(),
            spark=spark.result(),
        ).read_available()
        _run_what_the_sensor_asks_for(say)
        spark.result().stop()
    with connect(found.postgres_url, application="antenna demo") as connection:
        for table in _results(connection, first):
            out.print(table)
    differences = check(settings, answers, postgres_url=found.postgres_url)
    if differences is not None:
        out.print(differences)
        raise DemoFailed("the tables differ from the answers, see above")
    out.print(f"[green]all tables equal the answers[/green] ({time.monotonic() - began:.0f} s)")
    out.print(WHAT_NEXT)


def serve_demo(settings: Settings, *, out: Console, say: Say, stop: threading.Event) -> None:
    """Run live events, the stream, a daily sweep and Dagster's webserver and daemon until `stop` is set or one of them ends.

    Raises:
        DemoFailed: one of the processes ended by itself.
    """
    host, port = ADDRESS
    commands = {
        "stream": [sys.executable, "-m", "antenna_assets.cli", "stream"],
        "sweep": [sys.executable, "-m", "antenna_assets.cli", "sweep", "--every", "1 day"],
        "dagster": [
            str(Path(sys.executable).with_name("dagster")),
            *("dev", "--workspace", str(workspace_file()), "--host", host, "--port", str(port)),
        ],
    }
    found = services(settings)
    logs = settings.home / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    processes: dict[str, subprocess.Popen[bytes]] = {}
    with ThreadPoolExecutor(1) as pool:
        sender = pool.submit(
            send_live,
            settings,
            bootstrap=found.kafka_bootstrap,
            config=found.kafka_config,
            rate=LIVE_RATE,
            stop=stop,
        )
        try:
            for name, command in commands.items():
                with (logs / f"{name}.log").open("ab") as log:
                    processes[name] = subprocess.Popen(
                        command, stdout=log, stderr=log, env={**os.environ, **environment(settings)}
                    )
            out.print(f"Dagster's UI: http://{host}:{port} (Ctrl-C stops it, the stream and the events)")
            say(f"{LIVE_RATE} events a second; logs in {logs}")
            while not stop.wait(1):
                if sender.done():
                    raise DemoFailed(f"the simulator ended: {sender.exception()}")
                for name, process in processes.items():
                    if process.poll() is not None:
                        raise DemoFailed(
                            f"{name} ended with exit code {process.returncode}; see {logs / name}.log"
                        )
        finally:
            stop.set()
            _end(processes.values())


def _end(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """Ask the processes to stop, and wait; each ends its own children."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _unused_hours(settings: Settings, postgres_url: str) -> datetime:
    """The newest two hours that are over and of which the ledger has no rows yet, so that answers are exact."""
    with connect(postgres_url) as connection:
        now = database_now(connection)
        used = {
            hour for (hour,) in connection.execute("SELECT hour FROM ledger.hour WHERE rows > 0").fetchall()
        }
    first = hour_of(now - settings.lateness) - HOURS * HOUR
    while first >= max(settings.start, now - settings.horizon + timedelta(days=1)):
        if not used & {first + number * HOUR for number in range(HOURS)}:
            return first
        first -= HOUR
    raise DemoFailed("every hour within the horizon has rows already; point ANTENNA_HOME to a new folder")


def _run_what_the_sensor_asks_for(say: Say) -> None:
    """Tick the real sensor on the real instance, and execute its requests in this process."""
    from antenna_assets.definitions import build_definitions
    from antenna_assets.defs.instance import open_instance
    from antenna_assets.defs.local_runs import publish

    say("ticking the sensor")
    with open_instance() as instance:
        for hours, run in publish(build_definitions(), instance):
            if not run.success:
                raise DemoFailed(f"run {run.run_id} of {hours} failed; its log above says why")
            say(f"published the six assets of {hours}")


def _results(connection: psycopg.Connection, first: datetime) -> Iterator[Table]:
    hours = [first + number * HOUR for number in range(HOURS)]
    shown = (
        ("Bytes by antenna", "antenna_id", "sum_antenna_bytes", "bytes_agg_antenna_1h"),
        ("Bytes by app", "app", "sum_app_bytes", "bytes_agg_app_1h"),
    )
    for title, key, value, name in shown:
        table = Table("hour", key, Column("bytes", justify="right"), title=title)
        query = psycopg.sql.SQL(
            "SELECT date, {}, {} FROM {} WHERE date = ANY(%s) ORDER BY date, 3 DESC"
        ).format(*map(psycopg.sql.Identifier, (key, value, name)))
        for date, text, bytes_ in connection.execute(query, [hours]).fetchall():
            table.add_row(hour_key(date), safe_cell(text), f"{bytes_:,}")
        yield table
    # By name: an e-mail is not for a screen.
    numbers = [Column(name, justify="right") for name in ("bytes", "quota", "used")]
    table = Table("hour", "user", *numbers, title="Users over quota")
    rows = connection.execute(
        "SELECT date, coalesce(name, over.id), sum_user_bytes, over.quota FROM users_over_quota_1h AS over"
        " LEFT JOIN user_metadata USING (id) WHERE date = ANY(%s) ORDER BY date, sum_user_bytes::numeric / greatest(over.quota, 1) DESC",
        [hours],
    )
    for date, name, bytes_, quota in rows.fetchall():
        table.add_row(
            hour_key(date),
            safe_cell(name),
            f"{bytes_:,}",
            f"{quota:,}",
            f"{bytes_ / quota:.0%}" if quota else "-",
        )
    yield table
