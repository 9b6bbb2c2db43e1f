"""The verdict on a message: a table of literal messages with literal verdicts, and 50,000 random ones against an
oracle in plain Python. All of a test's messages go through one Spark job.
"""

import json
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
from antenna_assets_tests.parse_oracle import Accepted, Rejected, verdict

pytestmark = pytest.mark.services

CLOCK = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)
OLDEST = datetime(2026, 10, 18, 10, 30, tzinfo=UTC)
NOW = 1795343400
"""The clock in Unix seconds."""

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
    for usual in (None, *USUAL):
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


def message(**fields: object) -> bytes:
    """A valid event with some fields replaced: each a JSON text."""
    event = {
        "bytes": "12",
        "timestamp": str(NOW),
        "app": '"web"',
        "id": '"u-1"',
        "antenna_id": '"a-1"',
    } | fields
    return ("{" + ", ".join(f'"{name}": {value}' for name, value in event.items()) + "}").encode()


def accepted(
    micros: int = NOW * 1_000_000, app: str = "web", id: str = "u-1", antenna_id: str = "a-1", bytes: int = 12
):
    return Accepted(micros, app, id, antenna_id, bytes)


VALID = message()
USUAL = (layout_of(VALID), layout_of(VALID.replace(b" ", b"")))
MISSING = {
    name: json.dumps({k: v for k, v in json.loads(VALID).items() if k != name}).encode()
    for name in json.loads(VALID)
}

