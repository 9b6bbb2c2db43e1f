"""What runs of Dagster logged goes after a month; what they say of assets stays. On an instance with a real run."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import hour_key
from antenna_assets.domain.schema import ASSETS
from antenna_assets.operations.sweep.retention import Amount
from antenna_assets.operations.sweep.run_logs import drop_run_events, remove_run_output
from antenna_assets_tests.certified import FIRST, World
from antenna_assets_tests.instances import instance_in_postgres
from antenna_assets_tests.local_runs import execute

pytestmark = pytest.mark.services

MONTH = timedelta(days=30)


@pytest.fixture
def ran(
    certified_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """An instance on PostgreSQL that has run one hour."""
    with certified_world.copy(tmp_path) as world:
        monkeypatch.setenv("ANTENNA_POSTGRES_URL", world.url)
        monkeypatch.setenv("ANTENNA_LAKE", str(world.lake))
        with instance_in_postgres(world.url, tmp_path / "dagster") as instance:
            assert execute(instance, dg.RunRequest(partition_key=hour_key(FIRST))).success
            yield instance


def events(connection: psycopg.Connection) -> tuple[int, int]:
    """How many events there are, and how many of them are on an asset."""
    return connection.execute("SELECT count(*), count(asset_key) FROM dagster.event_logs").fetchall()[0]


def test_events_of_runs_go_after_a_month_and_those_on_assets_stay(ran: dg.DagsterInstance) -> None:
    now = datetime.now(UTC)
    with connect(os.environ["ANTENNA_POSTGRES_URL"]) as connection:
        all_, on_assets = events(connection)
        assert all_ > on_assets > 0
        assert drop_run_events(connection, now=now + MONTH - timedelta(hours=1)) == Amount()
        later = now + MONTH + timedelta(hours=1)
        would_go = drop_run_events(connection, now=later, dry_run=True)
        assert would_go.count == all_ - on_assets
        assert would_go.bytes > 0
        assert events(connection) == (all_, on_assets)
        assert drop_run_events(connection, now=later) == would_go
        assert events(connection) == (on_assets, on_assets)
        assert drop_run_events(connection, now=later) == Amount()
    for asset in ASSETS:
        assert ran.get_materialized_partitions(dg.AssetKey(asset)) == {hour_key(FIRST)}
    (run,) = ran.get_runs()
    assert run.is_success


def test_the_output_of_runs_goes_after_a_month_and_nothing_else(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    old, new = (
        tmp_path / "storage" / name
        for name in ("11111111-2222-3333-4444-555555555555", "66666666-7777-8888-9999-aaaaaaaaaaaa")
    )
    other = tmp_path / "storage" / "what-is-no-run-s"
    for folder in (old, new, other):
        (folder / "compute_logs").mkdir(parents=True)
        (folder / "compute_logs" / "step.out").write_text("said")
    before = (now - MONTH - timedelta(minutes=1)).timestamp()
    for folder in (old, other):
        for path in (folder / "compute_logs" / "step.out", folder / "compute_logs", folder):
            os.utime(path, (before, before))
    assert remove_run_output(tmp_path, now=now, dry_run=True) == Amount(1, 4)
    assert old.exists()
    assert remove_run_output(tmp_path, now=now) == Amount(1, 4)
    assert not old.exists()
    assert new.exists()
    assert other.exists()


def test_without_an_instance_there_is_nothing_to_remove(
    connection: psycopg.Connection, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    assert drop_run_events(connection, now=now) == Amount()
    assert remove_run_output(tmp_path / "none", now=now) == Amount()
