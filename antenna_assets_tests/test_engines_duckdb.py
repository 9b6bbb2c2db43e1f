"""What only the embedded engine promises: spilling, isolation from Python and the network, object stores by fsspec."""

import os
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antenna_assets.domain.schema import (
    ENRICHED_USAGE,
    HOURLY_TABLES,
    LANDED_SCHEMA,
    QUOTA_OF_THEN,
    RAW_PARQUET,
    USERS,
)
from antenna_assets.engines.contract import Dataset
from antenna_assets.engines.duckdb import DuckDBEngine
from antenna_assets.engines.transforms import transform
from antenna_assets.errors import EngineError
from antenna_assets_tests.faults.small_disk import small_disk

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
COUNT = pa.schema([pa.field("n", pa.int64(), nullable=False)])

text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
names = st.sampled_from(["u1", "u2", "U1", "ü", " u1"]) | text
events = st.lists(
    st.tuples(st.timedeltas(timedelta(0), timedelta(minutes=59)), text, names, names, st.integers(0, 2**36)),
    max_size=30,
)
quotas = st.dictionaries(names, st.integers(0, 2**38), max_size=6)


@pytest.fixture(scope="module")
def engine():
    engine = DuckDBEngine(threads=2)
    yield engine
    engine.close()


@settings(max_examples=40)
@given(events, quotas)
def test_the_transformations_are_what_a_loop_in_python_says(engine, events, quotas):
    landed = pa.Table.from_pylist(
        [
            dict(zip(LANDED_SCHEMA.names, (TEN + late, app, id_, antenna, count, 0, offset), strict=True))
            for offset, (late, app, id_, antenna, count) in enumerate(events)
        ],
        schema=LANDED_SCHEMA,
    )
    users = pa.Table.from_pylist(
        [{"id": id_, "name": "n", "email": f"{id_}@x", "quota": quota} for id_, quota in quotas.items()],
        schema=USERS,
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, table in {"landed": landed, "users": users}.items():
            pq.write_table(table, f"{folder}/{name}.parquet")
        raw = engine.write(
            transform("raw_parquet"),
            {"landed": Dataset([f"{folder}/landed.parquet"], LANDED_SCHEMA)},
            RAW_PARQUET,
            f"{folder}/raw",
        )
        enriched = engine.write(
            transform("enriched_usage"),
            {
                "raw_parquet": Dataset([file.path for file in raw], RAW_PARQUET),
                "user_metadata": Dataset([f"{folder}/users.parquet"], USERS),
                "quota_of_then": Dataset([], QUOTA_OF_THEN),
            },
            ENRICHED_USAGE,
            f"{folder}/enriched",
        )
        inputs = {"enriched_usage": Dataset([file.path for file in enriched], ENRICHED_USAGE)}
        found = {
            name: {
                tuple(row.values()) for row in engine.read(transform(name), inputs, table.columns).to_pylist()
            }
            for name, table in HOURLY_TABLES.items()
        }

    sums: list[dict[str, int]] = [{}, {}, {}]
    for _, app, id_, antenna, count in events:
        for by, key in zip(sums, (antenna, id_, app), strict=True):
            by[key] = by.get(key, 0) + count
    by_antenna, by_user, by_app = sums
    assert found == {
        "bytes_agg_antenna_1h": set(by_antenna.items()),
        "bytes_agg_app_1h": set(by_app.items()),
        "bytes_agg_user_1h": {(id_, f"{id_}@x" if id_ in quotas else None, n) for id_, n in by_user.items()},
        "users_over_quota_1h": {
            (id_, f"{id_}@x", quotas[id_], n) for id_, n in by_user.items() if n > quotas.get(id_, n)
        },
    }


def test_an_hour_beyond_the_memory_limit_spills_and_leaves_nothing_behind(tmp_path):
    engine = DuckDBEngine(threads=2, memory_limit="120MB", temp_directory=str(tmp_path / "spill"))
    sql = (
        "SELECT count(*) AS n FROM (SELECT i, row_number() OVER (ORDER BY hash(i)) AS place"
        " FROM range(4000000) AS numbers(i)) WHERE place > 0"
    )
    assert engine.read(sql, {}, COUNT)["n"].to_pylist() == [4_000_000]
    assert len(list((tmp_path / "spill").iterdir())) == 1
    engine.close()
    assert list((tmp_path / "spill").iterdir()) == []


@pytest.mark.services
def test_an_hour_beyond_memory_on_a_full_disk_says_so_and_writes_nothing(tmp_path):
    target = tmp_path / "hour"
    with small_disk(tmp_path / "disk", megabytes=16) as disk:
        said = disk.call(error_of_a_sort, str(disk.path / "spill"), str(target))
    assert "failed to offload data" in said
    assert f"it spills to {tmp_path}/disk/spill/antenna-duckdb-" in said
    assert "MiB free): free space there" in said
    assert len(said.splitlines()) == 1
    assert not target.exists()


def error_of_a_sort(spill: str, target: str) -> str:
    """Sort 4,000,000 rows within 120 MB; the error that says that it cannot be."""
    engine = DuckDBEngine(threads=2, memory_limit="120MB", temp_directory=spill)
    try:
        engine.write("SELECT i AS n FROM range(4000000) AS numbers(i) ORDER BY hash(i)", {}, COUNT, target)
    except EngineError as error:
        return str(error)
    finally:
        engine.close()
    raise AssertionError("expected an error")


def test_two_engines_with_the_same_temporary_directory_do_not_share_spill_files(tmp_path):
    engines = [DuckDBEngine(temp_directory=str(tmp_path)) for _ in range(2)]
    for engine in engines:
        engine.read("SELECT count(*) AS n FROM range(3)", {}, COUNT)
    assert len(list(tmp_path.iterdir())) == 2
    for engine in engines:
        engine.close()


def test_spill_folders_of_engines_that_were_killed_long_ago_are_removed(tmp_path):
    old, young = tmp_path / "antenna-duckdb-old", tmp_path / "antenna-duckdb-young"
    for folder in (old, young):
        folder.mkdir()
        (folder / "spilled.tmp").write_bytes(b"rows")
    five_hours_ago = time.time() - 5 * 3600
    os.utime(old, (five_hours_ago, five_hours_ago))
    engine = DuckDBEngine(temp_directory=str(tmp_path))
    engine.read("SELECT count(*) AS n FROM range(3)", {}, COUNT)
    engine.close()
    assert list(tmp_path.iterdir()) == [young]


def test_a_variable_of_python_is_no_table(engine):
    with pytest.raises(EngineError, match="connection does not exist"):
        engine.read("SELECT count(*) AS n FROM connection", {}, COUNT)


def test_no_extension_is_downloaded(engine):
    with pytest.raises(EngineError, match="extension"):
        engine.read("SELECT count(*) AS n FROM read_xlsx('/nowhere.xlsx')", {}, COUNT)


def test_an_object_store_is_reached_through_fsspec(engine):
    landed = pa.Table.from_pylist(
        [dict(zip(LANDED_SCHEMA.names, (TEN, "app", "u1", "x", 5, 0, 0), strict=True))], schema=LANDED_SCHEMA
    )
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(landed, f"{folder}/landed.parquet")
        inputs = {"landed": Dataset([f"{folder}/landed.parquet"], LANDED_SCHEMA)}
        files = engine.write(transform("raw_parquet"), inputs, RAW_PARQUET, "memory://lake/raw/g1")
    assert [(file.path, file.rows) for file in files] == [("memory://lake/raw/g1/part-0.parquet", 1)]
    again = engine.read(
        "SELECT bytes AS n FROM landed", {"landed": Dataset([files[0].path], LANDED_SCHEMA)}, COUNT
    )
    assert again["n"].to_pylist() == [5]


def test_a_store_that_fsspec_does_not_know_is_named(engine):
    with pytest.raises(EngineError, match="nostore:// is reached through fsspec"):
        engine.read(
            "SELECT count(*) AS n FROM landed",
            {"landed": Dataset(["nostore://x.parquet"], LANDED_SCHEMA)},
            COUNT,
        )


def test_a_big_result_is_cut_into_files(engine, tmp_path, monkeypatch):
    monkeypatch.setattr("antenna_assets.engines.duckdb.MAX_FILE_SIZE", 2**20)
    sql = "SELECT CAST(hash(i) >> 1 AS BIGINT) AS n FROM range(500000) AS numbers(i)"
    files = engine.write(sql, {}, COUNT, str(tmp_path / "out"))
    assert len(files) > 1
    assert sum(file.rows for file in files) == 500_000
    found = duckdb.read_parquet([file.path for file in files]).aggregate("count(distinct n)")
    assert found.fetchall() == [(500_000,)]


def test_files_and_the_folders_that_lead_to_them_are_synced(engine, tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(
        "os.fsync", lambda descriptor: synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
    )
    target = tmp_path / "year=2026" / "g1"
    files = engine.write("SELECT CAST(1 AS BIGINT) AS n", {}, COUNT, str(target))
    assert synced == [Path(files[0].path), target, target.parent, tmp_path]


def test_a_file_in_the_way_is_named(engine, tmp_path):
    (tmp_path / "lake").write_text("not a folder")
    with pytest.raises(EngineError, match="cannot create the folder .*lake/out|found .*lake; use a new one"):
        engine.write("SELECT CAST(1 AS BIGINT) AS n", {}, COUNT, str(tmp_path / "lake" / "out"))
