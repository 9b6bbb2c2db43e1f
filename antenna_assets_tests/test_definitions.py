"""What Dagster sees: a snapshot of names, edges and policies, and what loading them costs."""

import ast
import subprocess
import sys
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa
import pytest

import antenna_assets
from antenna_assets.definitions import build_definitions
from antenna_assets.defs import resources
from antenna_assets.defs.period_partitions import partitions_of
from antenna_assets.defs.resources import EngineResource, spark_config
from antenna_assets.domain.schema import ASSETS
from antenna_assets.engines.transforms import transform
from antenna_assets.errors import EngineError
from antenna_assets.settings import load_settings

PACKAGE = Path(antenna_assets.__file__).parent


@pytest.fixture(scope="module")
def graph() -> Any:
    return build_definitions().resolve_asset_graph()


def test_the_lineage_goes_from_kafka_to_the_tables(graph: Any) -> None:
    edges = {
        node.key.to_user_string(): sorted(parent.to_user_string() for parent in node.parent_keys)
        for node in graph.asset_nodes
    }
    assert edges == {
        "devices": [],
        "landing": ["devices"],
        "user_metadata": [],
        "bytes_agg_antenna": ["devices"],
        "bytes_agg_user": ["devices"],
        "bytes_agg_app": ["devices"],
        "raw_parquet": ["landing"],
        "enriched_usage": ["raw_parquet", "user_metadata"],
        "bytes_agg_antenna_1h": ["enriched_usage"],
        "bytes_agg_user_1h": ["enriched_usage"],
        "bytes_agg_app_1h": ["enriched_usage"],
        "users_over_quota_1h": ["enriched_usage"],
        "bytes_agg_user_1d": ["enriched_usage"],
        "users_over_quota_1d": ["bytes_agg_user_1d", "user_metadata"],
        "users_over_quota_1mo": ["bytes_agg_user_1d", "user_metadata"],
    }


def test_days_and_months_have_partitions_of_their_own_in_the_billing_zone(graph: Any) -> None:
    definitions = {
        "bytes_agg_user_1d": (dg.DailyPartitionsDefinition, 7),
        "users_over_quota_1d": (dg.DailyPartitionsDefinition, 7),
        "users_over_quota_1mo": (dg.MonthlyPartitionsDefinition, 12),
    }
    for name, (kind, together) in definitions.items():
        node = graph.get(dg.AssetKey(name))
        assert isinstance(node.partitions_def, kind)
        assert node.partitions_def.timezone == "UTC"
        assert node.partitions_def.get_first_partition_key() == "2026-01-01"
        assert node.backfill_policy == dg.BackfillPolicy.multi_run(together)


def test_a_partition_is_a_day_of_the_billing_zone_also_where_clocks_are_set_at_midnight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANTENNA_START", "2026-01-01 00:00")
    for zone, first in {
        "America/Havana": "2025-12-31",
        "Africa/Cairo": "2026-01-01",
        "Asia/Kathmandu": "2026-01-01",
    }.items():
        monkeypatch.setenv("ANTENNA_BILLING_ZONE", zone)
        days, months = partitions_of(load_settings())
        end = datetime(2026, 12, 31, 12, tzinfo=UTC)
        keys = days.get_partition_keys(current_time=end)
        begin = date.fromisoformat(first)
        assert keys == [
            (begin + timedelta(days=n)).isoformat() for n in range((date(2026, 12, 31) - begin).days)
        ]
        assert months.get_partition_keys(current_time=end)[-1] == "2026-11-01"


def test_the_six_assets_are_hourly_in_utc_and_are_backfilled_48_hours_at_a_time(graph: Any) -> None:
    for name in ASSETS:
        node = graph.get(dg.AssetKey(name))
        assert isinstance(node.partitions_def, dg.HourlyPartitionsDefinition)
        assert node.partitions_def.timezone == "UTC"
        assert node.partitions_def.get_first_partition_key() == "2026-01-01-00:00"
        assert node.backfill_policy == dg.BackfillPolicy.multi_run(48)


def test_every_asset_says_what_a_row_is_who_owns_it_and_what_it_is_made_of(graph: Any) -> None:
    for node in graph.asset_nodes:
        assert "Key: " in node.description
        assert node.group_name != "default"
        assert node.owners == ["team:antenna-data"]
        assert node.kinds


