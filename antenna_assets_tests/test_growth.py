"""Row 39: what the ledger and Dagster keep is bounded, in small transactions, and what is made of it stays as it was."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from psycopg import sql
from typer.testing import CliRunner

from antenna_assets.cli import app
from antenna_assets.cli.demo_services import serve_demo
from antenna_assets.clients.postgres import connect, dagster_url
from antenna_assets.defs.instance_storage import PooledPostgresStorage
from antenna_assets.domain.hours import HOUR, hour_key, hour_of
from antenna_assets.domain.lifetimes import GRACE_PERIOD, PAGES_RETENTION, RUN_LOG_RETENTION
from antenna_assets.domain.schema import ASSETS
from antenna_assets.ledger.errors import HourExpired
from antenna_assets.ledger.files import generation_files
from antenna_assets.ledger.generations import expired_before, read_generation, require_unexpired
from antenna_assets.ledger.lake_identity import require_own_lake
from antenna_assets.ledger.offsets import committed_offsets
from antenna_assets.operations.sweep.compaction import forget_removed_files, merge_batches
from antenna_assets.operations.sweep.retention import Amount, expire_files
from antenna_assets.operations.sweep.run import SweepError, sweep
from antenna_assets.operations.sweep.run_logs import drop_old_pages
from antenna_assets.publishing.lake import Lake
from antenna_assets.storage.project_files import docker_folder
from antenna_assets.verify.run import verify
from antenna_assets_tests.certified import FIRST, World
from antenna_assets_tests.local_runs import execute
from antenna_assets_tests.test_roles import login as login
from antenna_assets_tests.test_run_logs import ran as ran
from antenna_assets_tests.test_sweep import HORIZON, MINUTE, NOW, OLD, House, total

pytestmark = pytest.mark.services

LONG_AGO = hour_of(NOW) - timedelta(days=60)


@pytest.fixture
def house(connection: psycopg.Connection, postgres_url: str, tmp_path: Path) -> House:
    """Batches of two hours, 60 days ago, each with a file and a rejected message; their files are gone."""
    house = House(connection, postgres_url, tmp_path / "lake")
    for number in range(12):
        house.receive(OLD)
        read_at = LONG_AGO + HOUR * (number // 6) + MINUTE * number
        connection.execute(
            "UPDATE ledger.batch SET committed_at = %s, clock = %s WHERE batch = %s",
            [read_at, read_at, house.batch],
        )
    house.publish(OLD)
    require_own_lake(connection, str(house.root))
    return house


def batches(connection: psycopg.Connection) -> list[tuple]:
    return connection.execute(
        "SELECT batch, merged, rows, bytes, quarantined FROM ledger.batch ORDER BY batch"
    ).fetchall()


def told(connection: psycopg.Connection) -> dict[str, list[tuple]]:
    """What is made of batches, wherever it is shown."""
    return {
        name: connection.execute(query).fetchall()
        for name, query in {
            "sums": "SELECT sum(merged), sum(rows), sum(bytes), sum(quarantined), sum(late_rows) FROM ledger.batch",
            "quarantine": "SELECT * FROM quarantine_by_hour ORDER BY 1, 2",
            "trust": "SELECT hour, quarantined, late_rows FROM hour_trust ORDER BY 1",
            "rejected": "SELECT reason, sum(rows) FROM ledger.rejection GROUP BY 1",
            "read": "SELECT topic_id, partition, sum(until_offset - from_offset), min(from_offset), max(until_offset)"
            " FROM ledger.batch_offset GROUP BY 1, 2",
        }.items()
    }


def holes(connection: psycopg.Connection) -> list[tuple]:
    """Ranges that do not begin where the one before ends."""
    return connection.execute(
        "SELECT * FROM (SELECT from_offset, lag(until_offset) OVER (PARTITION BY topic_id, partition ORDER BY from_offset)"
        "  AS before FROM ledger.batch_offset) AS r WHERE before <> from_offset"
    ).fetchall()


def test_row_39_batches_past_the_horizon_become_one_an_hour_and_nothing_that_is_told_changes(
    house: House,
) -> None:
    connection = house.connection
    house.receive(hour_of(NOW) - HOUR)
    before, offsets = told(connection), committed_offsets(connection, "id-1", [0])
    # A file keeps its batch.
    assert merge_batches(connection, horizon=HORIZON, now=NOW) == Amount(0)
    house.sweep(NOW)
    assert len(batches(connection)) == 13
    house.sweep(NOW + GRACE_PERIOD)
    would_go = house.sweep(NOW + 2 * GRACE_PERIOD, dry_run=True)
    assert house.sweep(NOW + 2 * GRACE_PERIOD) == would_go
    assert would_go["names of removed files, merged to one sum an hour"].count == 24
    would_go = house.sweep(NOW + 2 * GRACE_PERIOD, dry_run=True)
    assert would_go["batches past the horizon, merged to one an hour"].count == 10
    assert house.sweep(NOW + 2 * GRACE_PERIOD) == would_go
    # An hour ends at its batch 6, the other at 12; the newest batch is what it was.
    assert batches(connection) == [(6, 6, 18, 180, 6), (12, 6, 18, 180, 6), (13, 1, 3, 30, 1)]
    assert told(connection) == before
    assert holes(connection) == []
    assert committed_offsets(connection, "id-1", [0]) == offsets
    assert connection.execute("SELECT count(*) FROM ledger.batch_offset").fetchone() == (3,)
    # And the stream goes on.
    house.receive(hour_of(NOW) - HOUR)
    assert holes(connection) == []
    assert total(house.sweep(NOW + 2 * GRACE_PERIOD)) == 0


def test_row_39_replays_and_losses_stay_and_ranges_that_do_not_touch_stay_apart(house: House) -> None:
    connection = house.connection
    connection.execute("DELETE FROM ledger.file")
    connection.execute("UPDATE ledger.batch SET kind = 'loss' WHERE batch = 3")
    connection.execute("UPDATE ledger.batch SET kind = 'replay' WHERE batch = 8")
    connection.execute("DELETE FROM ledger.batch_offset WHERE batch = 8")
    before = told(connection)
    assert merge_batches(connection, horizon=HORIZON, now=NOW) == Amount(8)
    assert [row[:2] for row in batches(connection)] == [(3, 1), (6, 5), (8, 1), (12, 5)]
    ranges = connection.execute(
        "SELECT batch, from_offset, until_offset FROM ledger.batch_offset ORDER BY from_offset"
    ).fetchall()
    assert ranges == [(6, 0, 20), (3, 20, 30), (6, 30, 60), (12, 60, 70), (12, 80, 120)]
    assert told(connection) == before


def test_row_39_the_hours_that_expired_are_known_when_the_names_of_their_files_are_gone(house: House) -> None:
    connection = house.connection
    house.sweep(NOW)
    house.sweep(NOW + GRACE_PERIOD)
    sealed = read_generation(connection, OLD, 1)
    before = expired_before(connection)
    house.sweep(NOW + 2 * GRACE_PERIOD)
    assert connection.execute("SELECT count(*) FROM ledger.expired_file").fetchone() == (0,)
    hour = connection.execute("SELECT hour, files, rows, bytes FROM ledger.expired_hour").fetchall()
    assert hour == [(OLD, 12, 36, 360)]
    assert expired_before(connection) == before == OLD + HOUR
    with pytest.raises(HourExpired):
        require_unexpired(connection, [OLD])
    with pytest.raises(HourExpired):
        generation_files(connection, sealed)
    with pytest.raises(HourExpired):
        house.receive(OLD)


def test_row_39_the_stream_waits_for_an_hour_of_files_at_most(house: House) -> None:
    """Each hour expires in a transaction of its own: between two of them a batch commits."""
    connection = house.connection
    for number in range(1, 4):
        house.receive(OLD + number * HOUR)
        house.publish(OLD + number * HOUR)
    transactions = connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchall()[0][0]
    assert expire_files(connection, horizon=HORIZON, now=NOW)["landed"].count == 15
    moved = connection.execute(
        "SELECT DISTINCT hour, xmin::text FROM ledger.expired_file WHERE kind = 'landed'"
    ).fetchall()
    assert len(moved) == len({xmin for _, xmin in moved}) == 4
    assert all(int(xmin) > transactions for _, xmin in moved)


def test_row_39_compaction_waits_for_no_stream_and_no_stream_waits_for_it(house: House) -> None:
    house.connection.execute("DELETE FROM ledger.file")
    with connect(house.url) as stream, stream.transaction():
        stream.execute("SELECT FROM ledger.head FOR UPDATE")
        house.connection.execute("SET lock_timeout = '5s'")
        assert merge_batches(house.connection, horizon=HORIZON, now=NOW) == Amount(10)
        assert forget_removed_files(house.connection, now=NOW) == Amount(0)


def test_row_39_certificates_hold_when_files_batches_and_names_are_gone(
    certified_world: World, tmp_path: Path
) -> None:
    with certified_world.copy(tmp_path) as world, connect(world.url) as connection:
        connection.execute(
            "UPDATE ledger.batch SET committed_at = committed_at - interval '90 days', clock = clock - interval '90 days'"
        )
        now = datetime.now(UTC)
        for later in (timedelta(0), GRACE_PERIOD, 2 * GRACE_PERIOD, 2 * GRACE_PERIOD):
            sweep(
                world.url, str(world.lake), dagster_home=tmp_path, horizon=HOUR, now=now + HOUR * 24 + later
            )
        assert connection.execute("SELECT count(*) FROM ledger.expired_hour").fetchall()[0][0] >= 2
        found = verify(connection, Lake(str(world.lake)), kept_since=now)
        assert (found.hours, found.differences, found.pending) == (3, [], {})
        assert holes(connection) == []


def test_row_39_what_was_quarantined_in_some_hours_is_looked_up_and_not_summed_from_the_beginning(
    connection: psycopg.Connection,
) -> None:
    connection.execute(
        "INSERT INTO ledger.batch (batch, kind, committed_at, clock, rows, bytes, quarantined, late_rows)"
        " SELECT n, 'stream', now() - n * interval '10 minutes', now(), 0, 0, 1, 0 FROM generate_series(1, 20000) AS n"
    )
    connection.execute(
        "INSERT INTO ledger.rejection SELECT n, 'not_json', 1 FROM generate_series(1, 20000) AS n"
    )
    connection.execute("ANALYZE ledger.batch, ledger.rejection")
    for view in ("quarantine_by_hour", "hour_trust"):
        plan = connection.execute(
            sql.SQL("EXPLAIN SELECT * FROM {} WHERE hour >= now() - interval '3 hours'").format(
                sql.Identifier(view)
            )
        ).fetchall()
        text = "\n".join(line for (line,) in plan)
        assert "Seq Scan on batch" not in text, text
        assert "Index" in text
    shown = connection.execute(
        "SELECT sum(messages) FROM quarantine_by_hour WHERE hour >= date_trunc('hour', now(), 'UTC') - interval '3 hours'"
    ).fetchall()[0][0]
    assert 17 <= shown <= 24


def pages(connection: psycopg.Connection) -> dict[str, int]:
    query = """SELECT dagster_event_type, count(*) FROM dagster.event_logs WHERE asset_key IS NOT NULL GROUP BY 1
        UNION ALL SELECT 'checks', count(*) FROM dagster.asset_check_executions
        UNION ALL SELECT 'runs', count(*) FROM dagster.runs UNION ALL SELECT 'tags', count(*) FROM dagster.run_tags
        UNION ALL SELECT 'tags of events', count(*) FROM dagster.asset_event_tags"""
    return dict(connection.execute(query).fetchall())


def test_row_39_dagsters_pages_keep_the_newest_of_each_hour_for_a_year_and_nothing_for_ever(
    ran: dg.DagsterInstance,
) -> None:
    with connect(os.environ["ANTENNA_POSTGRES_URL"]) as connection:
        assert execute(ran, dg.RunRequest(partition_key=hour_key(FIRST))).success
        before, now = pages(connection), datetime.now(UTC)
        assert (before["ASSET_MATERIALIZATION"], before["runs"]) == (12, 2)
        assert drop_old_pages(connection, now=now + RUN_LOG_RETENTION - HOUR) == Amount()
        month_later = now + RUN_LOG_RETENTION + HOUR
        would_go = drop_old_pages(connection, now=month_later, dry_run=True)
        assert pages(connection) == before
        assert drop_old_pages(connection, now=month_later) == would_go
        assert drop_old_pages(connection, now=month_later) == Amount()
        after = pages(connection)
        assert (after["ASSET_MATERIALIZATION"], after["runs"]) == (6, 2)
        assert "ASSET_MATERIALIZATION_PLANNED" not in after
        assert after["checks"] < before["checks"]
        assert after["tags of events"] == before["tags of events"] / 2
        for asset in ASSETS:
            key = dg.AssetKey(asset)
            assert ran.get_materialized_partitions(key) == {hour_key(FIRST)}
            newest = ran.get_latest_materialization_event(key)
            assert newest
            assert newest.run_id == ran.get_runs()[0].run_id
        drop_old_pages(connection, now=now + PAGES_RETENTION + HOUR)
        assert pages(connection) == {"checks": 0, "runs": 0, "tags": 0, "tags of events": 0}
        # And it goes on.
        assert execute(ran, dg.RunRequest(partition_key=hour_key(FIRST))).success
        assert ran.get_materialized_partitions(dg.AssetKey("raw_parquet")) == {hour_key(FIRST)}


@pytest.fixture
def tables_of_dagster(login: Callable[[str], AbstractContextManager[str]]) -> Iterator[str]:
    """The address of a publisher who has made Dagster's tables, after the migration."""
    with login("antenna_publisher") as publisher:
        storage = PooledPostgresStorage(dagster_url(publisher))
        storage.run_storage.get_runs()
        yield publisher
        for part in (storage.run_storage, storage.event_log_storage, storage.schedule_storage):
            part._engine.dispose()  # type: ignore[attr-defined]


