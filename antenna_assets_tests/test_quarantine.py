"""The quarantine without Spark: what is listed, shown and exported, what is safe to show, and what a mistake is told."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from antenna_assets.cli import app
from antenna_assets.domain.safe_text import hex_lines, safe_text
from antenna_assets.errors import AntennaError
from antenna_assets.ledger.batch import AttemptFile, BatchContent
from antenna_assets.ledger.replay import ReplayedMessage, commit_replay
from antenna_assets.operations.quarantine.files import MESSAGES, QuarantineError
from antenna_assets.operations.quarantine.message_transform import TransformError, load_transform
from antenna_assets.operations.quarantine.messages import Selection, by_reason, known_reason, select
from antenna_assets.operations.status import _quarantine
from antenna_assets.settings import Settings, load_settings
from antenna_assets_tests.quarantined import SENT, TOPIC, TOPIC_ID, reject

services = pytest.mark.services

FIRST = {
    0: [("not_json", b"{"), ("wrong_type", b'{"bytes": "12"}'), ("not_json", b"\x1b[31m[red]\n")],
    1: [("blank", None), ("not_utf8", b"\xff\xfe")],
}
SECOND = {0: [("not_json", b"}{")]}


def test_bytes_are_shown_without_anything_that_a_terminal_acts_on() -> None:
    assert safe_text(b"plain, caf\xc3\xa9") == "plain, café"
    assert safe_text(b"\x1b]0;x\x07\r\n\t\0\x7f") == r"\x1b]0;x\x07\r\n\t\x00\x7f"
    assert safe_text(b"\xff\xc3") == r"\xff\xc3"
    assert safe_text("\u202egpj.exe\u2028\x9b".encode()) == r"\u202egpj.exe\u2028\x9b"
    assert safe_text(rb"\n") == r"\\n"


@given(st.binary(max_size=60) | st.text(max_size=30).map(str.encode))
def test_what_is_shown_is_printable_and_tells_every_value_from_every_other(value: bytes) -> None:
    shown = safe_text(value)
    assert shown.isprintable()
    assert len(safe_text(value, 10)) <= 10
    assert safe_text(value, 10).removesuffix("…") == shown[: len(safe_text(value, 10).removesuffix("…"))]


@given(st.binary(max_size=12), st.binary(max_size=12))
def test_different_bytes_look_different(one: bytes, other: bytes) -> None:
    assert (safe_text(one) == safe_text(other)) == (one == other)


def test_a_long_value_is_cut() -> None:
    assert safe_text(b"x" * 2**20, 5) == "xxxx…"
    assert safe_text("é" * 6, 5) == "éééé…"
    assert safe_text("é" * 5, 5) == "ééééé"


def test_hexadecimal_lines_have_their_position() -> None:
    assert hex_lines(bytes(range(34))) == [
        "000000  " + " ".join(f"{n:02x}" for n in range(32)),
        "000020  20 21",
    ]
    assert hex_lines(b"") == []


def test_a_misspelt_reason_is_told_the_one_that_was_meant() -> None:
    assert known_reason("not_json") == "not_json"
    with pytest.raises(QuarantineError, match="unknown reason 'not_jsn'; did you mean not_json"):
        known_reason("not_jsn")
    with pytest.raises(QuarantineError, match="expected one of not_json, trailing_data"):
        known_reason("?")


def test_a_transformation_mends_leaves_or_fails_message_by_message(tmp_path: Path) -> None:
    file = tmp_path / "mend.py"
    file.write_text(
        "import json\n"
        "def transform(value):\n"
        "    event = json.loads(value)\n"
        "    return {1: b'one', 2: None, 3: 'text'}[event]\n"
    )
    mend = load_transform(file)
    assert mend(b"1") == b"one"
    assert mend(b"2") is None
    with pytest.raises(TransformError, match="expected bytes or None from transform, found str"):
        mend(b"3")
    with pytest.raises(TransformError, match="JSONDecodeError: Expecting value"):
        mend(None)
    assert not list(tmp_path.glob("__pycache__"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1", "defines no `transform`; expected `def transform"),
        ("transform = 1", "defines no `transform`"),
        ("def transform(", "cannot be run: SyntaxError"),
        ("1 / 0", "cannot be run: ZeroDivisionError"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_file_that_is_no_transformation_is_refused(tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "mend.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(QuarantineError, match=said):
        load_transform(file)


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, postgres_url: str) -> Settings:
    """Settings of a database and a lake, without Kafka."""
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("ANTENNA_HOME", str(tmp_path))
    # The characters that DuckDB takes for a pattern.
    monkeypatch.setenv("ANTENNA_LAKE", str(tmp_path / "la[k]e *'"))
    monkeypatch.setenv("ANTENNA_POSTGRES_URL", postgres_url)
    return load_settings()


@pytest.fixture
def filled(connection: psycopg.Connection, settings: Settings) -> psycopg.Connection:
    reject(connection, settings, FIRST)
    reject(connection, settings, SECOND)
    return connection


def antenna(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["quarantine", *arguments])


def said(*arguments: str) -> str:
    run = antenna(*arguments)
    assert run.exit_code == 0, run.exception
    return run.stdout


def refused(*arguments: str) -> str:
    run = antenna(*arguments)
    assert run.exit_code == 1
    assert isinstance(run.exception, AntennaError)
    return str(run.exception)


@services
@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("command", [(), ("list",)])
def test_the_list_counts_by_reason_with_a_safe_example(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    _, _, rows = said(*command).partition("─ \n")
    lines = [re.split(r"\s{2,}", line.strip()) for line in rows.splitlines() if line.strip()]
    day = "2026-11-22"
    assert lines == [
        ["not_json", "3", f"{day} 10:00:00", f"{day} 10:00:03", "0", "0", "{"],
        ["blank", "1", f"{day} 10:00:00", f"{day} 10:00:00", "1", "0", "no value"],
        ["not_utf8", "1", f"{day} 10:00:01", f"{day} 10:00:01", "1", "1", r"\xff\xfe"],
        ["wrong_type", "1", f"{day} 10:00:01", f"{day} 10:00:01", "0", "1", '{"bytes": "12"}'],
    ]


@services
@pytest.mark.usefixtures("filled")
def test_no_control_character_and_no_markup_of_a_message_reaches_the_terminal() -> None:
    shown = said("list", "--from", "2026-11-22T10:00:02Z", "--to-batch", "1")
    assert r"\x1b[31m[red]\n" in shown
    assert "\x1b" not in shown
    assert r"\x1b[31m[red]\n" in said("show", "0", "2")


@services
@pytest.mark.parametrize(
    ("selection", "coordinates"),
    [
        (Selection(), [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]),
        (Selection(reasons=("blank", "wrong_type")), [(0, 1), (1, 0)]),
        (
            Selection(since=SENT + timedelta(seconds=1), until=SENT + timedelta(seconds=3)),
            [(0, 1), (0, 2), (1, 1)],
        ),
        (Selection(first_batch=2), [(0, 3)]),
        (Selection(last_batch=1, reasons=("not_json",)), [(0, 0), (0, 2)]),
        (Selection(limit=2), [(0, 0), (0, 1)]),
        (Selection(reasons=("too_long",)), []),
    ],
)
def test_a_selection_takes_what_it_names(
    filled: psycopg.Connection, settings: Settings, selection: Selection, coordinates: list[tuple[int, int]]
) -> None:
    found = select(filled, settings.lake_uri, selection)
    assert found.schema.names == MESSAGES.names
    assert [(row["kafka_partition"], row["kafka_offset"]) for row in found.to_pylist()] == coordinates


@services
def test_an_empty_quarantine_says_so(connection: psycopg.Connection, settings: Settings) -> None:
    assert said() == "no message is in quarantine\n"
    assert by_reason(connection, settings.lake_uri, Selection()) == []


@services
def test_what_was_replayed_has_left_the_list_and_the_status(
    filled: psycopg.Connection, settings: Settings
) -> None:
    commit_replay(
        filled,
        topic=TOPIC,
        clock=SENT,
        messages=[
            ReplayedMessage(TOPIC_ID, 0, 0, "not_json"),
            ReplayedMessage(TOPIC_ID, 0, 1, "wrong_type"),
        ],
        content=BatchContent(files=[AttemptFile("landing/3-replay/part-0", SENT, 2, 20, 1)]),
        transform=None,
    )
    left = {"not_json": 2, "blank": 1, "not_utf8": 1}
    summaries = by_reason(filled, settings.lake_uri, Selection())
    assert {one.reason: one.messages for one in summaries} == left
    table = _quarantine(filled)
    reasons, counts = (list(column.cells) for column in table.columns)
    assert dict(zip(reasons, map(int, map(str, counts)), strict=True)) == left
    assert "state       replayed by batch 3" in said("show", "0", "1")


@services
@pytest.mark.usefixtures("filled")
def test_one_message_is_shown_with_all_that_is_known_of_it() -> None:
    assert said("show", "0", "1").splitlines() == [
        "topic id    id-1",
        "partition   0",
        "offset      1",
        "Kafka time  2026-11-22T10:00:01+00:00",
        "rejected by batch 1",
        "reason      wrong_type",
        "detail      why 1",
        "state       in quarantine",
        "size        15 bytes",
        'value       {"bytes": "12"}',
        "  000000  7b 22 62 79 74 65 73 22 3a 20 22 31 32 22 7d",
    ]
    assert "value       none: Kafka held a message without one" in said("show", "1", "0")
    assert "no message at offset 9 of partition 0 was rejected" in refused("show", "0", "9")


@services
@pytest.mark.usefixtures("filled")
def test_an_export_has_text_or_base64_with_coordinates_and_overwrites_nothing(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    assert said("export", "--from-batch", "1", "--output", str(file)) == f"wrote 6 messages to {file}\n"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines[1] == {
        "topic_id": TOPIC_ID,
        "partition": 0,
        "offset": 1,
        "kafka_timestamp": "2026-11-22T10:00:01+00:00",
        "batch": 1,
        "reason": "wrong_type",
        "detail": "why 1",
        "value": '{"bytes": "12"}',
    }
    assert lines[4]["value"] is None
    assert (lines[5]["value_base64"], "value" in lines[5]) == ("//4=", False)
    assert "exists and is not overwritten" in refused("export", "--output", str(file))
    assert "cannot be written" in refused("export", "--output", str(tmp_path / "no" / "where"))
    assert [path.name for path in tmp_path.glob("*out*")] == ["out.jsonl"]


@services
@pytest.mark.usefixtures("filled")
def test_an_export_to_parquet_has_the_same_rows(tmp_path: Path) -> None:
    file = tmp_path / "out.parquet"
    said("export", "--reason", "not_utf8", "--output", str(file))
    assert pq.read_table(file).to_pylist() == [
        {
            "topic_id": TOPIC_ID,
            "batch": 1,
            "value": b"\xff\xfe",
            "reason": "not_utf8",
            "detail": "why 1",
            "kafka_partition": 1,
            "kafka_offset": 1,
            "kafka_timestamp": datetime(2026, 11, 22, 10, 0, 1, tzinfo=UTC),
        }
    ]


@services
def test_row_32_times_that_no_calendar_has_are_listed_shown_and_exported_from_files_that_hold_them(
    connection: psycopg.Connection, settings: Settings, tmp_path: Path
) -> None:
    """As programs before 0018 wrote them: Kafka's time times a thousand, whatever it was."""
    micros = [2**63 - 1, -(2**63) + 1, 253_402_300_800_000_000, -62_135_596_800_000_001, 0]
    reject(connection, settings, {0: [("not_json", b"{")] * len(micros)})
    path = Path(settings.lake_uri) / "landing/1-attempt/rejected/part-0.parquet"
    table = pq.read_table(path, partitioning=None)
    place = table.schema.get_field_index("kafka_timestamp")
    times = pa.array(micros, pa.int64()).cast(table.schema.field(place).type)
    pq.write_table(table.set_column(place, table.schema.field(place), times), path)
    first, last = "0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59.999000+00:00"
    assert "9999-12-31 23:59:59" in said("list")
    assert "9999-12-31 23:59:59" in said("list", "--from", "2026-11-22T10:00:00Z")
    for offset, time in enumerate([last, first, last, first, "1970-01-01T00:00:00+00:00"]):
        assert f"Kafka time  {time}" in said("show", "0", str(offset))
    said("export", "--output", str(tmp_path / "out.parquet"))
    lines = tmp_path / "out.jsonl"
    said("export", "--output", str(lines))
    exported = [json.loads(line)["kafka_timestamp"] for line in lines.read_text().splitlines()]
    assert exported == [last, first, last, first, "1970-01-01T00:00:00+00:00"]