TABLE: dict[str, tuple[bytes | None, Accepted | str]] = {
    # the message
    "a plain event": (VALID, accepted()),
    "no value": (None, "blank"),
    "an empty value": (b"", "blank"),
    "white space": (b" \t\r\n", "blank"),
    "Unicode white space": ("\u3000\xa0".encode(), "blank"),
    "white space around": (b"\r\n " + VALID + b"\t\n", accepted()),
    "other order and extra fields": (
        b'{"x":[{"a":null},[]],"antenna_id":"a-1","id":"u-1","app":"web","timestamp":1795343400,"bytes":12,"y":{}}',
        accepted(),
    ),
    "an escaped name": (VALID.replace(b'"bytes"', b'"byt\\u0065s"'), accepted()),
    "truncated": (VALID[:-1], "not_json"),
    "half": (VALID[:30], "not_json"),
    "one brace": (b"{", "not_json"),
    "a word": (b"hello", "not_json"),
    "single quotes": (VALID.replace(b'"', b"'"), "not_json"),
    "a comment": (VALID.replace(b"12", b"12 /* twelve */"), "not_json"),
    "a comment ahead": (b"// event\n" + VALID, "not_json"),
    "a comment behind": (VALID + b" // event", "trailing_data"),
    "a trailing comma": (VALID.replace(b"}", b",}"), "not_json"),
    "an unquoted name": (VALID.replace(b'"bytes"', b"bytes"), "not_json"),
    "NaN": (message(bytes="NaN"), "not_json"),
    "Infinity": (message(timestamp="Infinity"), "not_json"),
    "-Infinity": (message(timestamp="-Infinity"), "not_json"),
    "a leading zero": (message(bytes="012"), "not_json"),
    "a plus sign": (message(bytes="+12"), "not_json"),
    "a bare point": (message(timestamp="1795343400."), "not_json"),
    "hexadecimal": (message(bytes="0x10"), "not_json"),
    "a raw control character": (message(app='"we\tb"'), "not_json"),
    "a raw NUL": (message(app='"we\0b"'), "not_json"),
    "a byte order mark": (b"\xef\xbb\xbf" + VALID, "not_json"),
    "an unknown escape": (message(app=r'"\x41"'), "not_json"),
    "half a surrogate pair": (message(app=r'"\ud800"'), "not_json"),
    "the other half": (message(app=r'"\udc00x"'), "not_json"),
    "half a pair in an extra field": (message(x=r'"\ud800"'), "not_json"),
    "half a pair in an extra name": (message(**{r"\ud800": "1"}), "not_json"),
    "a surrogate pair": (message(app=r'"\ud83d\ude00"'), accepted(app="\U0001f600")),
    "bad UTF-8": (message(app='"?"').replace(b"?", b"\xff"), "not_utf8"),
    "an encoded surrogate": (message(app='"?"').replace(b"?", b"\xed\xa0\x80"), "not_utf8"),
    "an overlong encoding": (message(app='"?"').replace(b"?", b"\xc0\xaf"), "not_utf8"),
    "UTF-16": (VALID.decode().encode("utf-16"), "not_utf8"),
    "bad UTF-8 alone": (b"\x80", "not_utf8"),
    "a number of 1,000 digits in an extra field": (message(x="1" * 1000), accepted()),
    "a number of 1,001 digits": (message(x="1" * 1001), "not_json"),
    "900 levels": (message(x="[" * 900 + "]" * 900), accepted()),
    "998 levels": (message(x="[" * 998 + "]" * 998), accepted()),
    "999 levels": (message(x="[" * 999 + "]" * 999), "trailing_data"),
    "1,000 levels": (message(x="[" * 1000 + "]" * 1000), "not_json"),
    "2,000 levels": (message(x="[" * 2000 + "]" * 2000), "not_json"),
    "100,000 open brackets": (b"[" * 100_000, "not_json"),
    "100,000 open braces": (b'{"a":' * 100_000, "not_json"),
    "a megabyte of an extra field": (message(x=json.dumps("x" * 1_000_000)), accepted()),
    "a megabyte of app": (message(app=json.dumps("x" * 1_000_000)), "too_long"),
    "a megabyte of spaces in app": (message(app=json.dumps(" " * 1_000_000)), "blank"),
    "a megabyte of nothing": (b" " * 1_000_000, "blank"),
    "a megabyte of brackets": (b"[]" * 500_000, "trailing_data"),
    # trailing data
    "a word behind": (VALID + b" x", "trailing_data"),
    "a bracket behind": (VALID + b"]", "trailing_data"),
    "a bracket and junk behind": (VALID + b"] junk", "trailing_data"),
    "a bracket and an event behind": (VALID + b"]" + VALID, "trailing_data"),
    "brackets that fit together": (VALID + b"],[" + VALID, "trailing_data"),
    "a brace behind": (VALID + b"}", "trailing_data"),
    "both behind": (VALID + b"]}", "trailing_data"),
    "a member behind": (VALID + b',"x":1', "trailing_data"),
    "two events": (VALID + VALID, "trailing_data"),
    "two lines": (VALID + b"\n" + VALID, "trailing_data"),
    "two with a comma": (VALID + b"," + VALID, "trailing_data"),
    "null behind": (VALID + b",null", "trailing_data"),
    "a comma behind": (VALID + b",", "trailing_data"),
    "white space, an array and more": (b"\n [1] 2", "trailing_data"),
    "an array with a repeated name, and more": (b'[{"a":1,"a":1}] 2', "not_json"),
    "an object with a repeated name behind an event": (VALID + b'{"a":1,"a":1}', "trailing_data"),
    "single quotes, and trailing data": (b"{'a':1} x", "not_json"),
    "a control character, and trailing data": (b'{"a":"\t"} x', "not_json"),
    "a repeated name and a control character": (b'{"a":"\t","a":1}', "not_json"),
    "an array and more": (b"[1] 2", "trailing_data"),
    "a NUL behind": (VALID + b"\0", "trailing_data"),
    "a number and more": (b"1 2", "not_json"),
    "brackets in a text": (message(app='"w]e[b"'), accepted(app="w]e[b")),
    "braces in a text": (message(app='"w}e{b]"'), accepted(app="w}e{b]")),
    # not an object
    "an array": (b"[" + VALID + b"]", "not_an_object"),
    "an empty array": (b"[]", "not_an_object"),
    "null": (b"null", "not_an_object"),
    "true": (b"true", "not_an_object"),
    "a number": (b"-1.5e3", "not_an_object"),
    "a text": (b'"hello"', "not_an_object"),
    # fields
    "a repeated field": (
        b'{"bytes":1,"bytes":2,"timestamp":1795343400,"app":"a","id":"i","antenna_id":"n"}',
        "duplicate_field",
    ),
    "an extra field repeated": (message(x="1").replace(b"}", b',"x":1}'), "duplicate_field"),
    "repeated through an escape": (VALID.replace(b"}", rb',"\u0062ytes":12}'), "duplicate_field"),
    "repeated, and trailing data": (VALID.replace(b"}", b',"id":"u"} x'), "trailing_data"),
    "repeated, and more missing": (b'{"a":1,"a":1}', "duplicate_field"),
    "repeated in a nested object": (message(x='{"a":1,"a":1}'), "not_json"),
    "an empty object": (b"{}", "missing_field"),
    **{f"without {name}": (value, "missing_field") for name, value in MISSING.items()},
    "Bytes for bytes": (VALID.replace(b'"bytes"', b'"Bytes"'), "missing_field"),
    "bytes and Bytes": (message(Bytes="-1"), accepted()),
    "a name with a space": (VALID.replace(b'"bytes"', b'"bytes "'), "missing_field"),
    "missing and wrong": (b'{"bytes":"12"}', "missing_field"),
    # bytes
    "no bytes at all": (message(bytes="0"), accepted(bytes=0)),
    "minus zero": (message(bytes="-0"), accepted(bytes=0)),
    "the most": (message(bytes="68719476736"), accepted(bytes=68719476736)),
    "one more": (message(bytes="68719476737"), "bytes_out_of_range"),
    "2^63-1": (message(bytes="9223372036854775807"), "bytes_out_of_range"),
    "2^63": (message(bytes="9223372036854775808"), "bytes_out_of_range"),
    "40 digits": (message(bytes="9" * 40), "bytes_out_of_range"),
    "1e400 bytes": (message(bytes="1e400"), "bytes_out_of_range"),
    "minus one": (message(bytes="-1"), "negative_bytes"),
    "-2^63-1": (message(bytes="-9223372036854775809"), "negative_bytes"),
    "-1e400 bytes": (message(bytes="-1e400"), "negative_bytes"),
    "half a byte": (message(bytes="1.5"), "wrong_type"),
    "5.0 bytes": (message(bytes="5.0"), "wrong_type"),
    "1e3 bytes": (message(bytes="1e3"), "wrong_type"),
    "-0.0 bytes": (message(bytes="-0.0"), "wrong_type"),
    "bytes as text": (message(bytes='"12"'), "wrong_type"),
    "bytes as blank text": (message(bytes='""'), "wrong_type"),
    "bytes true": (message(bytes="true"), "wrong_type"),
    "bytes null": (message(bytes="null"), "wrong_type"),
    "bytes in an array": (message(bytes="[12]"), "wrong_type"),
    "bytes in an object": (message(bytes='{"bytes":12}'), "wrong_type"),
    # texts
    "the longest app": (message(app=f'"{"x" * 256}"'), accepted(app="x" * 256)),
    "the longest app in bytes": (message(app=f'"{"é" * 128}"'), accepted(app="é" * 128)),
    "app of 257 bytes": (message(app=f'"{"x" * 257}"'), "too_long"),
    "app of 129 characters and 258 bytes": (message(app=f'"{"é" * 129}"'), "too_long"),
    "the longest id": (message(id=f'"{"x" * 64}"'), accepted(id="x" * 64)),
    "id of 65 bytes": (message(id=f'"{"x" * 65}"'), "too_long"),
    "antenna_id of 65 bytes": (message(antenna_id=f'"{"x" * 65}"'), "too_long"),
    "antenna_id of 17 emoji": (message(antenna_id=f'"{"😀" * 17}"'), "too_long"),
    "antenna_id of 16 emoji": (message(antenna_id=f'"{"😀" * 16}"'), accepted(antenna_id="😀" * 16)),
    "a blank app": (message(app='""'), "blank"),
    "a blank id": (message(id='"  "'), "blank"),
    "an id of a Unicode space": (message(id=r'"\u2003\u00a0"'), "blank"),
    "an id with spaces": (message(id='" u "'), accepted(id=" u ")),
    "an id that begins with a Unicode space": (message(id=r'"\u3000u"'), accepted(id="\u3000u")),
    "a zero-width space": (message(id=r'"\u200b"'), accepted(id="\u200b")),
    "a blank antenna_id": (message(antenna_id=r'"\n"'), "blank"),
    "300 spaces": (message(app=f'"{" " * 300}"'), "blank"),
    "an escaped NUL": (message(app=r'"we\u0000b"'), "unstorable_text"),
    "only a NUL": (message(id=r'"\u0000"'), "unstorable_text"),
    "NUL in an extra field": (message(x=r'"\u0000"'), accepted()),
    "an escaped backslash and u0000": (message(app=r'"\\u0000"'), accepted(app=r"\u0000")),
    "another control character": (message(app=r'"a\u0001"'), accepted(app="a\x01")),
    "app as a number": (message(app="12"), "wrong_type"),
    "id true": (message(id="true"), "wrong_type"),
    "id null": (message(id="null"), "wrong_type"),
    "antenna_id as an array": (message(antenna_id='["a"]'), "wrong_type"),
    "wrong before negative": (message(bytes="-1", id="5"), "wrong_type"),
    "negative before blank": (message(bytes="-1", id='""'), "negative_bytes"),
    "blank before too long": (message(app='""', id=f'"{"x" * 65}"'), "blank"),
    "too long before the time": (message(timestamp="0", id=f'"{"x" * 65}"'), "too_long"),
    # the time as a number
    "six decimals": (message(timestamp="1795343400.123456"), accepted(1795343400123456)),
    "one microsecond": (message(timestamp="1795343400.000001"), accepted(1795343400000001)),
    "nine decimals are cut": (message(timestamp="1795343400.123456999"), accepted(1795343400123456)),
    "28 decimals are cut": (message(timestamp="1795343399." + "9" * 28), accepted(1795343399999999)),
    "29 decimals are rounded": (message(timestamp="1795343399." + "9" * 29), accepted(1795343400000000)),
    "an exponent": (message(timestamp="1.795343400123456e9"), accepted(1795343400123456)),
    "another exponent": (message(timestamp="17953434E2"), accepted()),
    "five minutes ahead": (message(timestamp="1795343700"), accepted(1795343700000000)),
    "a microsecond more": (message(timestamp="1795343700.000001"), "timestamp_in_future"),
    "the oldest": (message(timestamp="1792319400"), accepted(1792319400000000)),
    "a microsecond older": (message(timestamp="1792319399.999999"), "timestamp_too_old"),
    "milliseconds": (message(timestamp="1795343400000"), "timestamp_in_future"),
    "zero": (message(timestamp="0"), "timestamp_too_old"),
    "minus zero seconds": (message(timestamp="-0.0"), "timestamp_too_old"),
    "1969": (message(timestamp="-86400"), "timestamp_too_old"),
    "20 nines": (message(timestamp="99999999999999999999"), "timestamp_in_future"),
    "minus 20 nines": (message(timestamp="-99999999999999999999"), "timestamp_too_old"),
    "2^63-1 seconds": (message(timestamp="9223372036854775807"), "timestamp_in_future"),
    "-2^63 seconds": (message(timestamp="-9223372036854775808"), "timestamp_too_old"),
    "1e400": (message(timestamp="1e400"), "timestamp_in_future"),
    "-1e400": (message(timestamp="-1e400"), "timestamp_too_old"),
    "1e-400": (message(timestamp="1e-400"), "timestamp_too_old"),
    "the year 30000": (message(timestamp="884541340800"), "timestamp_in_future"),
    "time true": (message(timestamp="true"), "wrong_type"),
    "time null": (message(timestamp="null"), "wrong_type"),
    "time in an array": (message(timestamp="[1795343400]"), "wrong_type"),
    # the time as text
    "Z": (message(timestamp='"2026-11-22T10:30:00Z"'), accepted()),
    "+00:00": (message(timestamp='"2026-11-22T10:30:00+00:00"'), accepted()),
    "-00:00": (message(timestamp='"2026-11-22T10:30:00-00:00"'), accepted()),
    "+02:00": (message(timestamp='"2026-11-22T12:30:00+02:00"'), accepted()),
    "+0200": (message(timestamp='"2026-11-22T12:30:00+0200"'), accepted()),
    "-03:30": (message(timestamp='"2026-11-22T07:00:00.5-03:30"'), accepted(1795343400500000)),
    "+18:00": (message(timestamp='"2026-11-23T04:30:00+18:00"'), accepted()),
    "+18:01": (message(timestamp='"2026-11-23T04:31:00+18:01"'), "wrong_type"),
    "+02:60": (message(timestamp='"2026-11-22T12:30:00+02:60"'), "wrong_type"),
    "+02": (message(timestamp='"2026-11-22T12:30:00+02"'), "wrong_type"),
    "a named zone": (message(timestamp='"2026-11-22T12:30:00 Europe/Madrid"'), "wrong_type"),
    "nine decimals in text": (
        message(timestamp='"2026-11-22T10:30:00.123456789Z"'),
        accepted(1795343400123456),
    ),
    "ten decimals in text": (message(timestamp='"2026-11-22T10:30:00.1234567890Z"'), "wrong_type"),
    "a comma for the point": (message(timestamp='"2026-11-22T10:30:00,5Z"'), "wrong_type"),
    "no zone": (message(timestamp='"2026-11-22T10:30:00"'), "wrong_type"),
    "a day": (message(timestamp='"2026-11-22"'), "wrong_type"),
    "a space for the T": (message(timestamp='"2026-11-22 10:30:00Z"'), "wrong_type"),
    "small letters": (message(timestamp='"2026-11-22t10:30:00z"'), "wrong_type"),
    "no seconds": (message(timestamp='"2026-11-22T10:30Z"'), "wrong_type"),
    "a space around": (message(timestamp='" 2026-11-22T10:30:00Z"'), "wrong_type"),
    "a newline behind": (message(timestamp=r'"2026-11-22T10:30:00Z\n"'), "wrong_type"),
    "Arabic digits": (message(timestamp='"٢٠٢٦-11-22T10:30:00Z"'), "wrong_type"),
    "30 February": (message(timestamp='"2026-02-30T10:30:00Z"'), "wrong_type"),
    "29 February 2027": (message(timestamp='"2027-02-29T10:30:00Z"'), "wrong_type"),
    "month 13": (message(timestamp='"2026-13-01T10:30:00Z"'), "wrong_type"),
    "hour 24": (message(timestamp='"2026-11-22T24:00:00Z"'), "wrong_type"),
    "a leap second": (message(timestamp='"2026-11-22T10:29:60Z"'), "wrong_type"),
    "seconds as text": (message(timestamp='"1795343400"'), "wrong_type"),
    "now": (message(timestamp='"now"'), "wrong_type"),
    "a blank time": (message(timestamp='" "'), "blank"),
    "an empty time": (message(timestamp='""'), "blank"),
    "the year 0": (message(timestamp='"0000-02-29T00:00:00Z"'), "timestamp_too_old"),
    "the year 1": (message(timestamp='"0001-01-01T00:00:00+18:00"'), "timestamp_too_old"),
    "the year 9999": (message(timestamp='"9999-12-31T23:59:59-18:00"'), "timestamp_in_future"),
    "the year 10000": (message(timestamp='"10000-01-01T00:00:00Z"'), "timestamp_in_future"),
    "the year +999999": (message(timestamp='"+999999-01-01T00:00:00Z"'), "timestamp_in_future"),
    "the year -0001": (message(timestamp='"-0001-01-01T00:00:00Z"'), "wrong_type"),
}


