"""How messages are spelled; that reading by it changes no verdict is in `test_streaming_parse.py`."""

import json

import pytest
from pyspark.sql import SparkSession

from antenna_assets.streaming.spark.layout import Layout, common_layout, layout_of, steps

COMPACT = b'{"bytes":12,"timestamp":1795343400.5,"app":"web","id":"u-1","antenna_id":"a-1"}'
USUAL = COMPACT.decode()
CUT = {
    USUAL: (12, 1795343400.5, "web", "u-1", "a-1"),
    USUAL.replace("12", "-12").replace("web", ""): (-12, 1795343400.5, "", "u-1", "a-1"),
    USUAL.replace("400.5", "400"): (12, 1795343400.0, "web", "u-1", "a-1"),
    USUAL.replace("400.5", "400.500000"): (12, 1795343400.5, "web", "u-1", "a-1"),
    **dict.fromkeys(
        (
            USUAL.replace(",", ", "),
            USUAL.replace("12", "012"),
            USUAL.replace("12", "1e1"),
            USUAL.replace("12", "9223372036854775808"),
            USUAL.replace("400.5", "400."),
            USUAL.replace("400.5", "400.5000000"),
            USUAL.replace("1795343400.5", "-0"),
            USUAL.replace("1795343400.5", ".5"),
            USUAL.replace("web", "vidéo"),
            USUAL.replace("web", "a\\tb"),
            USUAL.replace("web", "a\tb"),
            USUAL.replace("web", 'a"b'),
            USUAL + " ",
            USUAL + "]",
            USUAL[:-1],
            "hello",
            "",
        )
    ),
}
WIDE = b' { "id" : "u-1", "bytes": 12, "app": "web" ,"antenna_id": "a-1", "timestamp": 1795343400 } '


def test_a_spelling_is_what_stands_around_the_values() -> None:
    assert layout_of(COMPACT) == Layout(
        ("bytes", "timestamp", "app", "id", "antenna_id"),
        ('{"bytes":', ',"timestamp":', ',"app":"', '","id":"', '","antenna_id":"', '"}'),
    )
    assert layout_of(WIDE) == Layout(
        ("id", "bytes", "app", "antenna_id", "timestamp"),
        (' { "id" : "', '", "bytes": ', ', "app": "', '" ,"antenna_id": "', '", "timestamp": ', " } "),
    )


def test_the_values_do_not_matter() -> None:
    other = {"bytes": 0, "timestamp": 3, "app": "a, b: {c}", "id": "", "antenna_id": "é"}
    text = json.dumps(other, separators=(",", ":"), ensure_ascii=False)
    assert layout_of(text.encode()) == layout_of(COMPACT)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"hello",
        b"{}",
        COMPACT + b"}",
        COMPACT[:-1] + b',"more":1}',
        COMPACT.replace(b'"bytes":12,', b""),
        COMPACT.replace(b"antenna_id", b"id"),
        COMPACT.replace(b"antenna_id", b"antenna"),
        COMPACT.replace(b"12", b'"12"'),
        COMPACT.replace(b'"web"', b"3"),
        COMPACT.replace(b"web", rb"w\u0065b"),
        COMPACT.replace(b"1795343400.5", b"1.7953434005e9"),
        COMPACT.replace(b",", b",\n"),
    ],
)
def test_what_is_no_plain_event_has_no_spelling(message: bytes) -> None:
    assert layout_of(message) is None


def test_the_usual_spelling_is_the_most_frequent_one_of_plain_events() -> None:
    messages = [b"hello", None, b"hello", b"hello", WIDE, COMPACT, COMPACT, b""]
    assert common_layout(messages) == layout_of(COMPACT)
    assert common_layout([b"hello", None, b""]) is None


@pytest.mark.services
def test_what_is_spelled_as_usual_is_cut_and_all_else_is_left_to_the_parser(spark: SparkSession) -> None:
    spelling = layout_of(COMPACT)
    frame = spark.createDataFrame([(text,) for text in CUT], "text string")
    for step in steps(spelling):
        frame = frame.selectExpr("*", *(f"{sql} AS {name}" for name, sql in step.items()))
    rows = frame.selectExpr(
        "text",
        "CASE WHEN plain THEN struct(cut_bytes, CAST(cut_timestamp AS double), cut_app, cut_id, cut_antenna_id) END AS cut",
    ).collect()
    assert {row.text: row.cut and tuple(row.cut) for row in rows} == CUT