@services
@pytest.mark.usefixtures("filled")
def test_only_files_that_the_ledger_names_are_read(
    connection: psycopg.Connection, settings: Settings
) -> None:
    named = Path(settings.lake_uri) / "landing/1-attempt/rejected/part-0.parquet"
    planted = named.with_name("part-1.parquet")
    planted.write_bytes(named.read_bytes())
    assert select(connection, settings.lake_uri, Selection()).num_rows == 6
    named.unlink()
    assert "does not exist; restore the file" in refused("list")


@services
@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("list", "--reason", "wrong_typ"), "did you mean wrong_type?"),
        (("export", "--reason", "x y", "--output", "out"), "expected one of"),
        (("replay", "--reason", "blank", "--transform", "nowhere.py"), "nowhere.py cannot be read"),
    ],
)
def test_a_mistake_is_one_clear_error(arguments: tuple[str, ...], told: str) -> None:
    assert told in refused(*arguments)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("list", "--from", "yesterday"), "expected a time with a zone such as 2026-11-20T10:00:00Z"),
        (("list", "--to", "2026-11-20T10:00:00"), "expected a time with a zone"),
        (("replay",), "expected a selection such as --reason wrong_type, or --all"),
        (("replay", "--limit", "0", "--all"), "greater than or equal to 1"),
        (("show", "x", "1"), "partition"),
    ],
)
def test_a_wrong_argument_is_refused_with_what_was_expected(arguments: tuple[str, ...], told: str) -> None:
    run = CliRunner().invoke(app, ["quarantine", *arguments], env={"COLUMNS": "300"})
    assert run.exit_code == 2
    assert told.lower() in run.stderr.lower()