def test_row_39_the_administrator_sweeps_what_dagster_made_after_the_migration(
    tables_of_dagster: str,
    connection: psycopg.Connection,
    login: Callable[[str], AbstractContextManager[str]],
    tmp_path: Path,
) -> None:
    assert tables_of_dagster
    connection.execute(
        "INSERT INTO dagster.event_logs (run_id, event, timestamp) VALUES ('r', '{}', now() - interval '31 days')"
    )
    with login("antenna_administrator") as url:
        amounts = sweep(url, str(tmp_path / "lake"), dagster_home=tmp_path, horizon=HORIZON)
        assert amounts["events of Dagster's runs older than 30 days, except those about assets"].count == 1
        # A table that somebody else made is named.
        connection.execute("REVOKE DELETE ON dagster.runs FROM antenna_administrator")
        connection.execute(
            "INSERT INTO dagster.runs (run_id, status, update_timestamp) VALUES ('r', 'SUCCESS', '2020-01-01')"
        )
        with pytest.raises(SweepError, match=r"permission denied for table runs: .*restart it"):
            sweep(url, str(tmp_path / "lake"), dagster_home=tmp_path, horizon=HORIZON)


def test_row_39_sweeps_are_scheduled_wherever_the_system_is_started_as_a_whole() -> None:
    assert '"antenna", "sweep", "--every", "1 day"' in (docker_folder() / "compose.yaml").read_text()
    assert "schedule:" in (docker_folder() / "google-cloud" / "kubernetes" / "sweep.yaml").read_text()
    assert "daily sweep" in (serve_demo.__doc__ or "")


def test_row_39_a_sweep_that_comes_again_tells_an_error_and_goes_on(
    house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ANTENNA_POSTGRES_URL", house.url)
    monkeypatch.setenv("ANTENNA_HOME", str(tmp_path))
    monkeypatch.setenv("ANTENNA_LAKE", str(tmp_path / "another"))
    waited: list[float] = []

    class Twice(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout or 0)
            monkeypatch.setenv("ANTENNA_LAKE", str(house.root))
            if len(waited) == 2:
                self.set()
            return self.is_set()

    monkeypatch.setattr(threading, "Event", Twice)
    run = CliRunner().invoke(app, ["sweep", "--every", "6 hours"])
    assert (run.exit_code, waited) == (0, [21600, 21600])
    assert run.output.count("sweep failed, next attempt in 6 hours") == 2
    for wrong in ("often", "0 seconds"):
        assert CliRunner().invoke(app, ["sweep", "--every", wrong]).exit_code == 2
