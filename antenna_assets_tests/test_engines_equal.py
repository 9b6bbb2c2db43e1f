"""The two engines are one: any hour through either gives the same rows of the same types, in every table."""

import os
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pyspark
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from antenna_assets.domain.schema import (
    ENRICHED_USAGE,
    HOURLY_TABLES,
    LANDED_SCHEMA,
    LIVE_TABLES,
    MAX_BYTES,
    OWN_WINDOWS,
    QUOTA_OF_THEN,
    RAW_PARQUET,
    REJECTED_SCHEMA,
    USERS,
    WINDOW,
)
from antenna_assets.engines.contract import Dataset, Engine
from antenna_assets.engines.duckdb import DuckDBEngine
from antenna_assets.engines.spark import SparkEngine
from antenna_assets.engines.spark_session import configuration, use_java
from antenna_assets.engines.transforms import transform
from antenna_assets.ledger.batch import BatchContent
from antenna_assets.publishing.days import COMPUTED, ORDERED
from antenna_assets.streaming.read_back import WrittenAttempt, read_back
from antenna_assets_tests.faults.live import wait_until
from antenna_assets_tests.free_ports import free_port
from benchmarks.hour_data import events_select, users_select

pytestmark = pytest.mark.services

PROJECT = Path(__file__).parents[1]
TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
Tables = dict[str, pa.Table]


@pytest.fixture(scope="module")
def engines(spark, tmp_path_factory):
    # A session of its own: the engine's configuration stays out of other tests.
    session = spark.newSession()
    both = [DuckDBEngine(temp_directory=str(tmp_path_factory.mktemp("spill"))), SparkEngine(lambda: session)]
    yield both
    for engine in both:
        engine.close()


def through(
    engine: Engine, landed: list[str], users: str, folder: Path
) -> tuple[list[str], list[str], Tables]:
    """The files of the two lake tables, and the four serving tables sorted by all of their columns."""
    raw = engine.write(
        transform("raw_parquet"), {"landed": Dataset(landed, LANDED_SCHEMA)}, RAW_PARQUET, str(folder / "raw")
    )
    raw_files = [file.path for file in raw]
    inputs = {
        "raw_parquet": Dataset(raw_files, RAW_PARQUET),
        "user_metadata": Dataset([users], USERS),
        "quota_of_then": Dataset([], QUOTA_OF_THEN),
    }
    enriched = engine.write(transform("enriched_usage"), inputs, ENRICHED_USAGE, str(folder / "enriched"))
    enriched_files = [file.path for file in enriched]
    usage = {"enriched_usage": Dataset(enriched_files, ENRICHED_USAGE)}
    tables = {
        name: _sorted(engine.read(transform(name), usage, table.columns))
        for name, table in HOURLY_TABLES.items()
    }
    return raw_files, enriched_files, tables


def _sorted(table: pa.Table) -> pa.Table:
    return table.sort_by([(name, "ascending") for name in table.schema.names]).combine_chunks()


def _stored(files: list[str], schema: pa.Schema) -> pa.Table:
    tables = [pq.read_table(file, partitioning=None) for file in files]
    if not tables:
        return schema.empty_table()
    # Types as they are in the files; whether a column may be null, a parquet writer decides by itself.
    assert {tuple((field.name, field.type) for field in table.schema) for table in tables} == {
        tuple((field.name, field.type) for field in schema)
    }
    return _sorted(pa.concat_tables(tables).cast(schema))


# Any text that the stream lets through: UTF-8 without NUL. The two engines order and compare texts by code point.
texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=12)
known = st.lists(texts, min_size=1, max_size=6, unique=True)


