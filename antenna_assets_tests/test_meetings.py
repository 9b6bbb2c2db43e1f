"""Rows 28 to 30 with the real job on a small certified lakehouse: publications meet other users, deaths, the horizon, a user
who is forgotten, a lake table that is lost, and a topic that is made again."""

import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import dagster as dg
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antenna_assets.clients.postgres import connect
from antenna_assets.definitions import build_definitions
from antenna_assets.domain.hours import HOUR, hour_key
from antenna_assets.domain.lifetimes import LONGEST_RUN
from antenna_assets.domain.schema import ASSETS, LANDED_SCHEMA
from antenna_assets.engines.contract import WrittenFile
from antenna_assets.engines.duckdb import DuckDBEngine
from antenna_assets.ledger import certificate, failing
from antenna_assets.ledger.batch import AttemptFile, BatchContent
from antenna_assets.ledger.certificate import require_certificate
from antenna_assets.ledger.hours_to_publish import hours_to_publish
from antenna_assets.ledger.landing import landing_facts
from antenna_assets.ledger.replay import ReplayedMessage, commit_replay
from antenna_assets.operations.forget.run import forget
from antenna_assets.operations.quotas.changes import change_user
from antenna_assets.operations.quotas.quota import Quota
from antenna_assets.operations.sweep.retention import expire_files
from antenna_assets.publishing.lake import Lake
from antenna_assets.verify.claims.lake import lake_claims
from antenna_assets.verify.claims.tables import over_quota_is_exact
from antenna_assets.verify.run import Verified, verify
from antenna_assets_tests.certified import FIRST, HOURS, KNOWN, Land, World
from antenna_assets_tests.faults.in_process import Faults, Held
from antenna_assets_tests.local_runs import publish
from antenna_assets_tests.serving_rows import quota_since_ever

pytestmark = pytest.mark.services

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture
def world(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Three certified hours of one's own, which the environment names."""
    monkeypatch.setenv("ANTENNA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ANTENNA_POSTGRES_URL", world.url)
    monkeypatch.setenv("ANTENNA_LAKE", str(world.lake))
    return world


@pytest.fixture
def connection(world: World) -> Iterator[psycopg.Connection]:
    with connect(world.url) as opened:
        yield opened


def run(hours: Sequence[datetime], *, assets: Sequence[str] = ASSETS, must_succeed: bool = True) -> None:
    """Run the job for a range of hours, as a backfill does, or some of its assets only."""
    tags = {
        "dagster/asset_partition_range_start": hour_key(hours[0]),
        "dagster/asset_partition_range_end": hour_key(hours[-1]),
    }
    job = build_definitions().resolve_job_def("hourly_usage")
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(
            instance=instance,
            tags=tags,
            run_config=QUIET,
            asset_selection=[dg.AssetKey(name) for name in assets],
            raise_on_error=False,
        )
    assert result.success or not must_succeed, [
        str(event.event_specific_data) for event in result.all_events if event.is_step_failure
    ]


def publish_what_the_sensor_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failing, "FIRST_WAIT", timedelta(0))
    with dg.DagsterInstance.ephemeral() as instance:
        assert all(of.success for _hours, of in publish(instance))


def verified(world: World, *, kept_since: datetime = FIRST) -> Verified:
    with connect(world.url) as connection:
        return verify(connection, Lake(str(world.lake)), kept_since=kept_since)


def assert_all_as_certified(world: World, *, kept_since: datetime = FIRST) -> None:
    found = verified(world, kept_since=kept_since)
    assert (found.differences, found.pending) == ([], {})


def expire(connection: psycopg.Connection) -> None:
    """Let the ledger forget the landed files of all hours."""
    expire_files(connection, horizon=timedelta(0), now=FIRST + 4 * HOUR + LONGEST_RUN)
    assert connection.execute(
        "SELECT count(*) FROM ledger.file WHERE hour < %s", [FIRST + 3 * HOUR]
    ).fetchall() == [(0,)]


def landing(connection: psycopg.Connection, hour: datetime = FIRST) -> dict:
    content = require_certificate(connection, hour).content
    return {name: content[name] for name in ("landed", "batches", "rejected", "offsets")}


