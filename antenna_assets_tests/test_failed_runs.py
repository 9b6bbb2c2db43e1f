"""Whoever launches retries misses no failure of a run, whatever happens between the statements that store one."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from dagster._core.storage.dagster_run import DagsterRunStatus
from dagster._core.storage.tags import WILL_RETRY_TAG
from dagster._core.test_utils import create_run_for_test

from antenna_assets.clients.advisory_locks import FAILED_RUNS
from antenna_assets.clients.postgres import connect, dagster_url
from antenna_assets.defs.event_log import EventLog
from antenna_assets.storage.project_files import docker_folder
from antenna_assets_tests.test_exposure import opened_instance

pytestmark = pytest.mark.services

STARTED, FAILED = dg.DagsterEventType.RUN_START, dg.DagsterEventType.RUN_FAILURE


@pytest.fixture
def instance(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """An instance as users have it."""
    shutil.copyfile(docker_folder() / "dagster.yaml", tmp_path / "dagster.yaml")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", dagster_url(postgres_url))
    with opened_instance() as opened:
        yield opened


def event(run_id: str, kind: dg.DagsterEventType) -> dg.EventLogEntry:
    return dg.EventLogEntry(
        error_info=None,
        level=10,
        user_message="",
        run_id=run_id,
        timestamp=0.0,
        dagster_event=dg.DagsterEvent(event_type_value=kind.value, job_name="job"),
    )


def run(on: dg.DagsterInstance, **tags: str) -> str:
    run_id: str = create_run_for_test(on, job_name="job", status=DagsterRunStatus.STARTED, tags=tags).run_id
    return run_id


def failures(on: dg.DagsterInstance, after: int = -1) -> list[str]:
    """Runs whose failures the daemon that launches retries is given."""
    read = on.event_log_storage.get_logs_for_all_runs_by_log_id
    return [
        found.run_id for found in read(after_cursor=after, dagster_event_type={FAILED}, limit=500).values()
    ]


def test_a_failure_is_given_once_its_run_has_that_status_and_so_are_those_after_it(
    instance: dg.DagsterInstance,
) -> None:
    first, second = run(instance), run(instance)
    # What a process has done that stops between a failure's first statement and its second.
    instance.event_log_storage.store_event(event(first, FAILED))
    instance.handle_new_event(event(second, FAILED))
    assert failures(instance) == []
    instance.run_storage.handle_run_event(first, event(first, FAILED).get_dagster_event())
    assert failures(instance) == [first, second]


def test_a_failure_whose_run_was_deleted_holds_up_no_other(instance: dg.DagsterInstance) -> None:
    deleted, other = run(instance), run(instance)
    instance.event_log_storage.store_event(event(deleted, FAILED))
    instance.run_storage.delete_run(deleted)
    instance.handle_new_event(event(other, FAILED))
    assert failures(instance) == [deleted, other]


def test_events_of_other_kinds_wait_for_no_failure(instance: dg.DagsterInstance) -> None:
    going_on = run(instance)
    for kind in (STARTED, FAILED, STARTED):
        instance.event_log_storage.store_event(event(going_on, kind))
    read = instance.event_log_storage.get_logs_for_all_runs_by_log_id
    assert [found.dagster_event_type for found in read(dagster_event_type=STARTED).values()] == [STARTED] * 2


@pytest.mark.parametrize(("most", "expected"), [("3", "true"), ("0", "false")])
def test_whether_a_run_is_retried_is_stored_before_its_failure(
    instance: dg.DagsterInstance, most: str, expected: str
) -> None:
    failed = run(instance, **{"dagster/max_retries": most})
    instance.event_log_storage.store_event(event(failed, FAILED))
    found = instance.get_run_by_id(failed)
    assert found is not None
    assert (found.status, found.tags.get(WILL_RETRY_TAG)) == (DagsterRunStatus.STARTED, expected)


def test_failures_come_to_light_one_after_the_other(
    instance: dg.DagsterInstance, postgres_url: str, connection: psycopg.Connection
) -> None:
    log = instance.event_log_storage
    assert isinstance(log, EventLog)
    failed = run(instance)
    storing = threading.Thread(target=log.store_event, args=[event(failed, FAILED)])
    with connect(postgres_url) as another, another.transaction():
        another.execute("SELECT pg_advisory_xact_lock(%s)", [FAILED_RUNS])
        storing.start()
        while (
            connection.execute("SELECT FROM pg_locks WHERE NOT granted AND locktype = 'advisory'").rowcount
            < 1
        ):
            assert storing.is_alive()
        assert connection.execute("SELECT FROM dagster.event_logs").rowcount == 0
    storing.join(30)
    assert connection.execute("SELECT FROM dagster.event_logs").rowcount == 1