@st.composite
def hours(draw: Callable) -> tuple[list[dict], list[dict]]:
    """Events of few keys, so that they meet, and users who are some of them and some others."""
    ids, apps, antennas = draw(known), draw(known), draw(known)
    events = draw(
        st.lists(
            st.fixed_dictionaries(
                {
                    "timestamp": st.integers(0, 3_600_000_000 - 1).map(
                        lambda micros: TEN + timedelta(microseconds=micros)
                    ),
                    "app": st.sampled_from(apps),
                    "id": st.sampled_from(ids),
                    "antenna_id": st.sampled_from(antennas),
                    "bytes": st.integers(0, MAX_BYTES),
                }
            ),
            max_size=40,
        )
    )
    events = [{**event, "kafka_partition": n % 4, "kafka_offset": n // 4} for n, event in enumerate(events)]
    users = draw(
        st.lists(
            st.fixed_dictionaries(
                {
                    "id": st.one_of(st.sampled_from(ids), texts),
                    "name": texts,
                    "email": texts,
                    "quota": st.integers(0, 2**38),
                }
            ),
            max_size=6,
            unique_by=lambda user: user["id"],
        )
    )
    return events, users


def test_row_3_any_hour_is_the_same_through_both_engines(engines, tmp_path, proving):
    @settings(max_examples=100 if proving else 6)
    @example(([], []))
    @given(hours())
    def any_hour(hour):
        assert_same_hour(engines, tmp_path / "hour", *hour)

    any_hour()


def assert_same_hour(engines: list[Engine], folder: Path, events: list[dict], users: list[dict]) -> None:
    """Every table of the hour is the same through both engines, and no event is missing."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(events, schema=LANDED_SCHEMA), folder / "landed.parquet")
    pq.write_table(pa.Table.from_pylist(users, schema=USERS), folder / "users.parquet")
    found = [
        through(engine, [str(folder / "landed.parquet")], str(folder / "users.parquet"), folder / engine.name)
        for engine in engines
    ]
    by_duckdb, by_spark = (
        {
            "raw_parquet": _stored(raw, RAW_PARQUET),
            "enriched_usage": _stored(enriched, ENRICHED_USAGE),
            **tables,
        }
        for raw, enriched, tables in found
    )
    assert by_duckdb["raw_parquet"].num_rows == len(events)
    for name, table in by_duckdb.items():
        assert table.equals(by_spark[name], check_metadata=True), name


def test_row_3_a_micro_batch_has_the_same_sums_through_both_engines_and_in_plain_python(
    engines, tmp_path, proving
):
    windows = st.sampled_from([timedelta(minutes=5), timedelta(hours=1), timedelta(seconds=1)])

    @settings(max_examples=100 if proving else 6)
    @given(hours(), windows)
    def any_micro_batch(hour, window):
        assert_same_sums(engines, tmp_path / "a lake", hour[0], window)

    any_micro_batch()


def assert_same_sums(engines: list[Engine], lake: Path, events: list[dict], window: timedelta) -> None:
    """A micro-batch of these events has the sums of plain Python through both engines."""
    folder = lake / "landing" / "1-a"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "hour=2026112210").mkdir(parents=True)
    (folder / "rejected").mkdir()
    rejected = [
        {
            "value": value,
            "reason": reason,
            "kafka_partition": 0,
            "kafka_offset": number,
            "kafka_timestamp": TEN,
        }
        for number, (value, reason) in enumerate([(b"{", "not_json"), (None, "blank"), (b"", "not_json")])
    ]
    # Two files of an hour, as two tasks write them; one of them with no row.
    for number, part in enumerate([events[::2], events[1::2]]):
        file = folder / "hour=2026112210" / f"part-{number}.parquet"
        pq.write_table(pa.Table.from_pylist(part, schema=LANDED_SCHEMA), file)
    pq.write_table(
        pa.Table.from_pylist(rejected, schema=REJECTED_SCHEMA), folder / "rejected" / "part-0.parquet"
    )
    written = WrittenAttempt("landing/1-a", TEN, len(events) + len(rejected))
    duckdb_found, spark_found = (
        read_back(written, engine, lake=str(lake), live=dict.fromkeys(LIVE_TABLES, window))
        for engine in engines
    )
    assert _in_order(duckdb_found) == _in_order(spark_found)
    expected: dict[str, Counter] = {name: Counter() for name in LIVE_TABLES}
    for event in events:
        start = TEN + (event["timestamp"] - TEN) // window * window
        for name, table in LIVE_TABLES.items():
            expected[name][start, event[table.key]] += event["bytes"]
    found = {
        name: {(date, key): total for date, key, total in rows} for name, rows in duckdb_found.live.items()
    }
    assert found == expected
    assert duckdb_found.rejections == {"not_json": 2, "blank": 1}
    assert (duckdb_found.rows, duckdb_found.bytes) == (len(events), sum(event["bytes"] for event in events))
    times = [(event["kafka_partition"], event["timestamp"]) for event in events]
    assert duckdb_found.event_times == dict(sorted(times))
    assert duckdb_found.first_event_time == min((time for _, time in times), default=None)


def _in_order(landed: BatchContent) -> BatchContent:
    return replace(landed, live={name: sorted(rows) for name, rows in landed.live.items()})


def test_a_day_is_the_same_through_both_engines_also_beyond_64_bits(engines, tmp_path):
    day = TEN.replace(hour=0)
    own = (day - timedelta(hours=5, minutes=45), day + timedelta(hours=18, minutes=15))

    def event(at: datetime, user: str, bytes_: int, email: str | None) -> dict:
        return {
            "timestamp": at,
            "app": "app",
            "id": user,
            "antenna_id": "north",
            "bytes": bytes_,
            "kafka_partition": 0,
            "kafka_offset": 0,
            "name": email,
            "email": email,
            "quota": None,
        }

    microsecond = timedelta(microseconds=1)
    events = [
        *(event(day + hour * timedelta(hours=1), "a", 2**62, "a@x.org") for hour in range(3)),
        event(day - microsecond, "a", 1, "a@x.org"),
        event(day + timedelta(hours=24), "a", 1, "a@x.org"),
        event(own[0] - microsecond, "b", 1, None),
        event(own[0], "b", 10, None),
        event(own[1] - microsecond, "b", 100, None),
        event(own[1], "b", 1_000, None),
    ]
    inputs = {}
    for name, schema, rows in (
        ("enriched_usage", ENRICHED_USAGE, events),
        ("own_window", OWN_WINDOWS, [{"id": "b", "begins": own[0], "ends": own[1]}]),
        ("billing_window", WINDOW, [{"begins": day, "ends": day + timedelta(hours=24)}]),
    ):
        pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / f"{name}.parquet")
        inputs[name] = Dataset([str(tmp_path / f"{name}.parquet")], schema)
    for engine in engines:
        with engine.stream(ORDERED, inputs, COMPUTED, str(tmp_path / engine.name)) as batches:
            assert pa.Table.from_batches(batches, COMPUTED).to_pylist() == [
                {"id": "a", "date": day, "email": "a@x.org", "sum_user_bytes": Decimal(3 * 2**62)},
                {"id": "b", "date": own[0], "email": None, "sum_user_bytes": Decimal(110)},
            ], engine.name


def test_row_3_an_hour_of_many_users_is_the_same_through_both_engines(engines, tmp_path, proving):
    landed, users = tmp_path / "landed.parquet", tmp_path / "users.parquet"
    # In the suite, too, more events than a row group of parquet holds, 122,880.
    people = 1_000_000 if proving else 70_000
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        # Each user twice; sums of an app are far beyond 32 bits; one user in ten is unknown. Of three users one has used
        # exactly the quota, which is not over it.
        connection.execute(
            f"""COPY (SELECT make_timestamptz({int(TEN.timestamp())}000000 + i * {1_799_000_000 // people}) AS timestamp, 'àpp-' || i % 7 AS app,
                'üser-' || i % {people} AS id, 'antenna-' || i % 1000 AS antenna_id, 3000000000 + i AS bytes,
                CAST(i % 4 AS INTEGER) AS kafka_partition, i // 4 AS kafka_offset
                FROM range({2 * people}) AS numbers (i)) TO '{landed}' (FORMAT parquet)"""  # noqa: S608
        )
        connection.execute(
            f"""COPY (SELECT 'üser-' || i AS id, 'name ' || i AS name, i || '@example.com' AS email,
                CAST({6_000_000_000 + people} + (i % 3) * i AS BIGINT) AS quota FROM range({people}) AS numbers (i) WHERE i % 10 > 0)
                TO '{users}' (FORMAT parquet)"""  # noqa: S608
        )
    (raw, enriched, tables), (spark_raw, spark_enriched, spark_tables) = (
        through(engine, [str(landed)], str(users), tmp_path / engine.name) for engine in engines
    )
    for name, table in tables.items():
        assert table.equals(spark_tables[name], check_metadata=True), name
    assert tables["bytes_agg_user_1h"].num_rows == people
    assert tables["bytes_agg_app_1h"]["sum_app_bytes"].to_pylist()[0] > 2**32
    assert 0 < tables["users_over_quota_1h"].num_rows < people * 9 // 10
    with duckdb.connect() as connection:
        for ours, theirs in ((raw, spark_raw), (enriched, spark_enriched)):
            differ = connection.execute(
                "SELECT count(*) FROM ((FROM read_parquet($1) EXCEPT ALL FROM read_parquet($2))"
                " UNION ALL (FROM read_parquet($2) EXCEPT ALL FROM read_parquet($1)))",
                [ours, theirs],
            ).fetchone()
            assert differ == (0,)
    assert len(spark_raw) == len(spark_enriched) == 1, "an hour of this size is one file"


def test_an_hour_on_a_cluster_of_several_processes_equals_the_embedded_one(engines, tmp_path):
    """A master and two workers with a JVM each: nothing may depend on one process having all of the data."""
    said = assert_equals_the_embedded_one("local-cluster[2,1,1024]", engines[0], tmp_path)
    assert said.splitlines()[-1] == "2", "expected two workers' processes"


def test_an_hour_through_spark_connect_equals_the_embedded_one(engines, tmp_path):
    """The server is a process of its own, and this side of it has no Java to reach into."""
    with spark_connect(tmp_path / "server.log") as address:
        assert assert_equals_the_embedded_one(address, engines[0], tmp_path).strip() == "127.0.0.1"


def assert_equals_the_embedded_one(master: str, embedded: Engine, folder: Path) -> str:
    """Run an hour on the master and embedded; returns what the process with Spark said."""
    landed, users = folder / "landed.parquet", folder / "users.parquet"
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            f"""COPY (SELECT make_timestamptz({int(TEN.timestamp())}000000 + i * 36000) AS timestamp, app, id, antenna_id, bytes,
                CAST(i % 4 AS INTEGER) AS kafka_partition, i // 4 AS kafka_offset
                FROM ({events_select(0, 100_000, users=5_000)})) TO '{landed}' (FORMAT parquet)"""  # noqa: S608
        )
        connection.execute(f"COPY ({users_select(5_000)}) TO '{users}' (FORMAT parquet)")
    results = folder / "results"
    results.mkdir()
    program = (sys.executable, "-m", "antenna_assets_tests.cluster_hour")
    # Packages that only Spark Connect needs; `make test` puts them there.
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(PROJECT), str(PROJECT / ".venv-connect"))),
    }
    done = subprocess.run(
        (*program, master, str(landed), str(users), str(results)),
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    _, _, tables = through(embedded, [str(landed)], str(users), folder / "embedded")
    for name, table in tables.items():
        assert table.num_rows > 0
        assert pq.read_table(results / f"{name}.parquet").equals(table), name
    return done.stdout


@contextmanager
def spark_connect(log: Path) -> Iterator[str]:
    """A server of Spark Connect on a free port; its address. Ends with the block."""
    port = free_port()
    options = {**configuration("local[2]"), "spark.connect.grpc.binding.address": "127.0.0.1"}
    options["spark.connect.grpc.binding.port"] = str(port)
    submit = [str(Path(pyspark.__file__).with_name("bin") / "spark-submit"), "--master", "local[2]"]
    submit += ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer"]
    submit += [word for name, value in options.items() for word in ("--conf", f"{name}={value}")]
    use_java()
    with (
        log.open("w") as said,
        subprocess.Popen([*submit, "spark-internal"], stdout=said, stderr=said) as server,
    ):
        try:
            wait_until(lambda: listens(port), 60)
            yield f"sc://127.0.0.1:{port}"
        finally:
            server.terminate()


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
