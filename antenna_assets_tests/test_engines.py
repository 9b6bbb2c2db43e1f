"""What every engine promises: the same rows, types and errors from one SQL text."""

import os
import random
import string
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antenna_assets.domain.schema import (
    ENRICHED_USAGE,
    HOURLY_TABLES,
    LANDED_SCHEMA,
    QUOTA_OF_THEN,
    RAW_PARQUET,
    USERS,
)
from antenna_assets.engines.contract import Dataset, WrittenFile
from antenna_assets.engines.duckdb import DuckDBEngine
from antenna_assets.engines.spark import SparkEngine
from antenna_assets.engines.transforms import transform
from antenna_assets.errors import EngineError

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)

USER_ROWS = [
    ("u1", "andrés", "andres@gmail.com", 200_000),
    ("u2", "paco", "paco@gmail.com", 2**37),
]

EVENTS = [
    (TEN, "vidéo 📺", "u1", "antenna-1", 2**36, 0, 0),
    (TEN + timedelta(microseconds=1), "vidéo 📺", "u1", "antenna-1", 2**36, 0, 1),
    (TEN + timedelta(minutes=59, seconds=59, microseconds=999_999), "it's", "u2", "antenna-2", 2**36, 1, 0),
    (TEN, "it's", "u2", "antenna-2", 2**36, 1, 1),
    (TEN, "it's", "stranger", "antenna-1", 7, 1, 2),
    (TEN, "it's", "u1", "antenna-2", 0, 1, 3),
]


@pytest.fixture(scope="module")
def engine_session(spark):
    # A session of its own: the engine's configuration stays out of other tests.
    return spark.newSession()


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    with_close = []

    def make(name, request):
        if name == "spark":
            session = request.getfixturevalue("engine_session")
            engine = SparkEngine(lambda: session)
        else:
            engine = DuckDBEngine(threads=2, temp_directory=str(tmp_path_factory.mktemp("spill")))
        with_close.append(engine)
        return engine

    yield make
    for engine in with_close:
        engine.close()


@pytest.fixture(scope="module", params=["duckdb", pytest.param("spark", marks=pytest.mark.services)])
def engine(request, engines):
    return engines(request.param, request)


def table(schema: pa.Schema, rows: list[tuple]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema=schema)


def dataset(path: Path, schema: pa.Schema, rows: list[tuple]) -> Dataset:
    pq.write_table(table(schema, rows), path)
    return Dataset([str(path)], schema)


def rows(found: pa.Table) -> list[tuple]:
    return sorted(tuple(row.values()) for row in found.to_pylist())


def stored(files: list[WrittenFile]) -> pa.Table:
    return pa.concat_tables([pq.read_table(file.path, partitioning=None) for file in files])


def enriched(
    engine,
    folder: Path,
    events: list[tuple],
    users: list[tuple] = USER_ROWS,
    quotas: list[tuple] | None = None,
) -> list[WrittenFile]:
    """The first two transformations, as the assets run them."""
    folder.mkdir()
    landed = dataset(folder / "landed.parquet", LANDED_SCHEMA, events)
    raw = engine.write(transform("raw_parquet"), {"landed": landed}, RAW_PARQUET, str(folder / "raw"))
    inputs = {
        "raw_parquet": Dataset([file.path for file in raw], RAW_PARQUET),
        "user_metadata": dataset(folder / "users.parquet", USERS, users),
        # Without a file, as in most hours.
        "quota_of_then": Dataset([], QUOTA_OF_THEN)
        if quotas is None
        else dataset(folder / "quotas.parquet", QUOTA_OF_THEN, quotas),
    }
    return engine.write(transform("enriched_usage"), inputs, ENRICHED_USAGE, str(folder / "enriched"))


def hourly(engine, files: list[WrittenFile], name: str) -> pa.Table:
    inputs = {"enriched_usage": Dataset([file.path for file in files], ENRICHED_USAGE)}
    return engine.read(transform(name), inputs, HOURLY_TABLES[name].columns)


def test_raw_parquet_is_what_landed(engine, tmp_path):
    landed = [
        dataset(tmp_path / f"{number}.parquet", LANDED_SCHEMA, part).files[0]
        for number, part in enumerate((EVENTS[:2], EVENTS[2:]))
    ]
    files = engine.write(
        transform("raw_parquet"),
        {"landed": Dataset(landed, LANDED_SCHEMA)},
        RAW_PARQUET,
        str(tmp_path / "out"),
    )
    assert rows(stored(files).cast(RAW_PARQUET)) == sorted(EVENTS)


