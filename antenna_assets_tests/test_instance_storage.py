"""Dagster's storage keeps its connections, and replaces those that PostgreSQL closed."""

import warnings
from collections.abc import Callable, Iterator

import dagster as dg
import psycopg
import pytest
import yaml

from antenna_assets.clients.postgres import dagster_url
from antenna_assets.defs.event_log import EventLog
from antenna_assets.defs.instance_storage import PooledPostgresStorage
from antenna_assets.storage.project_files import docker_folder

pytestmark = pytest.mark.services


@pytest.fixture
def storage(postgres_url: str) -> Iterator[PooledPostgresStorage]:
    opened = PooledPostgresStorage(dagster_url(postgres_url))
    opened.run_storage.get_runs()
    opened.event_log_storage.all_asset_keys()
    yield opened
    for part in (opened.run_storage, opened.event_log_storage, opened.schedule_storage):
        part._engine.dispose()  # type: ignore[attr-defined]


@pytest.fixture
def log(storage: PooledPostgresStorage) -> EventLog:
    found = storage.event_log_storage
    assert isinstance(found, EventLog)
    return found


HOURS = dg.HourlyPartitionsDefinition("2026-11-22-00:00", timezone="UTC")
CHECKS = {"of_a": "a", "on_a": "a", "of_b": "b"}
"""Name and asset."""


def checked_assets() -> dg.AssetsDefinition:
    """Two assets whose checks are evaluated for each hour, and a check that no run has planned."""
    with warnings.catch_warnings(action="ignore", category=dg.PreviewWarning):
        specs = [dg.AssetCheckSpec(name, asset=asset, partitions_def=HOURS) for name, asset in CHECKS.items()]

    @dg.multi_asset(
        specs=[dg.AssetSpec(name, partitions_def=HOURS) for name in ("a", "b")], check_specs=specs
    )
    def both(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        log_event: Callable[[object], None] = context.op_execution_context.log_event
        for name, asset in CHECKS.items():
            for hour in context.partition_keys:
                passed = not hour.endswith("02:00")
                log_event(dg.AssetCheckEvaluation(dg.AssetKey(asset), name, passed=passed, partition=hour))
        log_event(dg.AssetCheckEvaluation(dg.AssetKey("b"), "new", passed=True))
        yield dg.MaterializeResult("a", metadata={"rows": 7}, tags={"a_tag": "a_value"})
        yield dg.MaterializeResult("b")
        for name, asset in CHECKS.items():
            yield dg.AssetCheckResult(passed=True, asset_key=asset, check_name=name)

    return both


def events_of_a_run() -> list[dg.EventLogEntry]:
    """What is stored of a run of three hours."""
    tags = {
        "dagster/asset_partition_range_start": "2026-11-22-01:00",
        "dagster/asset_partition_range_end": "2026-11-22-03:00",
    }
    definitions = dg.Definitions([checked_assets()], jobs=[dg.define_asset_job("job")])
    job = definitions.resolve_job_def("job")
    with dg.DagsterInstance.ephemeral() as instance:
        run = job.execute_in_process(instance=instance, tags=tags)
        return instance.all_logs(run.run_id)


STORED = (
    "SELECT run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition FROM dagster.event_logs",
    "SELECT asset_key, last_materialization, last_run_id, asset_details, wipe_timestamp,"
    " last_materialization_timestamp, tags, cached_status_data FROM dagster.asset_keys",
    "SELECT asset_key, key, value, event_timestamp FROM dagster.asset_event_tags",
    "SELECT asset_key, check_name, partition, run_id, execution_status, evaluation_event,"
    " evaluation_event_timestamp, materialization_event_storage_id FROM dagster.asset_check_executions",
    "SELECT event.event = check_.evaluation_event FROM dagster.asset_check_executions AS check_"
    " JOIN dagster.event_logs AS event ON event.id = evaluation_event_storage_id",
)
"""What Dagster's tables have, but for the numbers of rows and when each was written."""


def stored(connection: psycopg.Connection) -> list[list[tuple]]:
    return [sorted(connection.execute(query).fetchall(), key=repr) for query in STORED]


def test_events_that_are_stored_together_leave_the_rows_that_they_leave_one_by_one(
    log: EventLog, connection: psycopg.Connection
) -> None:
    events = events_of_a_run()
    planned = [event for event in events if (event.dagster_event_type or "").endswith("PLANNED")]
    others = [event for event in events if event not in planned]
    for event in planned:
        log.store_event(event)
    planned_one_by_one = stored(connection)
    for event in others:
        log.store_event(event)
    one_by_one = stored(connection)
    connection.execute(
        "TRUNCATE dagster.event_logs, dagster.asset_keys, dagster.asset_event_tags, dagster.asset_check_executions"
        " RESTART IDENTITY"
    )
    log.store_event_batch(planned)
    assert stored(connection) == planned_one_by_one
    with log.together():
        for event in others:
            log.store_event(event)
    together = stored(connection)
    evaluated, equal = together[-2:]
    # Three checks of three hours and of all together, and the new one.
    assert len(evaluated) == 13
    assert equal == [(True,)] * 13
    assert together == one_by_one


def test_the_results_of_a_step_are_stored_at_the_end_of_the_block_or_before_anything_else(
    log: EventLog, connection: psycopg.Connection
) -> None:
    events = events_of_a_run()
    outputs = [event for event in events if event.dagster_event_type == dg.DagsterEventType.STEP_OUTPUT]
    (ended,) = (event for event in events if event.dagster_event_type == dg.DagsterEventType.STEP_SUCCESS)

    def found() -> list[str]:
        rows = connection.execute("SELECT dagster_event_type FROM dagster.event_logs ORDER BY id").fetchall()
        return [kind for (kind,) in rows]

    with log.together():
        log.store_event(outputs[0])
        log.store_event_batch(outputs[1:3])
        assert found() == []
        log.store_event(ended)
        assert found() == ["STEP_OUTPUT"] * 3 + ["STEP_SUCCESS"]
        log.store_event(outputs[3])
        assert len(found()) == 4
    assert found()[4:] == ["STEP_OUTPUT"]
    log.store_event(outputs[4])
    assert len(found()) == 6


def sessions(connection: psycopg.Connection) -> set[int]:
    """Of this database, but for our own."""
    rows = connection.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    ).fetchall()
    return {pid for (pid,) in rows}


