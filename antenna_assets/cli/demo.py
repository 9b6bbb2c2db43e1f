"""`antenna demo`: the whole pipeline once, from nothing to a checked result.

Every step is one that a user could take. What `--serve` keeps running is in `demo_services.py`.
"""

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from rich.console import Console

from antenna_assets.cli.demo_alerts import allowance
from antenna_assets.cli.demo_tables import result_tables
from antenna_assets.clients.clock import database_now
from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import HOUR, hour_key, hour_of
from antenna_assets.errors import AntennaError
from antenna_assets.settings import Settings
from antenna_assets.stack.start import environment_of, start

EVENTS = 60_000
HOURS = 2
SEED = 20261123
ADDRESS = ("127.0.0.1", 3000)
READERS = {"duckdb": "the embedded reader", "spark": "Spark"}
WHAT_NEXT = f"""
PostgreSQL and Kafka keep running, so you can look around:
  .venv/bin/antenna status           lag, hours, generations, quarantine
  .venv/bin/antenna demo --serve     live events and alerts, and Dagster on http://{ADDRESS[0]}:{ADDRESS[1]}
  .venv/bin/antenna down             stop everything"""
Say = Callable[[str], None]


class DemoFailed(AntennaError):
    """A step of the demonstration did not give the expected result."""


def run_demo(settings: Settings, *, out: Console, say: Say) -> None:
    """Send the events of two closed hours, run what the sensor requests, show the results and check them.

    Raises:
        DemoFailed: a run failed, or a table differs from the answers.
    """
    from antenna_assets.simulator.run import AnswersFile, check, simulate
    from antenna_assets.simulator.scenario import Scenario
    from antenna_assets.simulator.send import Target
    from antenna_assets.streaming.job import Stream

    began = time.monotonic()
    running = start(settings, say)
    first = _unused_hours(settings, running.postgres_url)
    scenario = Scenario(
        events=EVENTS, seed=SEED, start=first, hours=HOURS, late=0.02, malformed=0.005, unknown_users=0.01
    )
    target = Target(running.kafka_bootstrap, settings.topic, running.kafka_config)
    answers = settings.home / "demo-answers.json"
    with environment_of(settings):
        say(f"sending {EVENTS:,} events of {hour_key(first)} and the hour after it to Kafka")
        simulate(settings, scenario, target, answers=AnswersFile(answers))
        say(f"reading them with {READERS[settings.stream_engine]}")
        stream = Stream(
            settings,
            postgres_url=running.postgres_url,
            kafka_bootstrap=running.kafka_bootstrap,
            kafka_config=running.kafka_config,
            say=say,
            stop=threading.Event(),
        )
        try:
            stream.read_available()
        finally:
            stream.close()
        _run_requests_of_the_sensor(say)
    with connect(running.postgres_url, application="antenna demo") as connection:
        hours = [first + number * HOUR for number in range(HOURS)]
        for table in result_tables(connection, hours):
            out.print(table)
        for part in allowance(connection, hours):
            out.print(part)
    differences = check(settings, answers, postgres_url=running.postgres_url)
    if differences is not None:
        out.print(differences)
        raise DemoFailed("the tables differ from the answers, see above")
    out.print(f"[green]all tables equal the answers[/green] ({time.monotonic() - began:.0f} s)")
    out.print(WHAT_NEXT)


def _unused_hours(settings: Settings, postgres_url: str) -> datetime:
    """Return the first of the newest two hours that ended and have no rows yet, for exact answers."""
    with connect(postgres_url) as connection:
        now = database_now(connection)
        rows = connection.execute("SELECT hour FROM ledger.hour WHERE rows > 0").fetchall()
    used = {hour for (hour,) in rows}
    first = hour_of(now - settings.lateness) - HOURS * HOUR
    while first >= max(settings.start, now - settings.horizon + timedelta(days=1)):
        if not used & {first + number * HOUR for number in range(HOURS)}:
            return first
        first -= HOUR
    raise DemoFailed("every hour within the horizon has rows already; point ANTENNA_HOME to a new folder")


def _run_requests_of_the_sensor(say: Say) -> None:
    """Tick the real sensor on the real instance, and execute its run requests in this process."""
    from antenna_assets.definitions import build_definitions
    from antenna_assets.defs.instance import open_instance
    from antenna_assets.defs.local_runs import publish

    say("ticking the sensor")
    with open_instance() as instance:
        for hours, run in publish(build_definitions(), instance):
            if not run.success:
                raise DemoFailed(f"run {run.run_id} of {hours} failed; its log above says why")
            say(f"published the six assets of {hours}")