@pytest.fixture(scope="module")
def table_rows(parse_spark: SparkSession) -> dict[str, dict]:
    rows = rows_of(parse_spark, [value for value, _ in TABLE.values()])
    return dict(zip(TABLE, rows, strict=True))


@pytest.mark.parametrize("name", TABLE)
def test_verdict(table_rows: dict[str, dict], name: str) -> None:
    expected = TABLE[name][1]
    assert verdict_in(table_rows[name]) == (Rejected(expected) if isinstance(expected, str) else expected)


@pytest.mark.parametrize("name", sorted(set(TABLE) - {"a number of 1,001 digits", "999 levels"}))
def test_oracle_agrees_with_the_table(name: str) -> None:
    value, expected = TABLE[name]
    assert verdict(value, CLOCK, OLDEST) == (Rejected(expected) if isinstance(expected, str) else expected)


def test_table_has_every_reason() -> None:
    assert {expected for _, expected in TABLE.values() if isinstance(expected, str)} == set(REASONS)


def test_detail_is_short_and_never_the_whole_message(table_rows: dict[str, dict]) -> None:
    for name, row in table_rows.items():
        detail, value = row["detail"], TABLE[name][0] or b""
        assert (detail is None) == (row["reason"] is None), name
        if detail is not None:
            assert 0 < len(detail) <= 200, name
            assert "\0" not in detail, name
            assert not value.strip() or value.decode(errors="replace") not in detail, name


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("no zone", 'timestamp has no time zone: "2026-11-22T10:30:00"'),
        ("hour 24", 'timestamp is neither Unix seconds nor ISO-8601 with a zone: "2026-11-22T24:00:00Z"'),
        ("time null", "timestamp is neither Unix seconds nor ISO-8601 with a zone: null"),
        ("bytes as text", 'bytes is not an integer: "12"'),
        ("id true", "id is not text: true"),
        ("minus one", "bytes is -1"),
        ("without id", "missing: id"),
        ("an empty object", "missing: bytes, timestamp, app, id, antenna_id"),
        ("a repeated field", "given more than once: bytes"),
        ("id of 65 bytes", "id has 65 bytes, at most 64 fit"),
        ("an escaped NUL", "NUL in app"),
        ("a blank id", "blank: id"),
        ("milliseconds", "timestamp is 1795343400000"),
        ("a word", "5 bytes that begin with he"),
        ("bad UTF-8 alone", "1 bytes"),
    ],
)
def test_detail_says_what_was_found(table_rows: dict[str, dict], name: str, detail: str) -> None:
    assert table_rows[name]["detail"] == detail


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