def test_the_same_connections_serve_one_call_after_the_other(
    storage: PooledPostgresStorage, connection: psycopg.Connection
) -> None:
    before = sessions(connection)
    assert before
    for _ in range(5):
        assert storage.run_storage.get_runs() == []
        assert storage.event_log_storage.all_asset_keys() == []
    kept = sessions(connection)
    assert kept
    # Not equal: PostgreSQL may still have been ending those that Dagster opened first.
    assert kept <= before


def test_a_connection_that_postgresql_closed_is_replaced(
    storage: PooledPostgresStorage, connection: psycopg.Connection
) -> None:
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert storage.run_storage.get_runs() == []
    assert storage.event_log_storage.all_asset_keys() == []


def test_the_instance_of_dagster_yaml_has_it(
    postgres_url: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", dagster_url(postgres_url))
    settings = yaml.safe_load((docker_folder() / "dagster.yaml").read_text(encoding="utf-8"))
    overrides = {name: settings[name] for name in ("storage", "run_launcher")}
    with dg.instance_for_test(temp_dir=str(tmp_path), overrides=overrides) as instance:
        named = instance.get_ref().storage_data
        assert named is not None
        assert named.class_name == PooledPostgresStorage.__name__
        instance.report_runless_asset_event(dg.AssetMaterialization("raw_parquet"))
        assert instance.get_latest_materialization_event(dg.AssetKey("raw_parquet")) is not None
