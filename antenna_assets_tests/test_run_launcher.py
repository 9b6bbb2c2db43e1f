"""When run monitoring is told that a run's worker is dead: real runs on an instance, real locks in PostgreSQL."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import dagster as dg
import psycopg
import pytest
from dagster._core.launcher import WorkerStatus
from dagster._core.test_utils import create_run_for_test

from antenna_assets.defs import run_launcher
from antenna_assets.defs.resources import PostgresResource
from antenna_assets.defs.run_launcher import WatchedRunLauncher
from antenna_assets.defs.run_lock import hold, is_locked

pytestmark = pytest.mark.services

ONE = dg.AssetKey("raw_parquet")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened


@pytest.fixture
def launcher(
    instance: dg.DagsterInstance, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> WatchedRunLauncher:
    monkeypatch.setenv("ANTENNA_POSTGRES_URL", postgres_url)
    found = WatchedRunLauncher()
    found.register_instance(instance)
    return found


def started(instance: dg.DagsterInstance, job: str = "hourly_usage", *assets: dg.AssetKey) -> dg.DagsterRun:
    run = create_run_for_test(instance, job_name=job, asset_selection=frozenset(assets) or None)
    instance.report_dagster_event(
        dg.DagsterEvent(event_type_value=dg.DagsterEventType.RUN_START.value, job_name=job), run_id=run.run_id
    )
    return run


def wait_until_free(connection: psycopg.Connection, run_id: str) -> None:
    """PostgreSQL sees within milliseconds that a session ended, but not in none."""
    for _ in range(200):
        if not is_locked(connection, run_id):
            return
        time.sleep(0.05)
    raise AssertionError("the lock is still held after 10 s")


@pytest.mark.parametrize(("job", "assets"), [("hourly_usage", ()), ("__ASSET_JOB", (ONE,))])
def test_a_run_whose_lock_nobody_holds_is_dead_at_the_second_look(
    instance: dg.DagsterInstance,
    launcher: WatchedRunLauncher,
    postgres_url: str,
    connection: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    job: str,
    assets: tuple[dg.AssetKey, ...],
) -> None:
    run = started(instance, job, *assets)
    assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
    monkeypatch.setattr(run_launcher, "DEAD_AFTER", 0)
    with hold(postgres_url, run.run_id):
        assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
    wait_until_free(connection, run.run_id)
    found = launcher.check_run_worker_health(run)
    assert found.status == WorkerStatus.FAILED
    assert found.msg == (
        "expected the run's worker to hold the run's lock in PostgreSQL, and nobody holds it: the worker died"
    )


@pytest.mark.parametrize(
    ("job", "assets"),
    [
        ("another_job", ()),
        ("__ASSET_JOB", (dg.AssetKey("another"),)),
        ("__ASSET_JOB", (ONE, dg.AssetKey("another"))),
    ],
)
def test_of_a_run_that_takes_no_lock_nothing_is_known(
    instance: dg.DagsterInstance,
    launcher: WatchedRunLauncher,
    monkeypatch: pytest.MonkeyPatch,
    job: str,
    assets: tuple[dg.AssetKey, ...],
) -> None:
    monkeypatch.setattr(run_launcher, "DEAD_AFTER", 0)
    run = started(instance, job, *assets)
    assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING


def test_the_lock_of_a_killed_process_is_free(postgres_url: str, connection: psycopg.Connection) -> None:
    program = (
        "import sys; from antenna_assets.defs.run_lock import hold\n"
        "with hold(sys.argv[1], 'one'): print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, postgres_url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    assert is_locked(connection, "one")
    assert not is_locked(connection, "two")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_until_free(connection, "one")


def test_two_processes_of_a_run_hold_its_lock_until_the_last_ends(
    postgres_url: str, connection: psycopg.Connection
) -> None:
    with hold(postgres_url, "one"):
        with hold(postgres_url, "one"):
            assert is_locked(connection, "one")
        assert is_locked(connection, "one")
    wait_until_free(connection, "one")


def test_a_session_that_postgresql_ended_does_not_fail_the_run(
    postgres_url: str, connection: psycopg.Connection
) -> None:
    with hold(postgres_url, "one"):
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'antenna run one'"
        )
        assert not is_locked(connection, "one")


def test_an_asset_that_is_given_postgresql_holds_its_runs_lock(
    postgres_url: str, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTENNA_POSTGRES_URL", postgres_url)
    seen = []

    @dg.asset
    def one(context: dg.AssetExecutionContext, postgres: PostgresResource) -> None:
        seen.append((context.run.run_id, is_locked(connection, context.run.run_id)))
        with postgres.connection():
            pass

    assert dg.materialize([one], resources={"postgres": PostgresResource()}).success
    ((run_id, was_held),) = seen
    assert was_held
    wait_until_free(connection, run_id)