SNIPPETS = (
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b'"',
        b"\\",
        b"\0",
        b"\xff",
        b"\xc3\xa9",
        b" ",
        b"\n",
        b"-",
        b".",
        b"e9",
        b"0",
    ),
    *(
        b"null",
        b"true",
        b"NaN",
        b"\\u0000",
        b"\\ud800",
        b"\xe3\x80\x80",
        b"//",
        b"/**/",
        b'{"a":1}',
        b"\xef\xbb\xbf",
    ),
)
VALUES = (
    *(
        "0",
        "-0",
        "-1",
        "1.5",
        "5.0",
        "1e3",
        "1E400",
        "-1e400",
        "68719476736",
        "68719476737",
        "9" * 19,
        "9" * 20,
        "9" * 39,
    ),
    *(
        "true",
        "false",
        "null",
        "[]",
        "{}",
        '""',
        '" "',
        '"12"',
        '"a"',
        r'"\u0000"',
        r'"\ud83d\ude00"',
        r'"\udc00"',
        "[1]",
    ),
    *(f'"{"x" * size}"' for size in (64, 65, 256, 257)),
    *(f'"{"é" * size}"' for size in (32, 33, 128, 129)),
    *(
        r'"\u3000"',
        r'"\u200b"',
        '{"a":1,"a":2}',
        '{"bytes":1}',
        "01",
        "1.",
        ".5",
        "'a'",
        "NaN",
        '"\t"',
        '"]"',
        '"}"',
    ),
)


