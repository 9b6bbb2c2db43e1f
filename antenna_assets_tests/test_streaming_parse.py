"""The verdict on a message: a table of literal messages with literal verdicts, and 50,000 random ones against an
oracle in plain Python. All of a test's messages go through one Spark job.
"""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession

from antenna_assets.domain.schema import REASONS
from antenna_assets.streaming.spark.layout import layout_of
from antenna_assets.streaming.spark.parse import SESSION_CONF, explain_rejections, parsed, validated
from antenna_assets_tests.messages import CLOCK, DETAILS, OLDEST, TABLE, VALID, expected, message
from antenna_assets_tests.parse_oracle import Accepted, Rejected, verdict
from antenna_assets_tests.random_messages import LARGE, MESSAGE, random_message

pytestmark = pytest.mark.services

KAFKA = pa.schema(
    [
        ("value", pa.binary()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("timestamp", pa.timestamp("us", tz="UTC")),
    ]
)


@pytest.fixture(scope="module")
def parse_spark(spark: SparkSession) -> SparkSession:
    session = spark.newSession()
    for name, value in SESSION_CONF.items():
        session.conf.set(name, value)
    # Neither UTC nor a full hour away: a verdict that depends on the session's zone shows.
    session.conf.set("spark.sql.session.timeZone", "America/St_Johns")
    return session


def rows_of(spark: SparkSession, messages: list[bytes | None]) -> list[dict]:
    """The result for each message, in order, with the time as microseconds."""
    table = pa.table(
        {
            "value": messages,
            "partition": [0] * len(messages),
            "offset": range(len(messages)),
            "timestamp": [CLOCK] * len(messages),
        },
        schema=KAFKA,
    )
    frame = spark.createDataFrame(table)
    rows = _in_order(parsed(frame, clock=CLOCK, oldest=OLDEST))
    # As the stream does it: who is rejected in one pass, and why in another. That messages have a usual spelling changes
    # nothing.
    for usual in USUAL:
        verdicts = validated(frame, clock=CLOCK, oldest=OLDEST, layout=usual)
        assert _in_order(verdicts.where("hour IS NOT NULL")) == [
            {
                name: None if name == "value" else of
                for name, of in row.items()
                if name not in ("reason", "detail")
            }
            for row in rows
            if row["reason"] is None
        ]
        rejected = verdicts.where("hour IS NULL")
        refused = [row for row in rows if row["reason"]]
        assert _in_order(explain_rejections(rejected, clock=CLOCK, oldest=OLDEST)) == refused
    return rows


def _in_order(frame: DataFrame) -> list[dict]:
    rows = frame.selectExpr("*", "unix_micros(timestamp) AS micros").drop("timestamp", "kafka_timestamp")
    return sorted(rows.toArrow().to_pylist(), key=lambda row: row["kafka_offset"])


def verdict_in(row: dict) -> Accepted | Rejected:
    if row["reason"] is not None:
        return Rejected(row["reason"])
    return Accepted(row["micros"], row["app"], row["id"], row["antenna_id"], row["bytes"])


USUAL = (layout_of(VALID), layout_of(VALID.replace(b" ", b"")))


@pytest.fixture(scope="module")
def table_rows(parse_spark: SparkSession) -> dict[str, dict]:
    rows = rows_of(parse_spark, [value for value, _ in TABLE.values()])
    return dict(zip(TABLE, rows, strict=True))


@pytest.mark.parametrize("name", TABLE)
def test_verdict(table_rows: dict[str, dict], name: str) -> None:
    assert verdict_in(table_rows[name]) == expected(name)


@pytest.mark.parametrize("name", TABLE)
def test_oracle_agrees_with_the_table(name: str) -> None:
    assert verdict(TABLE[name][0], CLOCK, OLDEST) == expected(name)


def test_table_has_every_reason() -> None:
    assert {of for _, of in TABLE.values() if isinstance(of, str)} == set(REASONS)


def test_detail_is_short_and_never_the_whole_message(table_rows: dict[str, dict]) -> None:
    for name, row in table_rows.items():
        detail, value = row["detail"], TABLE[name][0] or b""
        assert (detail is None) == (row["reason"] is None), name
        if detail is not None:
            assert 0 < len(detail) <= 200, name
            assert "\0" not in detail, name
            assert not value.strip() or value.decode(errors="replace") not in detail, name


@pytest.mark.parametrize("name", DETAILS)
def test_detail_says_what_was_found(table_rows: dict[str, dict], name: str) -> None:
    assert table_rows[name]["detail"] == DETAILS[name]


def test_hour_is_the_events_in_utc(parse_spark: SparkSession) -> None:
    times = ["1795341599.999999", "1795341600", '"2026-11-22T00:10:00+02:00"', "1"]
    rows = rows_of(parse_spark, [message(timestamp=time) for time in times])
    assert [row["hour"] for row in rows] == ["2026112209", "2026112210", "2026112122", None]


def test_columns_and_coordinates(parse_spark: SparkSession) -> None:
    kafka = "CAST('x' AS binary) value, 3 partition, 17L offset, timestamp_micros(5) timestamp"
    result = parsed(parse_spark.sql(f"SELECT {kafka}"), clock=CLOCK, oldest=OLDEST)
    assert [f"{name} {kind}" for name, kind in result.dtypes] == [
        "timestamp timestamp", "app string", "id string", "antenna_id string", "bytes bigint", "kafka_partition int",
        "kafka_offset bigint", "kafka_timestamp timestamp", "value binary", "reason string", "detail string", "hour string",
    ]  # fmt: skip
    row = result.selectExpr(
        "kafka_partition", "kafka_offset", "unix_micros(kafka_timestamp)", "value"
    ).first()
    assert tuple(row) == (3, 17, 5, b"x")


def test_naive_clock_is_refused(parse_spark: SparkSession) -> None:
    messages = parse_spark.sql(
        "SELECT CAST('' AS binary) value, 0 partition, 0L offset, timestamp_micros(0) timestamp"
    )
    with pytest.raises(ValueError, match="with a time zone"):
        parsed(messages, clock=CLOCK.replace(tzinfo=None), oldest=OLDEST)


def assert_the_oracle_agrees(spark: SparkSession, messages: list[bytes]) -> Counter:
    rows = rows_of(spark, messages)
    assert [row["kafka_offset"] for row in rows] == list(range(len(messages)))
    found = [verdict_in(row) for row in rows]
    expected = [verdict(value, CLOCK, OLDEST) for value in messages]
    differ = [
        (value, ours, theirs)
        for value, ours, theirs in zip(messages, found, expected, strict=True)
        if ours != theirs
    ]
    assert differ == [], f"{len(differ)} of {len(messages)}, as {differ[:3]}"
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    for row, result in zip(rows, found, strict=True):
        if isinstance(result, Accepted):
            assert row["hour"] == f"{epoch + timedelta(microseconds=result.micros):%Y%m%d%H}"
        else:
            assert row["hour"] is None
            assert 0 < len(row["detail"]) <= 200
            assert "\0" not in row["detail"]
    return Counter(result.reason if isinstance(result, Rejected) else "accepted" for result in found)


@pytest.mark.rounds(5)
def test_row_11_ten_thousand_damaged_messages_have_the_oracles_verdicts_on_spark(
    parse_spark: SparkSession, round_: int
) -> None:
    rng = random.Random(round_)
    counts = assert_the_oracle_agrees(parse_spark, [random_message(rng) for _ in range(10_000)])
    # A generator that stops reaching a verdict proves nothing about it.
    assert set(counts) == {"accepted", *REASONS}
    assert counts["accepted"] > 1_000


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(messages=st.lists(MESSAGE, min_size=40, max_size=200))
def test_any_messages_at_all(parse_spark: SparkSession, messages: list[bytes]) -> None:
    assert_the_oracle_agrees(parse_spark, messages)


@pytest.mark.timeout(200)
def test_row_32_a_message_of_a_megabyte_is_judged_in_seconds_whatever_is_in_it(
    parse_spark: SparkSession, tmp_path: Path
) -> None:
    """One of them took five minutes by itself when each name was compared with all others."""
    values = [value for value, _ in LARGE.values()]
    count = len(values)
    columns = [values, [0] * count, range(count), [CLOCK] * count]
    pq.write_table(pa.table(dict(zip(KAFKA.names, columns, strict=True)), schema=KAFKA), tmp_path / "values")
    frame = parse_spark.read.parquet((tmp_path / "values").as_uri())
    found = (
        parsed(frame, clock=CLOCK, oldest=OLDEST).orderBy("kafka_offset").select("reason", "detail").collect()
    )
    assert [row.reason for row in found] == [reason for _, reason in LARGE.values()]
    assert found[0].detail == "given more than once: n3, n7"
