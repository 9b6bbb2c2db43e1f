"""Each check by the defect it is for, on copies of a published lakehouse; and what Dagster makes of the results."""

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import dagster as dg
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from antenna_assets.clients.postgres import connect
from antenna_assets.definitions import build_definitions
from antenna_assets.defs.checks import FRESHNESS, SPECS
from antenna_assets.domain.hours import HOUR, hour_key
from antenna_assets.domain.schema import HOURLY_TABLES
from antenna_assets.publishing.lake import Lake
from antenna_assets_tests.certified import FIRST, HOURS, World
from antenna_assets_tests.corruptions import change

pytestmark = pytest.mark.services

# The world has users whom nobody knows, and its newest hours are not closed.
BEFORE = {"bytes_agg_user_1h known_users_share", "users_over_quota_1h hours_are_fresh"}


@pytest.fixture
def world(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A copy of its own, whose live tables are filled as the stream would have."""
    monkeypatch.setenv("ANTENNA_POSTGRES_URL", world.url)
    monkeypatch.setenv("ANTENNA_LAKE", str(world.lake))
    with connect(world.url) as connection:
        connection.execute("SET session_replication_role = replica")
        for name in ("antenna", "app"):
            change(
                connection,
                "INSERT INTO {live} SELECT * FROM {hourly}",
                live=f"bytes_agg_{name}",
                hourly=f"bytes_agg_{name}_1h",
            )
        change(
            connection,
            "INSERT INTO bytes_agg_user SELECT date, id, sum_user_bytes FROM bytes_agg_user_1h",
        )
    return world


@pytest.fixture
def connection(world: World) -> Iterator[psycopg.Connection]:
    with connect(world.url) as opened:
        opened.execute("SET session_replication_role = replica")
        yield opened


def checked(
    instance: dg.DagsterInstance, tags: dict[str, str], name: str = "checks"
) -> dg.ExecuteInProcessResult:
    definitions = build_definitions()
    with_job = dg.Definitions(
        assets=definitions.assets,
        asset_checks=definitions.asset_checks,
        resources=definitions.resources,
        jobs=[
            # Those of hours: days have other partitions.
            dg.define_asset_job(
                "checks", selection=dg.AssetSelection.checks(*(spec.key for spec in SPECS), FRESHNESS)
            ),
            *(definitions.jobs or []),
        ],
        executor=dg.in_process_executor,
    )
    return with_job.resolve_job_def(name).execute_in_process(
        instance=instance,
        tags=tags,
        raise_on_error=False,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )


def failed(hour: datetime = FIRST) -> set[str]:
    with dg.DagsterInstance.ephemeral() as instance:
        result = checked(instance, {"dagster/partition": hour_key(hour)})
        found = result.get_asset_check_evaluations()
        assert {one.asset_check_key for one in found} == {*(spec.key for spec in SPECS), FRESHNESS}
        assert all(
            one.metadata["hour"].value == hour_key(hour)
            for one in found
            if one.check_name != "hours_are_fresh"
        )
        return {f"{one.asset_key.to_user_string()} {one.check_name}" for one in found if not one.passed}


def rewrite(world: World, table: str, change_rows: Callable[[pa.Table], pa.Table]) -> None:
    """Change the rows of a file of the first hour, where it lies."""
    (file, *_) = Lake(str(world.lake)).published_hour(table, FIRST).files
    rows = pq.read_table(file, partitioning=None)
    pq.write_table(change_rows(rows), file)


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("hour", HOURS)
def test_a_sound_hour_passes_all_checks_of_its_numbers_a_quiet_one_too(hour: datetime) -> None:
    quiet = {"bytes_agg_user_1h known_users_share"} if hour == HOURS[2] else set()
    assert failed(hour) == BEFORE - quiet


@pytest.mark.parametrize("table", ["raw_parquet", "enriched_usage"])
def test_a_lost_row_of_the_lake_is_not_conserved(world: World, table: str) -> None:
    rewrite(world, table, lambda rows: rows.slice(1))
    assert failed() - BEFORE == {f"{table} bytes_are_conserved"}


@pytest.mark.parametrize("table", ["raw_parquet", "enriched_usage"])
def test_a_doubled_row_of_the_lake_has_the_offset_of_another(world: World, table: str) -> None:
    rewrite(world, table, lambda rows: pa.concat_tables([rows.slice(0, 1), rows]))
    assert failed() - BEFORE == {f"{table} bytes_are_conserved", f"{table} keys_are_unique"}


@pytest.mark.parametrize("table", ["raw_parquet", "enriched_usage"])
def test_negative_bytes_in_the_lake_are_found_though_the_sum_is_right(world: World, table: str) -> None:
    def moved(rows: pa.Table) -> pa.Table:
        sum_ = pc.sum(rows["bytes"]).as_py()
        bytes_ = pa.array([-1, sum_ + 1, *[0] * (rows.num_rows - 2)], pa.int64())
        return rows.set_column(rows.schema.get_field_index("bytes"), rows.schema.field("bytes"), bytes_)

    rewrite(world, table, moved)
    assert failed() - BEFORE == {f"{table} no_negative_bytes"}


@pytest.mark.parametrize("table", ["bytes_agg_antenna_1h", "bytes_agg_app_1h"])
def test_a_changed_sum_is_not_conserved_nor_what_was_seen_live(
    connection: psycopg.Connection, table: str
) -> None:
    key, sum_ = HOURLY_TABLES[table].key, HOURLY_TABLES[table].sum_column
    statement = (
        "UPDATE {t} SET {s} = {s} + 1 WHERE date = %s AND {k} = (SELECT min({k}) FROM {t} WHERE date = %s)"
    )
    change(connection, statement, FIRST, FIRST, t=table, s=sum_, k=key)
    assert failed() - BEFORE == {f"{table} bytes_are_conserved", f"{table} live_equals_hourly"}


@pytest.mark.parametrize("table", HOURLY_TABLES)
def test_a_doubled_row_of_a_table_has_the_key_of_another(connection: psycopg.Connection, table: str) -> None:
    change_key = "ALTER TABLE {t} DROP CONSTRAINT {c}"
    connection.execute(
        psycopg.sql.SQL(change_key).format(
            t=psycopg.sql.Identifier(table), c=psycopg.sql.Identifier(f"{table}_pkey")
        )
    )
    change(connection, "INSERT INTO {t} SELECT * FROM {t} WHERE date = %s", FIRST, t=table)
    assert f"{table} keys_are_unique" in failed()


@pytest.mark.parametrize("table", HOURLY_TABLES)
def test_negative_bytes_in_a_table_are_found(connection: psycopg.Connection, table: str) -> None:
    sum_ = HOURLY_TABLES[table].sum_column
    change(connection, "UPDATE {t} SET {s} = -1 WHERE date = %s", FIRST, t=table, s=sum_)
    assert f"{table} no_negative_bytes" in failed()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM users_over_quota_1h WHERE date = %s",
        "UPDATE users_over_quota_1h SET quota = quota - 1 WHERE date = %s",
        "UPDATE users_over_quota_1h SET email = 'of another' WHERE date = %s",
        "UPDATE users_over_quota_1h SET sum_user_bytes = sum_user_bytes + 1 WHERE date = %s",
        "INSERT INTO users_over_quota_1h SELECT date, id, 'a@b', 1, sum_user_bytes FROM bytes_agg_user_1h"
        " WHERE date = %s AND email IS NULL",
    ],
)
def test_users_over_quota_are_exactly_those_above_it(connection: psycopg.Connection, statement: str) -> None:
    change(connection, statement, FIRST)
    assert failed() - BEFORE == {"users_over_quota_1h over_quota_is_exact"}


def test_after_the_users_changed_the_quotas_that_were_published_count(connection: psycopg.Connection) -> None:
    connection.execute("SET session_replication_role = origin")
    change(connection, "UPDATE user_metadata SET quota = 0")
    assert failed() == BEFORE
    change(
        connection,
        "UPDATE users_over_quota_1h SET sum_user_bytes = sum_user_bytes + 1 WHERE date = %s",
        FIRST,
    )
    assert failed() - BEFORE == {"users_over_quota_1h over_quota_is_exact"}


def test_tables_between_two_publications_of_a_run_are_not_held_together(
    connection: psycopg.Connection,
) -> None:
    change(
        connection,
        "INSERT INTO ledger.hour_generation (hour, generation, up_to_batch, rows, bytes)"
        " SELECT hour, 2, up_to_batch, rows, bytes FROM ledger.hour_generation WHERE hour = %s",
        FIRST,
    )
    change(
        connection,
        "INSERT INTO ledger.publication (asset, hour, generation, rows, bytes, users_version, run_id)"
        " SELECT asset, hour, 2, rows, bytes, users_version, 'another' FROM ledger.publication"
        " WHERE asset = 'bytes_agg_user_1h' AND hour = %s",
        FIRST,
    )
    change(
        connection,
        "UPDATE ledger.publication_head SET generation = 2 WHERE asset = 'bytes_agg_user_1h' AND hour = %s",
        FIRST,
    )
    change(connection, "DELETE FROM users_over_quota_1h WHERE date = %s", FIRST)
    assert failed() == BEFORE


def test_a_live_sum_that_nothing_explains_is_told(connection: psycopg.Connection) -> None:
    change(connection, "UPDATE bytes_agg_user SET sum_user_bytes = sum_user_bytes + 1 WHERE date = %s", FIRST)
    assert failed() - BEFORE == {"bytes_agg_user_1h live_equals_hourly"}


def test_bytes_of_one_key_that_are_live_under_another_are_told(connection: psycopg.Connection) -> None:
    change(connection, "UPDATE bytes_agg_app SET app = app || '?' WHERE date = %s", FIRST)
    assert failed() - BEFORE == {"bytes_agg_app_1h live_equals_hourly"}


def test_an_hour_with_a_tenth_of_its_usual_bytes_is_told(connection: psycopg.Connection) -> None:
    for week in (1, 2):
        change(
            connection,
            "INSERT INTO ledger.hour (hour, rows, bytes, closed_at, closed_by)"
            " SELECT hour - %s * interval '7 days', rows, bytes * 10, closed_at, closed_by FROM ledger.hour WHERE hour = %s",
            week,
            FIRST,
        )
    assert failed() - BEFORE == {"raw_parquet volume_is_usual"}


def test_a_run_of_several_hours_names_the_one_that_is_wrong(
    connection: psycopg.Connection, tmp_path: Path
) -> None:
    change(connection, "DELETE FROM bytes_agg_app_1h WHERE date = %s AND app = 'SKYPE'", HOURS[1])
    range_ = {
        "dagster/asset_partition_range_start": hour_key(HOURS[0]),
        "dagster/asset_partition_range_end": hour_key(HOURS[2]),
    }
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        result = checked(instance, range_)
        assert not result.success
        found = [
            one
            for one in result.get_asset_check_evaluations()
            if (one.asset_key, one.check_name) == (dg.AssetKey("bytes_agg_app_1h"), "bytes_are_conserved")
        ]
    of_hours = {one.partition: one.passed for one in found}
    assert of_hours == {
        hour_key(HOURS[0]): True,
        hour_key(HOURS[1]): False,
        hour_key(HOURS[2]): True,
        None: False,
    }
    (whole,) = [one for one in found if one.partition is None]
    assert (whole.description or "").startswith(f"{hour_key(HOURS[1])}: ")
    assert whole.metadata["hours"].value == f"{hour_key(HOURS[0])} to {hour_key(HOURS[2])}"
    assert whole.metadata["hours_failed"].value == 1


def test_what_is_downstream_of_a_wrong_number_is_not_computed(
    connection: psycopg.Connection, tmp_path: Path
) -> None:
    # The generation was sealed with other bytes than its files have.
    change(connection, "UPDATE ledger.file SET bytes = bytes + 1 WHERE hour = %s", FIRST)
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        result = checked(instance, {"dagster/partition": hour_key(FIRST)}, "hourly_usage")
        assert not result.success
        recorded = instance.all_logs(result.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        assert [event.get_dagster_event().asset_key for event in recorded] == [dg.AssetKey("raw_parquet")]


def test_late_rows_explain_what_the_live_tables_have_more(connection: psycopg.Connection) -> None:
    ((batch,),) = connection.execute("SELECT max(batch) + 1 FROM ledger.batch").fetchall()
    change(
        connection,
        "INSERT INTO ledger.batch (batch, kind, clock, rows, bytes, quarantined, late_rows, low_watermark)"
        " VALUES (%s, 'stream', now(), 1, 5, 0, 1, %s)",
        batch,
        FIRST + 2 * HOUR,
    )
    change(
        connection,
        "INSERT INTO ledger.file (path, kind, hour, rows, bytes, size, batch) VALUES ('late', 'landed', %s, 1, 5, 1, %s)",
        FIRST,
        batch,
    )
    for live, key in (("antenna", "antenna_id"), ("user", "id"), ("app", "app")):
        change(
            connection,
            "UPDATE {t} SET {s} = {s} + 5 WHERE date = %s AND {k} = (SELECT min({k}) FROM {t} WHERE date = %s)",
            FIRST,
            FIRST,
            t=f"bytes_agg_{live}",
            s=f"sum_{live}_bytes",
            k=key,
        )
    assert failed() == BEFORE
    with dg.DagsterInstance.ephemeral() as instance:
        result = checked(instance, {"dagster/partition": hour_key(FIRST)})
    figures = [
        {name: value.value for name, value in one.metadata.items()}
        for one in result.get_asset_check_evaluations()
        if one.check_name == "live_equals_hourly"
    ]
    assert len(figures) == 3
    assert all((of["late_bytes"], of["open_windows_bytes"], of["other_bytes"]) == (5, 0, 0) for of in figures)
    connection.execute(
        "UPDATE ledger.batch SET low_watermark = %s WHERE batch = %s", [FIRST + HOUR / 2, batch]
    )
    with dg.DagsterInstance.ephemeral() as instance:
        result = checked(instance, {"dagster/partition": hour_key(FIRST)})
    assert [
        (one.metadata["late_bytes"].value, one.metadata["open_windows_bytes"].value, one.passed)
        for one in result.get_asset_check_evaluations()
        if one.check_name == "live_equals_hourly"
    ] == [(0, 5, True)] * 3