def random_time(rng: random.Random, now: int, back: int) -> str:
    seconds = now + rng.choice((0, 299, 300, 301, -3_024_000, -3_024_001, -3600, rng.randint(-back, 1000)))
    digits = "".join(rng.choices("0123456789", k=rng.choice((1, 3, 6, 6, 7, 9, 12, 30))))
    moment = datetime.fromtimestamp(seconds, UTC)
    zone = rng.choice(
        ("Z", "+00:00", "+0200", "-03:30", "+14:00", "-18:00", "+19:00", "+01:99", "", "z", "+1")
    )
    return rng.choice(
        (
            str(seconds),
            f"{seconds}.{digits}",
            f"{str(seconds)[0]}.{str(seconds)[1:]}{digits[:6]}e9",
            f"{seconds}{digits}E-{len(digits)}",
            f'"{moment:%Y-%m-%dT%H:%M:%S}{zone}"',
            f'"{moment:%Y-%m-%dT%H:%M:%S}.{digits}{zone}"',
            f'"{moment:%Y}-{rng.randint(0, 13):02}-{rng.randint(0, 32):02}T{rng.randint(0, 25):02}:{rng.randint(0, 61):02}:00Z"',
        )
    )


def random_message(rng: random.Random, now: int = NOW, back: int = 4_000_000) -> bytes:
    """Bytes at random, or an event with some damage, mostly of the `back` seconds before `now`."""
    if rng.random() < 0.03:
        return rng.randbytes(rng.randint(0, 40))
    if rng.random() < 0.05:
        return b"".join(rng.choices(SNIPPETS, k=rng.randint(1, 12)))
    pairs = [
        ("bytes", str(rng.choice((0, 1, 2**36, 2**36 + 1, rng.randint(-5, 10**9))))),
        ("timestamp", random_time(rng, now, back)),
        (
            "app",
            json.dumps(rng.choice(("web", "vidéo", "x y", "\U0001f600")), ensure_ascii=rng.random() < 0.5),
        ),
        ("id", f'"{rng.randint(0, 99):08}"'),
        ("antenna_id", f'"{rng.randint(0, 9)}"'),
    ]
    while rng.random() < 0.3:
        place = rng.randrange(len(pairs))
        pairs[place] = (pairs[place][0], rng.choice(VALUES))
    if rng.random() < 0.15:
        pairs.insert(rng.randint(0, len(pairs)), ("x", rng.choice(VALUES)))
    if rng.random() < 0.05:
        pairs.append(rng.choice(pairs))
    if pairs and rng.random() < 0.05:
        pairs.pop(rng.randrange(len(pairs)))
    if rng.random() < 0.2:
        rng.shuffle(pairs)
    value = (
        "{" + rng.choice((",", ", ", " ,\n")).join(f'"{name}":{text}' for name, text in pairs) + "}"
    ).encode()
    while rng.random() < 0.3:
        place = rng.randint(0, len(value))
        damage = rng.randrange(4)
        if damage == 0:
            value = value[:place] + rng.choice(SNIPPETS) + value[place:]
        elif damage == 1:
            value = value[:place] + value[place + rng.randint(1, 3) :]
        elif damage == 2:
            value = value[:place] + bytes([rng.randrange(256)]) + value[place + 1 :]
        else:
            value += rng.choice(SNIPPETS)
    return value


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