def test_enriched_usage_keeps_the_bytes_of_unknown_users(engine, tmp_path):
    files = enriched(engine, tmp_path / "hour", EVENTS)
    found = {(row["id"], row["name"], row["email"], row["quota"]) for row in stored(files).to_pylist()}
    assert found == {*USER_ROWS, ("stranger", None, None, None)}
    assert sum(file.rows for file in files) == len(EVENTS)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bytes_agg_antenna_1h", [("antenna-1", 2**37 + 7), ("antenna-2", 2**37)]),
        ("bytes_agg_app_1h", [("it's", 2**37 + 7), ("vidéo 📺", 2**37)]),
        (
            "bytes_agg_user_1h",
            [("stranger", None, 7), ("u1", "andres@gmail.com", 2**37), ("u2", "paco@gmail.com", 2**37)],
        ),
        # u2 is at its quota, which is not above it.
        ("users_over_quota_1h", [("u1", "andres@gmail.com", 200_000, 2**37)]),
    ],
)
def test_the_hourly_sums(engine, tmp_path, name, expected):
    found = hourly(engine, enriched(engine, tmp_path / "hour", EVENTS), name)
    assert rows(found) == expected
    assert found.schema.equals(HOURLY_TABLES[name].columns, check_metadata=True)


@pytest.mark.parametrize(
    ("then", "over"),
    [
        ([("u1", None)], []),
        ([("u1", 2**37)], []),
        ([("u1", 2**37 - 1), ("u2", 0), ("stranger", 0)], [("u1", 2**37 - 1), ("u2", 0)]),
    ],
)
def test_the_quota_of_then_counts_and_not_that_of_the_user(engine, tmp_path, then, over):
    files = enriched(engine, tmp_path / "then", EVENTS, quotas=then)
    found = hourly(engine, files, "users_over_quota_1h").to_pylist()
    # An unknown user has no quota, whatever it was then.
    assert sorted((row["id"], row["quota"]) for row in found) == over


def test_an_hour_without_events_has_no_files_and_no_rows(engine, tmp_path):
    inputs = {"landed": Dataset([], LANDED_SCHEMA)}
    assert engine.write(transform("raw_parquet"), inputs, RAW_PARQUET, str(tmp_path / "a" / "raw")) == []
    assert not (tmp_path / "a" / "raw").exists()
    assert enriched(engine, tmp_path / "hour", []) == []
    for name in HOURLY_TABLES:
        found = hourly(engine, [], name)
        assert found.num_rows == 0
        assert found.schema == HOURLY_TABLES[name].columns


def test_without_users_all_are_unknown(engine, tmp_path):
    files = enriched(engine, tmp_path / "hour", EVENTS, users=[])
    assert rows(hourly(engine, files, "users_over_quota_1h")) == []
    assert sum(row[2] for row in rows(hourly(engine, files, "bytes_agg_user_1h"))) == 4 * 2**36 + 7


@pytest.mark.services
def test_the_engines_agree_on_a_random_hour(engines, request, tmp_path):
    chance = random.Random(20261122)
    letters = string.ascii_letters + " '\"\\%_/é漢😀\t"
    text = ["".join(chance.choices(letters, k=chance.randint(1, 12))) for _ in range(60)]
    events = [
        (
            TEN + timedelta(microseconds=chance.randrange(3_600_000_000)),
            chance.choice(text),
            chance.choice(text),
            chance.choice(text),
            chance.randint(0, 2**36),
            offset % 3,
            offset,
        )
        for offset in range(5_000)
    ]
    users = [(id_, id_.upper(), f"{id_}@x", chance.randint(0, 2**43)) for id_ in dict.fromkeys(text[:40])]
    duck, spark = engines("duckdb", request), engines("spark", request)

    by_duck, by_spark = (enriched(one, tmp_path / one.name, events, users) for one in (duck, spark))
    assert rows(stored(by_duck).select(["kafka_offset"])) == rows(stored(by_spark).select(["kafka_offset"]))
    for name in HOURLY_TABLES:
        # Either engine reads what the other wrote.
        found = [hourly(one, files, name) for one in (duck, spark) for files in (by_duck, by_spark)]
        assert rows(found[0])
        assert all(rows(other) == rows(found[0]) and other.schema == found[0].schema for other in found)


def test_files_are_zstd_with_utc_microseconds_and_nothing_lies_beside_them(engine, tmp_path):
    files = enriched(engine, tmp_path / "hour", EVENTS)
    assert len(files) == 1
    assert [str(path) for path in (tmp_path / "hour" / "enriched").iterdir()] == [files[0].path]
    assert files[0].size == Path(files[0].path).stat().st_size
    footer = pq.read_metadata(files[0].path)
    assert footer.row_group(0).column(0).compression == "ZSTD"
    assert footer.row_group(0).column(0).physical_type == "INT64"
    types = footer.schema.to_arrow_schema()
    assert {name: types.field(name).type for name in types.names} == {
        field.name: field.type for field in ENRICHED_USAGE
    }


