"""Hours of one run that are published together: one that fails keeps no other from being published, in the same run."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest

from antenna_assets.clients.postgres import connect
from antenna_assets.definitions import build_definitions
from antenna_assets.defs import checks
from antenna_assets.defs.assets import hourly
from antenna_assets.domain.hours import HOUR, hour_key
from antenna_assets.domain.schema import ASSETS, HOURLY_TABLES, LAKE_TABLES, ServingTable
from antenna_assets.ledger.certificate import newest_certificate
from antenna_assets.publishing import outcomes
from antenna_assets.publishing.lake import Lake
from antenna_assets.verify.claims.verdict import Verdict
from antenna_assets.verify.run import verify
from antenna_assets_tests.certified import FIRST, Land, World

pytestmark = pytest.mark.services

SECOND, THIRD = FIRST + HOUR, FIRST + 2 * HOUR


@pytest.fixture
def world(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Three published hours, all of them with late rows that wait."""
    monkeypatch.setenv("ANTENNA_POSTGRES_URL", world.url)
    monkeypatch.setenv("ANTENNA_LAKE", str(world.lake))
    with connect(world.url) as connection:
        Land.on(connection, world.lake)({FIRST: 9, SECOND: 8, THIRD: 7})
    return world


@pytest.fixture
def connection(world: World) -> Iterator[psycopg.Connection]:
    with connect(world.url) as opened:
        yield opened


def run(
    instance: dg.DagsterInstance, hours: Sequence[datetime], assets: Sequence[str] = ASSETS
) -> dg.ExecuteInProcessResult:
    tags = {
        "dagster/asset_partition_range_start": hour_key(hours[0]),
        "dagster/asset_partition_range_end": hour_key(hours[-1]),
    }
    job = build_definitions().resolve_job_def("hourly_usage")
    return job.execute_in_process(
        instance=instance,
        tags=tags,
        asset_selection=[dg.AssetKey(name) for name in assets],
        raise_on_error=False,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )


def lose_the_newest_file(world: World, connection: psycopg.Connection, hour: datetime) -> None:
    ((path,),) = connection.execute(
        "SELECT path FROM ledger.file WHERE hour = %s ORDER BY batch DESC LIMIT 1", [hour]
    ).fetchall()
    (world.lake / path).unlink()


def certified(connection: psycopg.Connection, hour: datetime) -> int | None:
    found = newest_certificate(connection, hour)
    return None if found is None else found.generation


def materialized(instance: dg.DagsterInstance) -> dict[str, set[str]]:
    return {name: set(instance.get_materialized_partitions(dg.AssetKey(name))) for name in ASSETS}


def test_an_hour_whose_file_is_lost_keeps_no_other_of_its_run(
    world: World, connection: psycopg.Connection
) -> None:
    lose_the_newest_file(world, connection, SECOND)
    with dg.DagsterInstance.ephemeral() as instance:
        result = run(instance, [FIRST, THIRD])
        assert not result.success
        (failure,) = [event for event in result.all_events if event.is_step_failure]
        assert "EngineError" in str(failure.event_specific_data)
        published = {hour_key(FIRST), hour_key(THIRD)}
        assert materialized(instance) == dict.fromkeys(ASSETS, published)
    assert [certified(connection, hour) for hour in (FIRST, SECOND, THIRD)] == [2, 1, 2]


