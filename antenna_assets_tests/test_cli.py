"""The `antenna` command as a user types it: help, and one clear error with a non-zero exit for what is wrong."""

import os
import re
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import psycopg
import pytest
from rich.table import Table
from rich.text import Text
from typer.testing import CliRunner

from antenna_assets.cli import app
from antenna_assets.clients import kafka_broker
from antenna_assets.ledger.commit import Observation, commit_heartbeat
from antenna_assets.operations.status import tables
from antenna_assets.settings import Settings
from antenna_assets.streaming.waiting import Waiting
from antenna_assets_tests.commands import antenna, refused

COMMANDS = (
    *("up", "down", "env", "simulate", "stream", "status", "check"),
    *("quarantine", "certificate", "verify", "doctor", "sweep", "backfill", "demo", "reopen", "alerts"),
)
SIMULATE = ("simulate", "--events", "10", "--start", "2026-11-20T10:00:00Z", "--hours", "1")


def process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`antenna` as a shell starts it."""
    return subprocess.run(
        [sys.executable, "-m", "antenna_assets.cli", *arguments],
        env={**os.environ, "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_names_every_command_with_what_it_does() -> None:
    run = process("--help")
    assert run.returncode == 0
    for command in COMMANDS:
        assert f" {command} " in run.stdout


def test_the_help_loads_neither_the_settings_nor_a_client() -> None:
    program = (
        "import sys; from antenna_assets.cli import app; app(['--help'], standalone_mode=False);"
        "print(*{'pydantic', 'psycopg', 'confluent_kafka', 'pyarrow', 'duckdb', 'dagster'} & {*sys.modules}, file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stderr.strip() == ""


def test_the_help_groups_the_commands_in_the_order_of_use() -> None:
    shown = antenna("--help").stdout
    panels = ["Services", "Traffic and stream", "Results", "Quotas", "Proofs", "Maintenance", "Repairs"]
    assert re.findall(r"╭─ ([A-Z][a-z ]+) ─", shown) == ["Options", *panels]
    first = [shown.index(f" {command} ") for command in ("up", "demo", "status", "certificate", "backfill")]
    assert first == sorted(first)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_of_its_own(command: str) -> None:
    run = CliRunner().invoke(app, [command, "--help"])
    assert run.exit_code == 0
    assert f"{command} [OPTIONS]" in run.stdout


@pytest.mark.parametrize("command", [("env",), ("stream",), ("status",), ("sweep",), SIMULATE])
def test_without_services_a_command_names_antenna_up(tmp_path: Path, command: tuple[str, ...]) -> None:
    assert "run `antenna up`" in refused(*command, ANTENNA_HOME=str(tmp_path))


def test_down_of_nothing_is_harmless(tmp_path: Path) -> None:
    assert antenna("down", ANTENNA_HOME=str(tmp_path / "nothing")).returncode == 0
    assert not (tmp_path / "nothing").exists()


def test_a_wrong_setting_is_named_by_a_process_that_ends_with_1(tmp_path: Path) -> None:
    run = process("status", ANTENNA_HOME=str(tmp_path), ANTENNA_HORIZON="a month")
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr.startswith(
        "error: ANTENNA_HORIZON: expected a duration such as '5 minutes' or '35 days'"
    )
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--start", "2026-11-20"), "expected a full hour with a zone such as 2026-11-20T10:00:00Z"),
        (("--start", "2026-11-20T10:30:00Z"), "expected a full hour with a zone"),
        (("--hours", "0"), "Input should be greater than or equal to 1"),
        (("--late", "1.5"), "Input should be less than or equal to 1"),
        (("--append",), "--append needs --answers"),
    ],
)
def test_wrong_arguments_of_simulate_are_named(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    run = CliRunner().invoke(app, [*SIMULATE, *arguments])
    assert run.exit_code == 2
    assert said in run.output


def test_hours_in_the_future_are_not_simulated(tmp_path: Path, closed_port: int) -> None:
    start = ("--start", "2999-01-01T00:00:00Z")
    said = refused(
        *SIMULATE, *start, ANTENNA_HOME=str(tmp_path), ANTENNA_KAFKA_BOOTSTRAP=f"127.0.0.1:{closed_port}"
    )
    assert "events in the future are rejected" in said


def test_answers_that_are_not_there_are_named(tmp_path: Path) -> None:
    missing = tmp_path / "answers.json"
    said = refused("check", "--answers", str(missing), ANTENNA_POSTGRES_URL="postgresql://u@127.0.0.1:1/x")
    assert f"{missing}: no such file" in said


def test_a_postgres_that_does_not_answer_is_named_without_its_password(
    tmp_path: Path, closed_port: int
) -> None:
    url = f"postgresql://someone:secret@127.0.0.1:{closed_port}/antenna"
    environment = {"ANTENNA_HOME": str(tmp_path), "ANTENNA_KAFKA_BOOTSTRAP": f"127.0.0.1:{closed_port}"}
    said = refused("stream", "--available-now", ANTENNA_POSTGRES_URL=url, **environment)
    assert "cannot be used" in said
    assert "antenna up" in said
    assert "secret" not in said


@pytest.mark.services
def test_a_kafka_that_does_not_answer_is_named_before_spark_starts(
    settings: Settings, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_broker, "TIMEOUT_SECONDS", 1)
    environment = {**settings.exports(), "ANTENNA_KAFKA_BOOTSTRAP": f"127.0.0.1:{closed_port}"}
    said = refused("stream", "--available-now", **environment)
    assert "Kafka at 127.0.0.1:" in said
    assert "ANTENNA_KAFKA_BOOTSTRAP" in said
    assert "starting Spark" not in said


@pytest.mark.services
def test_a_topic_that_does_not_exist_is_named(settings: Settings) -> None:
    environment = {**settings.exports(), "ANTENNA_TOPIC": "nowhere"}
    assert "topic nowhere does not exist" in refused("stream", "--available-now", **environment)
    assert "topic nowhere does not exist" in refused(*SIMULATE, **environment)


@pytest.mark.services
def test_the_exports_of_env_can_be_evaluated_by_a_shell(settings: Settings) -> None:
    run = antenna("env", **settings.exports())
    assert run.returncode == 0
    assert all(line.startswith("export ") and line.endswith("'") for line in run.stdout.splitlines())
    shell = subprocess.run(
        ["bash", "-c", 'eval "$1"; printf %s "$DAGSTER_POSTGRES_URL"', "bash", run.stdout],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shell.stdout == f"{settings.postgres_url}?options=-c%20search_path%3Ddagster"


@pytest.mark.services
def test_the_status_without_kafka_shows_what_the_ledger_knows_and_why_the_lag_is_unknown(
    settings: Settings,
    connection: psycopg.Connection,
    closed_port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kafka_broker, "TIMEOUT_SECONDS", 1)
    connection.execute(
        "INSERT INTO ledger.head (topic, topic_id, batch) VALUES (%s, 'id', 1)", [settings.topic]
    )
    connection.execute(
        "INSERT INTO ledger.batch (batch, kind, clock, rows, bytes, quarantined, late_rows)"
        " VALUES (1, 'stream', now(), 1234567, 0, 0, 0)"
    )
    connection.execute(
        "INSERT INTO ledger.batch_offset (topic, topic_id, partition, from_offset, until_offset, batch)"
        " VALUES (%s, 'id', 3, 0, 1234567, 1)",
        [settings.topic],
    )
    run = antenna("status", **{**settings.exports(), "ANTENNA_KAFKA_BOOTSTRAP": f"127.0.0.1:{closed_port}"})
    assert run.returncode == 0, run.stderr
    assert "the lag is unknown: Kafka at 127.0.0.1:" in run.stdout
    assert re.search(r"3\W+1,234,567\W+unknown\W+unknown", run.stdout)
    assert re.search(r"rows landed\W+1,234,567", run.stdout)
    assert "0 open and 0 closed hours" in run.stdout


@pytest.mark.services
def test_the_status_shows_whether_the_stream_runs_and_what_it_waits_for(
    settings: Settings, connection: psycopg.Connection
) -> None:
    connection.execute("INSERT INTO ledger.head (topic, topic_id) VALUES (%s, 'id')", [settings.topic])
    stop, said = threading.Event(), []
    waiting = Waiting(settings.postgres_url or "", settings.topic, said.append)

    def wait() -> None:
        waiting.wait("the lake", OSError(), "the lake /lake cannot be written: [full]", stop, 60)

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        noted = "SELECT EXISTS (SELECT FROM ledger.head WHERE waiting_for IS NOT NULL)"
        while connection.execute(noted).fetchone() != (True,):
            time.sleep(0.05)
        shown = status_of_the_stream(connection)
        assert shown["runs"] == "yes"
        assert shown["waits for"] == "the lake /lake cannot be written: [full]"
        assert shown["since"].endswith(" UTC")
    finally:
        stop.set()
        thread.join(20)
    shown = status_of_the_stream(connection)
    assert shown["runs"] == "no"
    assert shown["waited for"] == "the lake /lake cannot be written: [full]"
    # The same again is no news; something else is.
    waiting.wait("the lake", OSError(), "the lake /lake is full", stop, 0)
    waiting.wait("Kafka", OSError(), "no broker", stop, 0)
    assert said == ["waiting: the lake /lake cannot be written: [full]", "waiting: Kafka: no broker"]
    assert connection.execute("SELECT waiting_for FROM ledger.head").fetchone() == ("Kafka: no broker",)
    commit_heartbeat(
        connection, settings.topic, 0, Observation(datetime.now(UTC)), lateness=settings.lateness
    )
    assert status_of_the_stream(connection).keys().isdisjoint({"waits for", "waited for"})


def status_of_the_stream(connection: psycopg.Connection) -> dict[str, str]:
    _, table, *_ = tables(connection, "devices", None, "not asked")
    names, values = (list(column.cells) for column in cast("Table", table).columns)
    return {str(name): Text.from_markup(str(value)).plain for name, value in zip(names, values, strict=True)}


@pytest.mark.services
def test_the_status_of_an_empty_system_shows_its_topic_and_no_hour(settings: Settings) -> None:
    run = antenna("status", **settings.exports())
    assert run.returncode == 0
    assert f"Topic {settings.topic}" in run.stdout
    assert "0 open and 0 closed hours" in run.stdout