@pytest.mark.parametrize("name", ["it's a b.parquet", 'q"uote.parquet', "x[1]*?.parquet", "é{a,b}.parquet"])
def test_file_and_folder_names_are_taken_literally(engine, tmp_path, name):
    folder = tmp_path / "o'p [1] hour=3"
    folder.mkdir()
    # What the name would match as a pattern.
    dataset(folder / "x1yz.parquet", LANDED_SCHEMA, EVENTS)
    landed = dataset(folder / name, LANDED_SCHEMA, EVENTS[:1])
    files = engine.write(transform("raw_parquet"), {"landed": landed}, RAW_PARQUET, str(folder / "it's *[0]"))
    assert rows(stored(files).cast(RAW_PARQUET)) == EVENTS[:1]
    again = Dataset([file.path for file in files], RAW_PARQUET)
    assert rows(engine.read(transform("raw_parquet"), {"landed": again}, RAW_PARQUET)) == EVENTS[:1]


def test_folders_that_look_like_partitions_add_no_column(engine, tmp_path):
    folder = tmp_path / "bytes=1" / "hour=2026112210"
    folder.mkdir(parents=True)
    landed = dataset(folder / "part.parquet", LANDED_SCHEMA, EVENTS[:2])
    assert rows(engine.read(transform("raw_parquet"), {"landed": landed}, RAW_PARQUET)) == EVENTS[:2]


NO_FIT = {
    "columns": (
        "SELECT app, id FROM landed",
        "expected the columns timestamp, app, id, .*; found app, id",
    ),
    "order": (
        "SELECT app, timestamp, id, antenna_id, bytes, kafka_partition, kafka_offset FROM landed",
        "found app, timestamp",
    ),
    "type": (
        "SELECT timestamp, app, id, antenna_id, CAST(bytes AS INTEGER) AS bytes, kafka_partition, kafka_offset FROM landed",
        "bytes: expected int64, found int32",
    ),
    "zone": (
        "SELECT CAST('2026-11-22 10:00:00' AS DATE) AS timestamp, app, id, antenna_id, bytes, kafka_partition, kafka_offset"
        " FROM landed",
        r"timestamp: expected timestamp\[us, tz=UTC\], found date32\[day\]",
    ),
    "null": (
        "SELECT timestamp, app, id, nullif(antenna_id, 'antenna-1') AS antenna_id, bytes, kafka_partition, kafka_offset"
        " FROM landed",
        r"found some in antenna_id \(3\)",
    ),
    "syntax": ("SELECT app FROM landed WHERE (", "(?i)syntax error"),
    "table": ("SELECT * FROM nowhere", "nowhere"),
}


