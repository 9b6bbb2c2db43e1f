"""The job on a published lake: engines, refusals, generations and replays, with real services."""

import base64
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4
from xml.etree import ElementTree

import dagster as dg
import pytest

from antenna_assets.clients.postgres import connect
from antenna_assets.definitions import build_definitions
from antenna_assets.defs.checks import SPECS
from antenna_assets.defs.requested_runs import RANGE_END_TAG, RANGE_START_TAG
from antenna_assets.defs.resources import EngineResource
from antenna_assets.domain.hours import HOUR, hour_key, hour_of
from antenna_assets.domain.schema import ASSETS, HOURLY_TABLES, LAKE_TABLES
from antenna_assets.settings import Settings, load_settings
from antenna_assets.simulator.run import simulate
from antenna_assets.simulator.scenario import Scenario
from antenna_assets.simulator.send import Target
from antenna_assets.stack.kafka_topic import ensure_topic
from antenna_assets.streaming.job import Stream
from antenna_assets_tests.end_to_end.runs import EXECUTE, instance
from antenna_assets_tests.instances import instance_in_postgres

pytestmark = pytest.mark.services

FIRST = hour_of(datetime.now(UTC) - timedelta(minutes=2)) - 3 * HOUR


@pytest.fixture(scope="module")
def landed_once(
    kafka: str,
    new_database: Callable[[str], AbstractContextManager[str]],
    migrated_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, Path]]:
    """Three closed hours of events that the stream read: the database's name and the lake, to copy from."""
    with new_database(migrated_template) as url:
        home, topic = tmp_path_factory.mktemp("landed"), f"landed-{uuid4().hex[:12]}"
        settings = Settings(home=home, postgres_url=url, kafka_bootstrap=kafka, topic=topic)
        ensure_topic(kafka, topic, 4)
        scenario = Scenario(events=3_000, seed=11, start=FIRST, hours=3, late=0.01, unknown_users=0.01)
        simulate(settings, scenario, Target(kafka, topic), answers=None)
        Stream(
            settings,
            postgres_url=url,
            kafka_bootstrap=kafka,
            say=lambda _line: None,
            stop=threading.Event(),
        ).read_available()
        yield urlsplit(url).path.removeprefix("/"), Path(settings.lake_uri)