def test_every_column_has_a_description_and_amounts_and_times_have_a_unit(graph: Any) -> None:
    for node in graph.asset_nodes:
        for column in node.metadata["dagster/column_schema"].columns:
            assert column.description, column
            if column.type.startswith(("timestamp", "int64")) and column.name != "kafka_offset":
                assert column.tags["unit"], column


def test_a_serving_table_has_its_date_and_a_lake_table_says_where_it_lies(graph: Any) -> None:
    over = graph.get(dg.AssetKey("users_over_quota_1h")).metadata
    names = [column.name for column in over["dagster/column_schema"].columns]
    assert names == ["date", "id", "email", "quota", "sum_user_bytes"]
    assert over["dagster/table_name"] == "public.users_over_quota_1h"
    lake = build_definitions().resources["lake"].root  # type: ignore[index]
    assert graph.get(dg.AssetKey("raw_parquet")).metadata["dagster/uri"] == f"{lake}/raw_parquet"


def test_every_column_comes_from_the_topic_or_from_the_users(graph: Any) -> None:
    lineage = {node.key: node.metadata["dagster/column_lineage"].deps_by_column for node in graph.asset_nodes}
    schemas = {
        node.key: [column.name for column in node.metadata["dagster/column_schema"].columns]
        for node in graph.asset_nodes
    }

    def origin(asset: dg.AssetKey, column: str) -> tuple[str, str]:
        assert column in schemas[asset]
        if not lineage[asset]:
            return asset.to_user_string(), column
        (parent,) = lineage[asset][column]
        assert parent.asset_key in graph.get(asset).parent_keys
        return origin(parent.asset_key, parent.column_name)

    origins = {
        (asset.to_user_string(), column): origin(asset, column)
        for asset in schemas
        for column in schemas[asset]
    }
    assert origins["users_over_quota_1h", "date"] == ("devices", "timestamp")
    assert origins["users_over_quota_1h", "sum_user_bytes"] == ("devices", "bytes")
    assert origins["users_over_quota_1h", "quota"] == ("user_metadata", "quota")
    assert origins["bytes_agg_antenna", "sum_antenna_bytes"] == ("devices", "bytes")
    assert {asset for asset, _ in origins.values()} == {"devices", "user_metadata"}


def test_an_asset_shows_its_sql(graph: Any) -> None:
    for name in ASSETS:
        metadata = graph.get(dg.AssetKey(name)).metadata
        assert f"{transform(name)}\n```" in metadata["sql"].value
        (reference,) = metadata["dagster/code_references"].code_references
        assert Path(reference.file_path).read_text(encoding="utf-8").strip() == transform(name)


def test_every_check_says_what_it_claims_and_only_wrong_numbers_block(graph: Any) -> None:
    checks = {key: graph.get(key) for key in graph.asset_check_keys}
    assert all(check.description for check in checks.values())
    blocking = {key.name for key, check in checks.items() if check.blocking}
    assert blocking == {
        "bytes_are_conserved",
        "keys_are_unique",
        "no_negative_bytes",
        "over_quota_is_exact",
        "quota_periods_add_up",
    }
    assert {key.name for key in checks} - blocking == {
        "live_equals_hourly",
        "known_users_share",
        "volume_is_usual",
        "hours_are_fresh",
    }


def test_hours_have_one_job_and_one_sensor_and_steps_share_a_process() -> None:
    definitions = build_definitions()
    job = definitions.resolve_job_def("hourly_usage")
    assert sorted(node.name for node in job.nodes) == ["publish_hours", "users_over_quota_1h_hours_are_fresh"]
    assert job.executor_def is dg.in_process_executor
    assert {node.definition.pool for node in job.nodes} == {"hours"}
    assert [sensor.name for sensor in definitions.sensors or []] == ["closed_hours", "ended_periods"]


def test_spark_is_a_master_or_a_server_of_spark_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTENNA_SPARK_MASTER", "local[3]")
    assert spark_config(load_settings())["spark.master"] == "local[3]"
    monkeypatch.delenv("ANTENNA_SPARK_MASTER")
    monkeypatch.setenv("ANTENNA_SPARK_REMOTE", "sc://127.0.0.1")
    # What else a session is given is for its own Java, and here there is none.
    assert spark_config(load_settings()) == {"spark.remote": "sc://127.0.0.1"}