@pytest.mark.parametrize("seed", range(5))
def test_ten_thousand_damaged_messages(parse_spark: SparkSession, seed: int) -> None:
    rng = random.Random(seed)
    counts = assert_the_oracle_agrees(parse_spark, [random_message(rng) for _ in range(10_000)])
    # A generator that stops reaching a verdict proves nothing about it.
    assert set(counts) == {"accepted", *REASONS}
    assert counts["accepted"] > 1_000


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
EVENT = st.fixed_dictionaries(
    {
        "bytes": st.integers(-1, 2**36 + 1) | JSON,
        "timestamp": st.floats(NOW - 4_000_000, NOW + 400) | st.integers(NOW - 4_000_000, NOW + 400) | JSON,
        "app": st.text(max_size=300) | JSON,
        "id": st.text(max_size=70),
        "antenna_id": st.text(max_size=70) | JSON,
    },
    optional={"extra": JSON},
)
MESSAGE = st.binary(max_size=60) | st.builds(
    lambda value, ascii: json.dumps(value, ensure_ascii=ascii).encode(errors="surrogatepass"),
    EVENT | JSON,
    st.booleans(),
)


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(messages=st.lists(MESSAGE, min_size=40, max_size=200))
def test_any_messages_at_all(parse_spark: SparkSession, messages: list[bytes]) -> None:
    assert_the_oracle_agrees(parse_spark, messages)