def test_an_hour_whose_published_file_is_damaged_keeps_no_other_from_its_tables(
    world: World, connection: psycopg.Connection
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert run(instance, [FIRST, THIRD], LAKE_TABLES).success
        (file,) = Lake(str(world.lake)).hour("enriched_usage", SECOND).files
        # The footer is whole: it is found while the rows are read.
        whole = Path(file).read_bytes()
        Path(file).write_bytes(whole[:4] + bytes(len(whole) // 2 - 4) + whole[len(whole) // 2 :])
        result = run(instance, [FIRST, THIRD], [*HOURLY_TABLES])
        assert not result.success
        (failure,) = [event for event in result.all_events if event.is_step_failure]
        assert "EngineError" in str(failure.event_specific_data)
    assert [certified(connection, hour) for hour in (FIRST, SECOND, THIRD)] == [2, 1, 2]


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        ([SECOND], f"1 hour failed, and the others are published: {hour_key(SECOND)}; {hour_key(SECOND)}: "),
        (
            [FIRST, SECOND],
            f"2 hours failed, and the others are published: {hour_key(FIRST)}, {hour_key(SECOND)};",
        ),
    ],
    ids=["one", "two"],
)
def test_hours_of_a_range_that_fail_are_named(
    world: World, connection: psycopg.Connection, lost: list[datetime], told: str
) -> None:
    for hour in lost:
        lose_the_newest_file(world, connection, hour)
    with dg.DagsterInstance.ephemeral() as instance:
        result = run(instance, [FIRST, THIRD])
        (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert told in str(failure.event_specific_data)
    hours = (FIRST, SECOND, THIRD)
    assert [certified(connection, hour) for hour in hours] == [1 if hour in lost else 2 for hour in hours]


@pytest.mark.parametrize("terminated", [False, True], ids=["its connection is lost", "it is terminated"])
def test_what_a_run_published_before_it_broke_off_is_recorded(
    connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, *, terminated: bool
) -> None:
    """In pieces of an hour: the first is published, and the second breaks off on the way."""
    monkeypatch.setattr(outcomes, "MOST_ROWS", 1)
    publish_table = hourly.publish_table

    def lost(
        run: outcomes.PublishingRun, table: ServingTable, hours: Sequence[datetime]
    ) -> outcomes.Outcomes:
        if hours[0] == SECOND and terminated:
            raise dg.DagsterExecutionInterruptedError
        if hours[0] == SECOND:
            connection.execute("SELECT pg_terminate_backend(%s)", [run.connection.info.backend_pid])
        return publish_table(run, table, hours)

    monkeypatch.setattr(hourly, "publish_table", lost)
    with dg.DagsterInstance.ephemeral() as instance:
        assert not run(instance, [FIRST, THIRD]).success
        assert [certified(connection, hour) for hour in (FIRST, SECOND, THIRD)] == [2, 1, 1]
        first, second = {hour_key(FIRST)}, {hour_key(SECOND)}
        assert materialized(instance) == {
            name: first | second if name in LAKE_TABLES else first for name in ASSETS
        }


def test_an_hour_with_a_wrong_number_is_not_published_any_further(
    connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = checks.lake_claims

    def doubled(*arguments: Any) -> dict[datetime, dict[str, Verdict]]:
        found = claims(*arguments)
        if SECOND in found:
            found[SECOND]["bytes_are_conserved"] = Verdict(False, "it has twice the bytes")
        return found

    monkeypatch.setattr(checks, "lake_claims", doubled)
    with dg.DagsterInstance.ephemeral() as instance:
        result = run(instance, [FIRST, THIRD])
        (failure,) = [event for event in result.all_events if event.is_step_failure]
        assert "raw_parquet, bytes_are_conserved: it has twice the bytes" in str(failure.event_specific_data)
        found = materialized(instance)
    assert found["raw_parquet"] == {hour_key(hour) for hour in (FIRST, SECOND, THIRD)}
    assert all(found[name] == {hour_key(FIRST), hour_key(THIRD)} for name in ASSETS[1:])
    assert [certified(connection, hour) for hour in (FIRST, SECOND, THIRD)] == [2, 1, 2]


@pytest.mark.parametrize("most_rows", [1, 10_000])
def test_hours_in_pieces_or_together_are_the_same(
    world: World, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, most_rows: int
) -> None:
    monkeypatch.setattr(outcomes, "MOST_ROWS", most_rows)
    lake = Lake(str(world.lake))
    before = lake.hour("raw_parquet", FIRST).version
    with dg.DagsterInstance.ephemeral() as instance:
        assert run(instance, [FIRST, THIRD]).success
        published = {hour_key(hour) for hour in (FIRST, SECOND, THIRD)}
        assert materialized(instance) == dict.fromkeys(ASSETS, published)
    found = verify(connection, lake, kept_since=FIRST)
    assert (found.differences, found.hours) == ([], 3)
    assert [certified(connection, hour) for hour in (FIRST, SECOND, THIRD)] == [2, 2, 2]
    pieces = 3 if most_rows == 1 else 1
    assert {lake.hour(table, FIRST).version - before for table in LAKE_TABLES} == {pieces}