def test_spark_connect_without_its_packages_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "find_spec", lambda _name: None)
    with pytest.raises(EngineError, match=r"pip install 'antenna-assets\[connect\]'"):
        EngineResource(name="spark", spark_config={"spark.remote": "sc://127.0.0.1"}).start()


@pytest.mark.parametrize(
    ("most_rows", "one_thread"), [(0, True), (122_880, True), (122_881, False), (None, False)]
)
def test_hours_of_one_row_group_are_published_with_one_thread(
    most_rows: int | None, one_thread: bool, tmp_path: Path
) -> None:
    with duckdb.connect() as connection:
        (all_of_them,) = connection.execute("SELECT current_setting('threads')").fetchall()[0]
    with closing(EngineResource(spill_folder=str(tmp_path)).start(most_rows)) as engine:
        schema = pa.schema([("threads", pa.int64())])
        found = engine.read("SELECT current_setting('threads') AS threads", {}, schema)
    assert found.column("threads").to_pylist() == [1 if one_thread else all_of_them]


def test_a_resource_can_be_replaced() -> None:
    class Replacement(dg.ConfigurableResource):
        pass

    replacement = Replacement()
    assert (build_definitions({"lake": replacement}).resources or {})["lake"] is replacement


def reads_of_the_environment(source: str) -> list[str]:
    """Expressions that take a value out of the environment, other than to pass on the environment as a whole."""
    tree = ast.parse(source)
    parents = {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            found += [
                ast.unparse(node) for name in node.names if name.name in ("environ", "environb", "getenv")
            ]
        if not (isinstance(node, ast.Attribute) and ast.unparse(node.value) == "os"):
            continue
        if node.attr in ("getenv", "environb"):
            found.append(ast.unparse(node))
        if node.attr != "environ":
            continue
        parent = parents[node]
        whole = (
            isinstance(parent, ast.Call)
            or (isinstance(parent, ast.Dict) and None in parent.keys)
            or (isinstance(parent, ast.Attribute) and parent.attr in ("items", "keys", "copy"))
        )
        written = (
            (isinstance(parent, ast.Attribute) and parent.attr in ("update", "clear"))
            or (isinstance(parent, ast.Subscript) and not isinstance(parent.ctx, ast.Load))
            or (
                # Its value is not used.
                isinstance(parent, ast.Attribute)
                and parent.attr == "setdefault"
                and isinstance(parents[parents[parent]], ast.Expr)
            )
        )
        if not (whole or written):
            found.append(ast.unparse(parent))
    return found


def test_only_the_settings_read_the_environment() -> None:
    reading = {
        path.name: found
        for path in PACKAGE.rglob("*.py")
        if (found := reads_of_the_environment(path.read_text(encoding="utf-8")))
    }
    # The umask is in force before anything else is imported.
    assert reading.keys() == {"settings.py", "file_modes.py"}, reading


@pytest.mark.parametrize(
    ("source", "reads"),
    [
        ("os.environ.get('A')", ["os.environ.get"]),
        ("os.getenv('A')", ["os.getenv"]),
        ("os.environ['A']", ["os.environ['A']"]),
        ("'A' in os.environ", ["'A' in os.environ"]),
        ("found = os.environ.setdefault('A', 'b')", ["os.environ.setdefault"]),
        ("from os import environ", ["from os import environ"]),
        ("run(env={**os.environ, 'A': 'b'})", []),
        ("os.environ['A'] = 'b'", []),
        ("os.environ.setdefault('A', 'b')", []),
    ],
)
def test_passing_the_environment_on_is_not_reading_it(source: str, reads: list[str]) -> None:
    assert reads_of_the_environment(source) == reads


def test_loading_the_definitions_imports_no_engine() -> None:
    program = (
        "import sys, antenna_assets.definitions\n"
        "print(*sorted({'pyspark', 'pandas', 'duckdb', 'deltalake', 'confluent_kafka'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


@pytest.mark.parametrize(
    "command",
    [
        ("dagster", "definitions", "validate", "-m", "antenna_assets.definitions"),
        ("dagster", "definitions", "validate", "-w", "workspace.yaml"),
        ("dg", "check", "defs"),
    ],
)
def test_dagsters_own_checks_of_the_definitions_pass(command: tuple[str, ...]) -> None:
    program = Path(sys.executable).with_name(command[0])
    run = subprocess.run(
        [program, *command[1:]], cwd=PACKAGE.parent, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