@pytest.fixture
def landed(
    settings: Settings,
    landed_once: tuple[str, Path],
    new_database: Callable[[str], AbstractContextManager[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Settings]:
    """Three closed hours of events in the ledger, nothing published."""
    database, lake = landed_once
    with new_database(database) as url:
        shutil.copytree(lake, settings.lake_uri)
        monkeypatch.setenv("ANTENNA_POSTGRES_URL", url)
        yield load_settings()


def run(
    dagster: dg.DagsterInstance, tags: dict[str, str], resources: dict[str, object] | None = None
) -> dg.ExecuteInProcessResult:
    job = build_definitions(resources).resolve_job_def("hourly_usage")
    return job.execute_in_process(instance=dagster, tags=tags, raise_on_error=False)


def tables(settings: Settings) -> dict[str, list[tuple]]:
    with connect(settings.postgres_url or "") as connection:
        return {
            name: sorted(connection.execute(f"SELECT * FROM {name}".encode()).fetchall(), key=repr)  # noqa: S608
            for name in HOURLY_TABLES
        }


def generations(settings: Settings) -> list[tuple]:
    with connect(settings.postgres_url or "") as connection:
        return connection.execute("SELECT asset, hour, generation FROM ledger.publication_head").fetchall()


def failure(result: dg.ExecuteInProcessResult) -> str:
    assert not result.success
    return " ".join(
        str(event.event_specific_data.error) for event in result.all_events if event.is_step_failure
    )


# The Java of this process is started once, with the connectors of the stream.
@pytest.mark.usefixtures("spark")
def test_both_engines_give_the_same_rows(landed: Settings) -> None:
    tags = {"dagster/partition": hour_key(FIRST)}
    found = []
    with instance() as dagster:
        for name in ("duckdb", "spark"):
            assert run(dagster, tags, {"engine": EngineResource(name=name)}).success
            found.append(tables(landed))
    assert found[0] == found[1]
    assert all(found[0].values())


def test_a_range_run_publishes_every_hour_and_records_each(landed: Settings) -> None:
    last = FIRST + 2 * HOUR
    tags = {
        "dagster/asset_partition_range_start": hour_key(FIRST),
        "dagster/asset_partition_range_end": hour_key(last),
    }
    with instance() as dagster:
        assert run(dagster, tags).success
        for asset in ASSETS:
            recorded = dagster.get_materialized_partitions(dg.AssetKey(asset))
            assert recorded == {hour_key(FIRST + number * HOUR) for number in range(3)}
    assert sorted(generations(landed)) == sorted((a, FIRST + n * HOUR, 1) for a in ASSETS for n in range(3))


def reported(result: dg.ExecuteInProcessResult, hour: datetime) -> dict[str, dict[str, Any]]:
    """The metadata of each asset's last materialization of an hour."""
    return {
        (event.asset_key or dg.AssetKey([])).to_user_string(): {
            name: value.value for name, value in event.materialization.metadata.items()
        }
        for event in result.get_asset_materialization_events()
        if event.partition == hour_key(hour)
    }


def test_a_materialization_reports_numbers_rows_a_plot_and_the_certificate(landed: Settings) -> None:
    with instance() as dagster:
        result = run(dagster, {"dagster/partition": hour_key(FIRST)})
        assert result.success
    found = reported(result, FIRST)
    with connect(landed.postgres_url or "") as connection:
        ((rows, bytes_),) = connection.execute(
            "SELECT rows, bytes FROM ledger.hour WHERE hour = %s", [FIRST]
        ).fetchall()
    for asset in ASSETS:
        of, plot = found[asset], "bytes per 5 minutes" if asset in LAKE_TABLES else "most bytes"
        assert of["dagster/partition_row_count"] == of["rows"] > 0
        assert of["bytes"] == bytes_ or asset == "users_over_quota_1h"
        assert of["generation"] == 1
        assert all(of[f"{stage}_seconds"] >= 0 for stage in ("transform", "publish"))
        assert of["preview"]
        svg = base64.b64decode(of[plot].split("base64,")[1].rstrip(")"))
        assert ElementTree.fromstring(svg).tag.endswith("svg")
        assert f"`antenna certificate {hour_key(FIRST)}`" in of["certificate"]
    raw = found["raw_parquet"]
    assert (raw["rows"], raw["files"], raw["quarantined_in_its_batches"]) == (rows, 1, 0)
    assert raw["late_rows"] >= 0
    unknown = found["bytes_agg_user_1h"]["unknown_users"]
    assert 0 < unknown <= found["enriched_usage"]["unknown_user_rows"]
    # The last of the six has the certificate; those before it say who leaves it.
    told = [of["certificate"] for of in found.values()]
    assert [text.startswith("number 1 of generation 1") for text in told] == [False] * 5 + [True]
    # Whoever a user is, is in user_metadata alone.
    assert not re.search("@|delicidas|emilio", repr(found))


@pytest.mark.usefixtures("landed")
def test_the_hours_of_a_range_run_report_the_same_as_alone() -> None:
    tags = {
        "dagster/asset_partition_range_start": hour_key(FIRST),
        "dagster/asset_partition_range_end": hour_key(FIRST + HOUR),
    }
    with instance() as dagster:
        together = run(dagster, tags)
        alone = run(dagster, {"dagster/partition": hour_key(FIRST + HOUR)})
    for asset, of in reported(together, FIRST + HOUR).items():
        single = reported(alone, FIRST + HOUR)[asset]
        assert of.keys() == single.keys()
        same = [name for name in of if not name.endswith(("_seconds", "file_bytes", "certificate"))]
        assert {name: of[name] for name in same} == {name: single[name] for name in same}


def test_running_an_hour_twice_changes_nothing(landed: Settings) -> None:
    with instance() as dagster:
        assert run(dagster, {"dagster/partition": hour_key(FIRST)}).success
        once = tables(landed)
        assert run(dagster, {"dagster/partition": hour_key(FIRST)}).success
    assert tables(landed) == once
    assert {generation for _, _, generation in generations(landed)} == {1}


@pytest.mark.parametrize(
    "tags",
    [
        {"dagster/partition": hour_key(FIRST)},
        {RANGE_START_TAG: hour_key(FIRST), RANGE_END_TAG: hour_key(FIRST)},
        {RANGE_START_TAG: hour_key(FIRST), RANGE_END_TAG: hour_key(FIRST + HOUR)},
    ],
    ids=["an hour", "a range of one", "a range of two"],
)
def test_what_a_run_records_is_based_on_what_the_same_run_recorded(
    landed: Settings, tmp_path: Path, tags: dict[str, str]
) -> None:
    """With Dagster's storage as users have it, which stores events together."""
    url, pointer = landed.postgres_url or "", "dagster/input_event_pointer/"
    with instance_in_postgres(url, tmp_path / "dagster") as dagster, connect(url) as connection:
        runs = [run(dagster, tags) for _ in range(2)]
        recorded = {
            one.storage_id: one
            for asset in ASSETS
            for one in dagster.fetch_materializations(dg.AssetKey(asset), limit=100).records
        }
        checks = connection.execute(
            "SELECT run_id, asset_key, partition, execution_status, materialization_event_storage_id"
            " FROM dagster.asset_check_executions WHERE check_name <> 'hours_are_fresh'"
        ).fetchall()
    assert all(ran.success for ran in runs)
    assert "PLANNED" not in {status for _, _, _, status, _ in checks}
    # An evaluation of one hour of a range names none: Dagster takes the newest.
    of_checks = [
        (run_id, json.loads(asset)[0], number)
        for run_id, asset, partition, _, number in checks
        if partition is None or "dagster/partition" in tags
    ]
    assert len(of_checks) == 2 * len(SPECS)
    of_inputs = [
        (one.run_id, key.removeprefix(pointer), int(value))
        for one in recorded.values()
        for key, value in (one.asset_materialization.tags or {}).items()  # type: ignore[union-attr]
        if key.startswith(pointer) and key.removeprefix(pointer) in ASSETS
    ]
    assert {asset for _, asset, _ in of_inputs} == {"raw_parquet", "enriched_usage"}
    for run_id, asset, number in of_checks + of_inputs:
        assert (recorded[number].run_id, recorded[number].asset_key) == (run_id, dg.AssetKey(asset))


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (hour_key(hour_of(datetime.now(UTC)) + 24 * HOUR), "is not known to the ledger"),
        (hour_key(FIRST)[:-2] + "30", "expected an hour in UTC such as 2026-11-22-10:00, found"),
        ("2026-02-01-00:00", "is not known to the ledger"),
    ],
    ids=["to come", "half an hour", "before everything"],
)
def test_hours_that_are_not_closed_or_not_canonical_are_refused(
    landed: Settings, key: str, said: str
) -> None:
    with instance() as dagster:
        assert said in failure(run(dagster, {"dagster/partition": key}))
    assert generations(landed) == []
    assert not (Path(landed.lake_uri) / "raw_parquet").exists()


