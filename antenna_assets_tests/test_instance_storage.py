"""Dagster's storage keeps its connections, and replaces those that PostgreSQL closed."""

from collections.abc import Iterator

import dagster as dg
import psycopg
import pytest
import yaml

from antenna_assets.clients.postgres import dagster_url
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
