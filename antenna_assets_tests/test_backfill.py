"""`antenna backfill`: what it says would change does change, nothing else does, and Dagster's daemon carries it out."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import HOUR, hour_key
from antenna_assets.domain.schema import ASSETS, HOURLY_TABLES, LANDED_SCHEMA
from antenna_assets.engines.duckdb import DuckDBEngine
from antenna_assets.operations import backfill as backfill_
from antenna_assets.operations.backfill import HourChanges, RowChange, TableChanges, changes, current_users
from antenna_assets.publishing.lake import Lake
from antenna_assets.settings import Settings
from antenna_assets_tests.certified import FIRST, HOURS, KNOWN, World, publish
from antenna_assets_tests.commands import Done, antenna
from antenna_assets_tests.corruptions import change
from antenna_assets_tests.faults.dagster_daemon import dagster, wait_for
from antenna_assets_tests.faults.plain_stream import read_everything
from antenna_assets_tests.faults.runs import send
from antenna_assets_tests.serving_rows import quota_since_ever

pytestmark = pytest.mark.services


@pytest.fixture
def connection(world: World) -> Iterator[psycopg.Connection]:
    with connect(world.url) as opened:
        yield opened


def found(world: World, connection: psycopg.Connection, hour: datetime = FIRST) -> HourChanges:
    lake, engine = Lake(str(world.lake)), DuckDBEngine()
    try:
        with current_users(connection, lake, [hour]) as users:
            return changes(connection, lake, engine, users, hour)
    finally:
        engine.close()


def content(connection: psycopg.Connection) -> dict[tuple[str, str], tuple]:
    """The rows of the first hour, by table and key."""
    return {
        (name, key): tuple(values)
        for name in HOURLY_TABLES
        for _, key, *values in connection.execute(
            psycopg.sql.SQL("SELECT * FROM {} WHERE date = %s").format(psycopg.sql.Identifier(name)), [FIRST]
        ).fetchall()
    }


def land_late(world: World, connection: psycopg.Connection, bytes_: int) -> None:
    """One more event of a known user in the first hour, in a batch of its own."""
    row = {
        "timestamp": FIRST + timedelta(seconds=1),
        "app": "SKYPE",
        "id": KNOWN[3],
        "antenna_id": "north",
        "bytes": bytes_,
        "kafka_partition": 0,
        "kafka_offset": 999,
    }
    path = world.lake / "landing" / "late.parquet"
    pq.write_table(pa.Table.from_pylist([row], LANDED_SCHEMA), path)
    connection.execute("SET session_replication_role = replica")
    change(
        connection,
        "INSERT INTO ledger.file (path, kind, hour, rows, bytes, size, batch)"
        " VALUES ('landing/late.parquet', 'landed', %s, 1, %s, 1, 99)",
        FIRST,
        bytes_,
    )
    change(
        connection,
        "UPDATE ledger.hour SET rows = rows + 1, bytes = bytes + %s WHERE hour = %s",
        bytes_,
        FIRST,
    )
    connection.execute("SET session_replication_role = origin")


def test_an_hour_that_is_published_as_it_is_would_not_change(
    world: World, connection: psycopg.Connection
) -> None:
    for hour in HOURS:
        assert found(world, connection, hour) == HourChanges(hour, 1, 1)


def test_a_late_event_would_change_the_rows_of_its_keys_and_the_over_quota_status_of_its_user(
    world: World, connection: psycopg.Connection
) -> None:
    # Quota 5,000 for the fourth user; nobody else is touched.
    land_late(world, connection, 10_000_000)
    ((antenna,),) = connection.execute(
        "SELECT sum_antenna_bytes FROM bytes_agg_antenna_1h WHERE date = %s AND antenna_id = 'north'", [FIRST]
    ).fetchall()
    changed = found(world, connection)
    assert (changed.published, changed.next_generation) == (1, 2)
    keys = {name: [row.key for row in of_table.shown] for name, of_table in changed.tables.items()}
    assert keys == {
        "bytes_agg_antenna_1h": ["north"],
        "bytes_agg_user_1h": [KNOWN[3]],
        "bytes_agg_app_1h": ["SKYPE"],
        "users_over_quota_1h": [KNOWN[3]],
    }
    assert changed.tables["bytes_agg_antenna_1h"] == TableChanges(
        1, [RowChange("north", (antenna,), (antenna + 10_000_000,))]
    )


def test_new_quotas_would_change_only_who_is_over_them(world: World, connection: psycopg.Connection) -> None:
    quota_since_ever(connection, 0)
    changed = found(world, connection)
    assert [*changed.tables] == ["users_over_quota_1h"]
    over = changed.tables["users_over_quota_1h"].shown
    assert {row.key for row in over if row.after is not None} >= set(KNOWN[:3])
    quota_since_ever(connection, 1_000_000_000)
    over = found(world, connection).tables["users_over_quota_1h"].shown
    assert [row.after for row in over] == [None] * len(over)


def test_of_many_rows_that_would_change_the_first_are_shown_and_all_are_counted(
    world: World, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    quota_since_ever(connection, 0)
    every = found(world, connection).tables["users_over_quota_1h"]
    monkeypatch.setattr(backfill_, "SHOWN", 2)
    some = found(world, connection).tables["users_over_quota_1h"]
    assert some == TableChanges(every.count, every.shown[:2])
    assert every.count > 2


def test_what_would_change_is_what_publishing_changes(world: World, connection: psycopg.Connection) -> None:
    land_late(world, connection, 77_777)
    connection.execute("UPDATE user_quota_change SET quota = quota / 3")
    before, expected = content(connection), found(world, connection)
    assert content(connection) == before
    publish(world, [FIRST])
    after = content(connection)
    assert {
        (name, row.key): (row.before, row.after)
        for name, changed in expected.tables.items()
        for row in changed.shown
    } == {
        key: (before.get(key), after.get(key))
        for key in before.keys() | after.keys()
        if before.get(key) != after.get(key)
    }
    assert len(expected.tables) == 4


def test_an_hour_past_its_retention_is_left_as_it_is(world: World, connection: psycopg.Connection) -> None:
    connection.execute(
        "INSERT INTO ledger.expired_file SELECT path, kind, hour, rows, bytes, size, batch, now() FROM ledger.file"
        " WHERE hour = %s LIMIT 1",
        [FIRST],
    )
    refused = found(world, connection)
    assert "past the horizon" in (refused.refused or "")
    assert refused.tables == {}


def backfill(world: World, *arguments: str) -> Done:
    return antenna(
        "backfill",
        *arguments,
        ANTENNA_POSTGRES_URL=world.url,
        ANTENNA_LAKE=str(world.lake),
        ANTENNA_HOME=str(world.lake.parent / "home"),
        ANTENNA_KAFKA_BOOTSTRAP="127.0.0.1:9",
    )


def test_the_dry_run_shows_rows_and_users_without_their_e_mail(
    world: World, connection: psycopg.Connection
) -> None:
    quota_since_ever(connection, 1, KNOWN[0])
    run = backfill(world, "--from", hour_key(HOURS[0]), "--to", hour_key(HOURS[2]), "--dry-run")
    assert run.returncode == 0, run.stderr
    assert f"{hour_key(HOURS[2])}: nothing would change" in run.stdout
    assert f"{hour_key(FIRST)}: users over quota" in run.stdout
    assert KNOWN[0] in run.stdout
    assert "nothing was changed" in run.stdout
    assert "@" not in run.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from", hour_key(FIRST + 3 * HOUR)), "is still open"),
        (("--from", hour_key(FIRST), "--to", hour_key(FIRST + 3 * HOUR)), "is still open"),
        (("--from", hour_key(FIRST + 999 * HOUR)), "is not known to the ledger"),
        (("--from", hour_key(FIRST)[:-2] + "30"), "expected an hour in UTC"),
        (("--from", hour_key(FIRST + HOUR), "--to", hour_key(FIRST)), "swap the two"),
    ],
)
@pytest.mark.parametrize("dry_run", [True, False])
def test_hours_that_cannot_be_published_are_refused_before_anything_happens(
    world: World, arguments: tuple[str, ...], said: str, dry_run: bool
) -> None:
    run = backfill(world, *arguments, *(["--dry-run"] if dry_run else []))
    assert run.returncode == 1
    assert said in run.stderr
    assert "Traceback" not in run.stderr


def _delay_failed_status(settings: Settings) -> None:
    """Let 11 s pass between a failure's event and its run's status: two rounds of what launches retries."""
    with connect(settings.postgres_url or "") as connection:
        connection.execute(
            "CREATE FUNCTION dagster.delay() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN PERFORM pg_sleep(11); RETURN new; END'"
        )
        connection.execute(
            "CREATE TRIGGER delayed BEFORE UPDATE ON dagster.runs FOR EACH ROW"
            " WHEN (new.status = 'FAILURE' AND old.status <> 'FAILURE') EXECUTE FUNCTION dagster.delay()"
        )


def test_dagsters_daemon_carries_out_a_backfill_48_hours_a_run_though_a_worker_is_killed(
    settings: Settings, tmp_path: Path
) -> None:
    first = send(settings, tmp_path / "answers.json", events=400, hours=98)
    read_everything(settings)
    with dagster(settings, settings.home / "dagster") as on:

        def backfill(begin: datetime, end: datetime) -> subprocess.Popen[bytes]:
            hours = ("--from", hour_key(begin), "--to", hour_key(end), "--wait")
            return on.run(sys.executable, "-m", "antenna_assets.cli", "backfill", *hours)

        on.stop_sensor()
        on.start()
        # Dagster gives a pool its limit when it first meets it in the queue, and lets that turn pass.
        assert backfill(first, first).wait(120) == 0
        process = backfill(first + HOUR, first + 97 * HOUR)
        wait_for(lambda: "STARTED" in on.runs().values() and on.workers())
        _delay_failed_status(settings)
        os.kill(on.workers()[0], signal.SIGKILL)
        together = 0
        while process.poll() is None:
            together = max(together, sum(status in ("STARTING", "STARTED") for status in on.runs().values()))
            time.sleep(0.2)
        assert process.returncode == 0
        with connect(settings.postgres_url or "") as connection:
            published = connection.execute(
                "SELECT asset, count(DISTINCT hour) FROM ledger.publication GROUP BY asset"
            ).fetchall()
        statuses = list(on.runs().values())
    assert dict(published) == dict.fromkeys(ASSETS, 98)
    # One for the first hour, three for 97, of which one was killed, and the one that took its place.
    assert sorted(statuses) == ["FAILURE", *["SUCCESS"] * 4]
    # All ten places of the instance are free, and the pool has two.
    assert together == 2