def test_a_range_with_one_open_hour_publishes_none(landed: Settings) -> None:
    with connect(landed.postgres_url or "") as connection:
        connection.execute(
            "UPDATE ledger.hour SET closed_at = NULL, closed_by = NULL WHERE hour = %s", [FIRST + 2 * HOUR]
        )
    tags = {
        "dagster/asset_partition_range_start": hour_key(FIRST),
        "dagster/asset_partition_range_end": hour_key(FIRST + 2 * HOUR),
    }
    with instance() as dagster:
        assert "is still open" in failure(run(dagster, tags))
    assert generations(landed) == []


@pytest.mark.usefixtures("landed")
def test_an_asset_whose_input_is_not_there_says_what_to_run_first() -> None:
    with instance() as dagster:
        result = dg.materialize(
            [asset for asset in build_definitions().assets or [] if isinstance(asset, dg.AssetsDefinition)],
            selection="bytes_agg_user_1h",
            partition_key=hour_key(FIRST),
            instance=dagster,
            resources=dict(build_definitions().resources or {}),
            raise_on_error=False,
        )
        assert "materialize enriched_usage for it first" in failure(result)


def test_an_older_generation_that_comes_late_is_superseded_and_succeeds(landed: Settings) -> None:
    with instance() as dagster:
        assert run(dagster, {"dagster/partition": hour_key(FIRST)}).success
        before = tables(landed)
        with connect(landed.postgres_url or "") as connection:
            connection.execute(
                "INSERT INTO ledger.hour_generation (hour, generation, up_to_batch, rows, bytes)"
                " SELECT hour, 9, up_to_batch, rows, bytes FROM ledger.hour_generation WHERE hour = %s",
                [FIRST],
            )
            connection.execute(
                "INSERT INTO ledger.publication (asset, hour, generation, rows, bytes, users_version, run_id)"
                " SELECT asset, hour, 9, rows, bytes, users_version, 'another' FROM ledger.publication"
                " WHERE asset = 'bytes_agg_user_1h' AND hour = %s",
                [FIRST],
            )
            connection.execute(
                "UPDATE ledger.publication_head SET generation = 9 WHERE asset = 'bytes_agg_user_1h'"
            )
            connection.execute("UPDATE user_metadata SET email = 'changed'")
        result = run(dagster, {"dagster/partition": hour_key(FIRST)})
        assert result.success
        (event,) = [
            one
            for one in result.asset_materializations_for_node("publish_hours")
            if one.asset_key == dg.AssetKey("bytes_agg_user_1h")
        ]
        assert event.metadata["superseded"].value == 1
    assert tables(landed)["bytes_agg_user_1h"] == before["bytes_agg_user_1h"]


def test_missing_landed_rows_stop_the_hour_before_anything_is_published(landed: Settings) -> None:
    with connect(landed.postgres_url or "") as connection:
        connection.execute("UPDATE ledger.file SET rows = rows + 1 WHERE hour = %s", [FIRST])
    with instance() as dagster:
        assert "rows as the ledger says, found" in failure(
            run(dagster, {"dagster/partition": hour_key(FIRST)})
        )
    assert generations(landed) == []


def test_dagster_job_execute_runs_an_hour_and_its_exit_code_tells(landed: Settings) -> None:
    def execute(key: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            (*EXECUTE, json.dumps({"dagster/partition": key})),
            env={**os.environ, **landed.exports()},
            capture_output=True,
            text=True,
            check=False,
        )

    assert execute(hour_key(FIRST)).returncode == 0
    assert len(generations(landed)) == len(ASSETS)
    refused = execute(hour_key(FIRST + 48 * HOUR))
    assert refused.returncode != 0
    assert "is not known to the ledger" in refused.stderr
    with connect(landed.postgres_url or "") as connection:
        connection.execute("UPDATE ledger.file SET bytes = bytes + 1 WHERE hour = %s", [FIRST])
    blocked = execute(hour_key(FIRST))
    assert blocked.returncode != 0
    assert "HoursFailed: raw_parquet, bytes_are_conserved: " in blocked.stderr