@pytest.mark.parametrize("case", NO_FIT)
def test_a_result_that_does_not_fit_is_an_error_and_leaves_nothing(engine, tmp_path, case):
    sql, message = NO_FIT[case]
    inputs = {"landed": dataset(tmp_path / "landed.parquet", LANDED_SCHEMA, EVENTS)}
    with pytest.raises(EngineError, match=message):
        engine.write(sql, inputs, LANDED_SCHEMA, str(tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["landed.parquet"]
    with pytest.raises(EngineError, match=message):
        engine.read(sql, inputs, LANDED_SCHEMA)


def test_a_sum_beyond_64_bits_is_an_error_not_a_wrong_number(engine, tmp_path):
    huge = [(TEN, "a", "u1", "x", 2**63 - 1, 0, offset) for offset in range(2)]
    files = enriched(engine, tmp_path / "hour", huge)
    with pytest.raises(EngineError, match=r"(?i)overflow|out of range"):
        hourly(engine, files, "bytes_agg_app_1h")


def test_a_missing_input_file_is_named(engine, tmp_path):
    with pytest.raises(EngineError, match=r"gone\.parquet"):
        engine.read(
            transform("raw_parquet"),
            {"landed": Dataset([str(tmp_path / "gone.parquet")], LANDED_SCHEMA)},
            LANDED_SCHEMA,
        )


def test_a_missing_file_is_not_taken_for_a_pattern(engine, tmp_path):
    dataset(tmp_path / "x1.parquet", LANDED_SCHEMA, EVENTS)
    with pytest.raises(EngineError):
        engine.read(
            transform("raw_parquet"),
            {"landed": Dataset([str(tmp_path / "x[1].parquet")], LANDED_SCHEMA)},
            LANDED_SCHEMA,
        )


def test_an_input_without_a_column_is_an_error(engine, tmp_path):
    path = tmp_path / "old.parquet"
    pq.write_table(table(LANDED_SCHEMA, EVENTS).drop_columns(["kafka_offset"]), path)
    with pytest.raises(EngineError, match="kafka_offset"):
        engine.read(
            "SELECT app FROM landed",
            {"landed": Dataset([str(path)], LANDED_SCHEMA)},
            pa.schema([LANDED_SCHEMA.field("app")]),
        )


def test_a_folder_is_never_written_twice(engine, tmp_path):
    inputs = {"landed": dataset(tmp_path / "landed.parquet", LANDED_SCHEMA, EVENTS)}
    files = engine.write(transform("raw_parquet"), inputs, RAW_PARQUET, str(tmp_path / "out"))
    with pytest.raises(EngineError, match=r"does not exist yet, found .*out"):
        engine.write(transform("raw_parquet"), inputs, RAW_PARQUET, str(tmp_path / "out"))
    assert Path(files[0].path).exists()


def test_calls_at_the_same_time_see_their_own_inputs_only(engine, tmp_path):
    def count(number: int) -> int:
        landed = dataset(tmp_path / f"{number}.parquet", LANDED_SCHEMA, EVENTS[:number])
        sql, schema = (
            "SELECT count(*) AS n FROM landed",
            pa.schema([pa.field("n", pa.int64(), nullable=False)]),
        )
        return engine.read(sql, {"landed": landed}, schema)["n"][0].as_py()

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(count, range(1, 7))) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("inputs", [{}, {"raw": Dataset([], RAW_PARQUET)}], ids=["none", "an empty one"])
def test_a_select_may_end_in_a_comment(engine, tmp_path, inputs):
    sums = pa.schema([pa.field("n", pa.int32(), nullable=False)])
    (written,) = engine.write("SELECT 1 AS n -- the end", inputs, sums, str(tmp_path / "folder"))
    assert written.rows == 1


def test_rows_are_streamed_in_their_order_a_batch_at_a_time(engine, tmp_path, request):
    if engine.name == "spark":
        # Several tasks, each with a part of the order, though there is little to sort.
        session = request.getfixturevalue("engine_session")
        session.conf.set("spark.sql.adaptive.coalescePartitions.enabled", "false")
        request.addfinalizer(lambda: session.conf.unset("spark.sql.adaptive.coalescePartitions.enabled"))
    ids = [f"user {number * 7919 % 250_000:06}é" for number in range(250_000)]
    sums = pa.schema({"id": pa.string(), "bytes": pa.int64()})
    pq.write_table(pa.table({"id": ids, "bytes": range(250_000)}, schema=sums), tmp_path / "sums.parquet")
    inputs = {"sums": Dataset([str(tmp_path / "sums.parquet")], sums)}
    select = "SELECT id, bytes FROM sums ORDER BY id"
    with engine.stream(select, inputs, sums, str(tmp_path / "scratch")) as streamed:
        batches = list(streamed)
    assert [row for batch in batches for row in batch["id"].to_pylist()] == sorted(ids)
    assert max(batch.num_rows for batch in batches) <= 100_000
    if engine.name == "spark":
        assert len(list((tmp_path / "scratch").glob("*.parquet"))) > 1


def test_a_stream_without_rows_has_no_batch_with_rows(engine, tmp_path):
    empty = Dataset([], RAW_PARQUET)
    select = "SELECT * FROM raw ORDER BY id"
    with engine.stream(select, {"raw": empty}, RAW_PARQUET, str(tmp_path / "scratch")) as streamed:
        assert sum(batch.num_rows for batch in streamed) == 0


def test_duckdb_computes_in_utc_in_every_zone_of_the_machine():
    # In a process of its own: DuckDB looks up the machine's zone once.
    program = """
import pyarrow as pa
from antenna_assets.engines.duckdb import DuckDBEngine
sql = "SELECT date_trunc('day', TIMESTAMPTZ '2026-11-22 20:00:00Z') AS day"
print(DuckDBEngine().read(sql, {}, pa.schema([("day", pa.timestamp("us", tz="UTC"))]))["day"][0])
"""
    elsewhere = {**os.environ, "TZ": "Asia/Kathmandu"}
    found = subprocess.run([sys.executable, "-c", program], env=elsewhere, capture_output=True, text=True)
    assert found.stdout == "2026-11-22 00:00:00+00:00\n", found.stderr


def test_a_closed_engine_says_so(engine, request):
    other = (
        SparkEngine(lambda: request.getfixturevalue("engine_session"))
        if engine.name == "spark"
        else DuckDBEngine()
    )
    other.read("SELECT 1 AS n", {}, pa.schema([("n", pa.int32())]))
    other.close()
    other.close()
    with pytest.raises(EngineError, match="closed"):
        other.read("SELECT 1 AS n", {}, pa.schema([("n", pa.int32())]))