def names(count: int) -> list[str]:
    return [f'"n{number}":1' for number in range(count)]


LARGE = {
    "many names, one of them twice": (
        VALID.replace(b"}", ("," + ",".join([*names(85_000), '"n7":1', '"n3":1']) + "}").encode()),
        "duplicate_field",
    ),
    "many names, each of them twice": (
        VALID.replace(b"}", ("," + ",".join(names(42_000) * 2) + "}").encode()),
        "duplicate_field",
    ),
    "many names": (VALID.replace(b"}", ("," + ",".join(names(85_000)) + "}").encode()), None),
    "many nested names, one of them twice": (
        VALID.replace(b"}", (',"x":{' + ",".join([*names(85_000), '"n7":1']) + "}}").encode()),
        "not_json",
    ),
    "many names and junk": (b"{" + ",".join(names(85_000)).encode() + b"} junk", "trailing_data"),
    "many names without an end": (b"{" + ",".join(names(85_000)).encode(), "not_json"),
    "many values": (b"[" + b"1," * 490_000 + b"1]", "not_an_object"),
    "many brackets": (b"]" * 990_000, "not_json"),
    "many quotes": (b'"' * 990_000, "not_json"),
    "white space": (b" " * 990_000, "blank"),
    "white space of two bytes": ("\u00a0".encode() * 495_000, "blank"),
    "a long text": (VALID.replace(b"web", b"x" * 990_000), "too_long"),
    "a long text of white space": (VALID.replace(b"web", b" " * 990_000), "blank"),
    "a long time": (VALID.replace(b"1795343400", b'"' + b"9" * 990_000 + b'"'), "wrong_type"),
    "a long wrong type": (VALID.replace(b'"u-1"', b"[" + b"1," * 300_000 + b"1]"), "wrong_type"),
    "bytes that are not UTF-8": (b"\xff" * 990_000, "not_utf8"),
}


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