def test_row_29_a_run_with_older_users_comes_late_to_an_hour_that_a_backfill_corrected(
    world: World, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run takes its users once for all of its hours. It is held once they are joined; one is corrected meanwhile."""
    faults = Faults(monkeypatch)
    older = Held(faults, "publish.lake.files_written", 2, lambda: run(HOURS[:2]))
    newer_users = quota_since_ever(connection, 1)
    run(HOURS[1:2])
    corrected = connection.execute("SELECT * FROM users_over_quota_1h WHERE date = %s", [HOURS[1]]).fetchall()
    assert older.let_go() is None
    assert require_certificate(connection, HOURS[1]).users_version == newer_users
    assert (
        connection.execute("SELECT * FROM users_over_quota_1h WHERE date = %s", [HOURS[1]]).fetchall()
        == corrected
    )
    assert_all_as_certified(world)
    assert hours_to_publish(connection, limit=9) == []


def test_row_43_a_quota_that_is_corrected_while_an_hour_is_published_for_the_first_time_is_applied(
    world: World, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run has taken its users, and the hour is not among the published ones that the correction concerns."""
    fourth = HOURS[-1] + HOUR
    Land.on(connection, world.lake)({fourth: 80}, newest=fourth + HOUR + timedelta(minutes=9))
    running = Held(Faults(monkeypatch), "publish.lake.files_written", 2, lambda: run([fourth]))
    change_user(connection, KNOWN[3], "hour", Quota(0), valid_from=FIRST)
    assert running.let_go() is None
    publish_what_the_sensor_asks_for(monkeypatch)
    over = "SELECT quota FROM users_over_quota_1h WHERE date = %s AND id = %s"
    assert connection.execute(over, [fourth, KNOWN[3]]).fetchall() == [(0,)]
    assert_all_as_certified(world)


DEATHS = [
    ("publish.lake.files_written", 1),
    ("publish.lake.files_written", 2),
    ("publish.lake.committed", 1),
    ("publish.lake.committed", 2),
    ("publish.hours_done", 2),
    ("publish.table.fenced", 2),
    ("publish.table.copied", 4),
    ("publish.table.committed", 3),
]


@pytest.mark.parametrize(("point", "passage"), DEATHS)
def test_row_28_a_publication_of_other_users_that_dies_is_finished_by_the_sensors_next_runs(
    world: World, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, point: str, passage: int
) -> None:
    faults = Faults(monkeypatch)
    newer_users = quota_since_ever(connection, 1)
    with faults.dying((point, passage)) as fault:
        run(HOURS[:1], must_succeed=False)
    assert fault.dead
    assert [one.hour for one in hours_to_publish(connection, limit=9)] == [FIRST]
    publish_what_the_sensor_asks_for(monkeypatch)
    assert require_certificate(connection, FIRST).users_version == newer_users
    assert hours_to_publish(connection, limit=9) == []
    assert_all_as_certified(world)


def test_row_28_quotas_that_could_not_be_compared_are_no_pass(
    connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    quota_since_ever(connection, 1)
    with Faults(monkeypatch).dying(("publish.table.committed", 3)):
        run(HOURS[:1], must_succeed=False)
    verdict = over_quota_is_exact(connection, [FIRST])[FIRST]
    assert (verdict.passed, verdict.only_warns) == (False, True)
    assert verdict.message.startswith("not compared: ")
    publish_what_the_sensor_asks_for(monkeypatch)
    assert over_quota_is_exact(connection, [FIRST])[FIRST].passed


def test_row_30_a_user_is_forgotten_past_the_horizon_and_the_new_certificate_knows_what_landed(
    world: World, connection: psycopg.Connection
) -> None:
    before = landing(connection)
    expire(connection)
    number = require_certificate(connection, FIRST).number
    forget(connection, Lake(str(world.lake)), KNOWN[2], say=lambda _: None)
    assert require_certificate(connection, FIRST).number > number
    assert landing(connection) == before
    assert before["landed"]["rows"] == 105
    assert_all_as_certified(world, kept_since=FIRST + 10 * HOUR)


def test_row_30_the_later_assets_of_an_hour_past_the_horizon_are_published_with_what_landed(
    world: World, connection: psycopg.Connection
) -> None:
    before = landing(connection)
    expire(connection)
    newer_users = quota_since_ever(connection, 1)
    run(HOURS, assets=ASSETS[1:])
    assert require_certificate(connection, FIRST).users_version == newer_users
    assert landing(connection) == before
    assert_all_as_certified(world, kept_since=FIRST + 10 * HOUR)
    assert hours_to_publish(connection, limit=9) == []


def test_row_28_a_publication_that_dies_past_the_horizon_is_finished_and_a_finished_hour_is_left_alone(
    world: World, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = landing(connection)
    expire(connection)
    newer_users = quota_since_ever(connection, 1)
    with Faults(monkeypatch).dying(("publish.table.copied", 2)):
        run(HOURS[:1], assets=ASSETS[1:], must_succeed=False)
    assert [one.hour for one in hours_to_publish(connection, limit=9)] == [FIRST]
    publish_what_the_sensor_asks_for(monkeypatch)
    finished = require_certificate(connection, FIRST)
    assert (finished.users_version, landing(connection)) == (newer_users, before)
    assert_all_as_certified(world, kept_since=FIRST + 10 * HOUR)
    quota_since_ever(connection, 2)
    run(HOURS[:1], must_succeed=False)
    assert require_certificate(connection, FIRST) == finished
    assert hours_to_publish(connection, limit=9) == []


@pytest.mark.parametrize("left", ["files", "expired files", "certificates"])
def test_row_30_what_landed_for_an_hour_of_an_older_version_comes_from_what_is_left_of_it(
    connection: psycopg.Connection, left: str
) -> None:
    before = landing(connection)
    if left == "expired files":
        expire(connection)
    # An older version did not keep it.
    connection.execute("DELETE FROM ledger.generation_landing")
    if left == "files":
        expire(connection)
    if left == "expired files":
        # The next sweep keeps it before anything of the past is summed up; the quiet hour has no file.
        expire(connection)
        kept = connection.execute("SELECT hour FROM ledger.generation_landing ORDER BY hour").fetchall()
        assert kept == [(hour,) for hour in HOURS[:2]]
    if left == "certificates":
        connection.execute("DELETE FROM ledger.file")
    quota_since_ever(connection, 1)
    run(HOURS[:1], assets=ASSETS[1:])
    assert landing(connection) == before


def test_row_30_a_false_certificate_of_an_older_version_is_named_and_the_next_one_is_true(
    world: World, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = landing(connection)
    expire(connection)
    with monkeypatch.context() as older_version:
        older_version.setattr(
            certificate,
            "record_landing",
            lambda on, sealed: landing_facts(on, sealed.hour, sealed.up_to_batch),
        )
        quota_since_ever(connection, 1)
        run(HOURS[:1], assets=ASSETS[1:])
    assert landing(connection)["landed"]["rows"] == 0
    named = [one.what for one in verified(world, kept_since=FIRST + 10 * HOUR).differences]
    assert "ledger, as sealed, landed, rows" in named
    false = require_certificate(connection, FIRST)
    run(HOURS[:1], assets=ASSETS[1:])
    assert landing(connection) == before
    # It stays in the chain, as every certificate.
    assert connection.execute(
        "SELECT text FROM ledger.certificate WHERE number = %s", [false.number]
    ).fetchall() == [(false.text,)]
    assert_all_as_certified(world, kept_since=FIRST + 10 * HOUR)


def delta_version(connection: psycopg.Connection, table: str) -> int:
    return require_certificate(connection, FIRST).content["published"][table]["delta_version"]


@pytest.mark.parametrize("table", ["raw_parquet", "enriched_usage"])
def test_row_30_a_lake_table_that_was_lost_and_built_anew_is_named_and_certified_again(
    world: World, connection: psycopg.Connection, table: str
) -> None:
    # Its versions are far on; those of the new one begin at 1 again.
    run(HOURS[:1])
    run(HOURS[:1])
    before = delta_version(connection, table)
    shutil.rmtree(world.lake / table)
    found = {one.what: one.found for one in verified(world).differences if one.hour == hour_key(FIRST)}
    assert found[f"{table}, Delta's id of the table"].startswith(
        "nothing: the table was lost; `antenna backfill"
    )
    run(HOURS[1:2])
    found = {one.what: one.found for one in verified(world).differences if one.hour == hour_key(FIRST)}
    assert (
        "the table was lost and rebuilt; `antenna backfill --from "
        in found[f"{table}, Delta's id of the table"]
    )
    run(HOURS)
    assert delta_version(connection, table) < before
    assert_all_as_certified(world)
    assert hours_to_publish(connection, limit=9) == []


def test_row_30_an_older_copy_of_a_lake_table_is_put_back_and_its_hours_are_certified_again(
    world: World, tmp_path: Path
) -> None:
    """The same table with lower versions than the ledger has seen: its versions are no order."""
    shutil.copytree(world.lake / "raw_parquet", tmp_path / "backup")
    run(HOURS[:1])
    run(HOURS[:1])
    shutil.rmtree(world.lake / "raw_parquet")
    shutil.copytree(tmp_path / "backup", world.lake / "raw_parquet")
    assert [one.what for one in verified(world).differences] != []
    run(HOURS[:1])
    assert_all_as_certified(world)


def made_again(connection: psycopg.Connection, lake: Path) -> Land:
    """A topic that was made again, and whose loss was accepted: its offsets begin at 0."""
    land = Land.on(connection, lake)
    connection.execute("UPDATE ledger.head SET topic_id = 'another', event_times = '{}'")
    land.topic_id, land.offset = "another", 0
    land.random = random.Random(7)
    return land


def test_row_30_an_hour_with_the_same_coordinates_of_a_topic_that_was_made_again_is_published(
    world: World, connection: psycopg.Connection
) -> None:
    land = made_again(connection, world.lake)
    land({FIRST: 80}, rejected=["not_json"], newest=FIRST + 3 * HOUR)
    run(HOURS[:1])
    assert require_certificate(connection, FIRST).content["landed"]["rows"] == 185
    assert_all_as_certified(world)
    assert hours_to_publish(connection, limit=9) == []


def test_row_30_a_row_that_is_there_twice_is_found_in_a_topic_that_was_made_again(
    world: World, connection: psycopg.Connection
) -> None:
    land = made_again(connection, world.lake)
    land({FIRST: 80}, newest=FIRST + 3 * HOUR)
    run(HOURS[:1])
    lake = Lake(str(world.lake))
    held = lake.hour("raw_parquet", FIRST)
    assert held.generation is not None
    rows = pa.concat_tables(pq.ParquetFile(path).read() for path in held.files)
    folder = Path(lake.new_folder("raw_parquet", FIRST, held.generation))
    folder.mkdir(parents=True)
    # One of the coordinates that both lives have, and one that only the first has.
    both, one = (rows.filter(pa.compute.equal(rows["kafka_offset"], offset))[:1] for offset in (5, 100))
    file = folder / "part-0.parquet"
    pq.write_table(pa.concat_tables([rows, both, one]), file)
    lake.replace_hour(
        "raw_parquet", FIRST, held.generation, [WrittenFile(str(file), len(rows) + 2, file.stat().st_size)]
    )
    with closing(DuckDBEngine()) as engine:
        claims = lake_claims(connection, lake, engine, "raw_parquet", [FIRST])
        verdict = claims[FIRST]["keys_are_unique"]
    assert (verdict.passed, verdict.metrics["found"]) == (False, 2)


def test_row_30_replays_of_the_same_coordinates_of_two_topics_are_published_and_verified(
    world: World, connection: psycopg.Connection
) -> None:
    land = made_again(connection, world.lake)
    # Offset 60 of both topics was rejected.
    land({FIRST: 60}, rejected=["not_json"], newest=FIRST + 3 * HOUR)
    folder = f"landing/{land.batch + 1}-{uuid4().hex[:12]}/hour={FIRST:%Y%m%d%H}"
    event = {"timestamp": FIRST, "app": "SKYPE", "id": KNOWN[0], "antenna_id": "north", "bytes": 5}
    rows = pa.Table.from_pylist([{**event, "kafka_partition": 0, "kafka_offset": 60}] * 2, LANDED_SCHEMA)
    path = world.lake / folder / "part-0.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(rows, path)
    commit_replay(
        connection,
        topic="devices",
        clock=datetime.now(UTC),
        messages=[ReplayedMessage(topic_id, 0, 60, "not_json") for topic_id in ("id", "another")],
        content=BatchContent([AttemptFile(f"{folder}/part-0.parquet", FIRST, 2, 10, path.stat().st_size)]),
        transform=None,
    )
    run(HOURS[:1])
    assert require_certificate(connection, FIRST).content["landed"]["rows"] == 105 + 62
    assert_all_as_certified(world)
