"""Row 22 of docs/proofs.md: hostile text in every text field is stored as it is, byte for byte, on its whole way, and
shown without effect.
"""

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from rich.console import Console
from typer.testing import CliRunner

from antenna_assets.cli import app
from antenna_assets.cli.demo_tables import result_tables
from antenna_assets.cli.quarantine_tables import EXAMPLE_LENGTH
from antenna_assets.definitions import build_definitions
from antenna_assets.defs.resources import EngineResource
from antenna_assets.domain.hours import HOUR, hour_key, hour_of
from antenna_assets.domain.safe_text import safe_text
from antenna_assets.settings import Settings
from antenna_assets.simulator.answers import Answers
from antenna_assets.simulator.answers_file import read_answers, write_answers
from antenna_assets.simulator.compare import differences
from antenna_assets.simulator.events import Event, Message
from antenna_assets.simulator.send import Target, send
from antenna_assets.streaming.job import Stream
from antenna_assets_tests.end_to_end.runs import instance, publish_what_the_sensor_asks_for
from antenna_assets_tests.parse_oracle import Rejected, verdict
from antenna_assets_tests.stream_engines import EACH_ENGINE

pytestmark = [pytest.mark.services, EACH_ENGINE]

TEXTS = (
    *("'", '"', "''; --", "'; DROP TABLE user_metadata; --", "' OR 1=1 --", "$$x$$", "E'\\x'", "U&'\\0061'"),
    *(
        "Robert'); DELETE FROM ledger.hour; --",
        '"public"."bytes"',
        "/* */",
        "COMMIT;",
        "pg_sleep(9)",
        "x;\nSELECT 1",
    ),
    *("\\", "\\\\", "\\N", "\\.", "\\n", "\\x41", "\\u0041", "a\\", "\\\n", "\\.\n"),
    *(
        "a\tb",
        "a\nb",
        "a\r\nb",
        "a\x01b",
        "\x07\x08",
        "\x1b[31mred\x1b[0m",
        "\x1b]0;title\x07",
        "\x7f",
        "\x85x",
    ),
    *(
        "\u202egnp.exe",
        "\u200b",
        "a\u200db",
        "\u2066x\u2069",
        "\ufeffx",
        "\u2028x",
        "\ufffd",
        "\ufffe",
        "\U0010ffff",
    ),
    *(
        "😀",
        "👩‍👩‍👧‍👦",
        "🇪🇸",
        "é",
        "e\u0301",
        "Z\u0351\u036b\u0343",
        "שלום",
        "ﷺ",
        "ß",
        "İı",
        "\u1e9e",
    ),
    *(
        "%s",
        "%(id)s",
        "%%",
        "%n%n",
        "{}",
        "{0}",
        "{id}",
        "{{x}}",
        "${jndi:ldap://127.0.0.1/a}",
        "$HOME",
        "`id`",
        "$(id)",
    ),
    *(
        "../../etc/passwd",
        "a/b",
        "C:\\x",
        "file:///etc/passwd",
        "s3://x/y",
        "*",
        "?",
        "hour=2026112210",
        "a%2Fb",
        "#",
    ),
    *(
        "=cmd()",
        "+1",
        "-1",
        "@SUM(A1)",
        "=1+1",
        "1e5",
        "007",
        "NaN",
        "null",
        "NULL",
        "None",
        "true",
        "undefined",
        "0",
    ),
    *("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "&amp;", "]]>", "<!--", "javascript:1"),
    *(
        "[red]",
        "[/]",
        "[red]x[/red]",
        "[/red]",
        "[link=file:///]x[/link]",
        "\\[red]",
        "[bold",
        ":fire:",
        "[@click=x]y",
    ),
    *(
        " x ",
        "x ",
        "\u3000x",
        "a,b",
        "a;b",
        '"a","b"',
        "__HIVE_DEFAULT_PARTITION__",
        "x" * 64,
        "😀" * 16,
        "'" * 64,
    ),
)
"""Each at most 64 bytes, none blank: the contract accepts all of them in every field."""

LONG_APPS = ("'" * 256, "\\" * 256, "\x01" * 256, "😀" * 64, "[/]" * 85, "\u0301" * 128)
SHOWN = (
    "[red]x[/red]",
    "[/]",
    "\\[red]",
    "[bold",
    ":fire:",
    "\x1b[31mred\x1b[0m",
    "\u202egnp.exe",
    "a\r\nb",
    "a\\",
)
"""What a terminal or Rich would act on."""

QUOTA = 3


def users(connection: psycopg.Connection) -> dict[str, tuple[str, int]]:
    """A user of each text, with it as name and e-mail too; all users with e-mail and quota."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO user_metadata (id, name, email, quota) VALUES (%s, %s, %s, %s)",
            [(text, text, text, QUOTA) for text in TEXTS],
        )
    rows = connection.execute("SELECT id, email, quota FROM user_metadata").fetchall()
    return {id_: (email, quota) for id_, email, quota in rows}


def users_now(connection: psycopg.Connection) -> list[tuple]:
    return connection.execute("SELECT * FROM user_metadata ORDER BY id").fetchall()


def traffic(hour: datetime) -> tuple[list[Message], list[bytes]]:
    """An event for each text, which stands in every field and is the key; and the values of messages to reject."""
    time = int(hour.timestamp()) * 1_000_000
    events = [Event(time + number, text, text, text, 5) for number, text in enumerate(TEXTS)]
    events += [Event(time, text, "u", "a", 5) for text in LONG_APPS]
    sent = []
    rejected = []
    for number, event in enumerate(events):
        fields = event._asdict() | {
            "timestamp": f"{hour:%Y-%m-%dT%H:%M:%S}.{event.timestamp % 1_000_000:06d}Z"
        }
        key = event.id.encode()
        # As escapes and as they are: the same text.
        value = json.dumps(fields, ensure_ascii=number % 2 == 0).encode()
        sent.append(Message(key, value, event, None))
        rejected.append(json.dumps(fields | {"bytes": -1}, ensure_ascii=number % 2 == 0).encode())
        sent.append(Message(key, rejected[-1], None, "negative_bytes"))
        if (raw := event.app.encode()).strip():
            rejected.append(raw)
            now = datetime.now(UTC)
            reason = verdict(raw, now, now - timedelta(days=35))
            assert isinstance(reason, Rejected)
            sent.append(Message(key, raw, None, reason.reason))
    return sent, rejected


def strings(rows: list[dict], name: str) -> list[str]:
    return sorted(row[name] for row in rows)


def shown(settings: Settings, *arguments: str, code: int = 0) -> str:
    """What a command prints: nothing but printable characters, and none of them invisible."""
    result = CliRunner().invoke(app, list(arguments), env={**settings.exports(), "COLUMNS": "1000"})
    assert result.exit_code == code, result.exception
    assert_harmless(result.stdout)
    return result.stdout


def assert_harmless(text: str) -> None:
    assert sorted({letter for letter in text if not letter.isprintable() and letter != "\n"}) == []


def test_row_22_hostile_text_is_stored_as_it_is_and_shown_without_effect(
    request: pytest.FixtureRequest,
    settings: Settings,
    connection: psycopg.Connection,
    new_stream: Callable[..., Stream],
    tmp_path: Path,
    proving: bool,
    record_property: Callable[[str, object], None],
) -> None:
    hour = hour_of(datetime.now(UTC) - timedelta(minutes=2)) - HOUR
    answers = Answers(users(connection))
    known = users_now(connection)
    sent, rejected = traffic(hour)
    accepted = [message.event for message in sent if message.event is not None]
    receipt = send(answers.counted(sent), Target(settings.kafka_bootstrap or "", settings.topic))
    answers.record(receipt.topic, receipt.topic_id, receipt.offsets)
    new_stream().read_available()
    url = settings.postgres_url or ""
    with instance() as dagster:
        assert publish_what_the_sensor_asks_for(dagster) >= 1
        # Live and hourly tables, e-mails and those over quota included.
        assert [str(one) for one in differences(answers, url)] == []
        assert users_now(connection) == known
        if proving:
            # The Java of this process is started once, with the connectors of the stream.
            request.getfixturevalue("spark")
            job = build_definitions({"engine": EngineResource(name="spark")}).resolve_job_def("hourly_usage")
            assert job.execute_in_process(
                instance=dagster, tags={"dagster/partition": hour_key(hour)}
            ).success
            assert [str(one) for one in differences(answers, url)] == []

    lake = Path(settings.lake_uri)
    paths = connection.execute("SELECT path, kind FROM ledger.file").fetchall()
    landed = [row for path, kind in paths if kind == "landed" for row in rows_of(lake / path)]
    raw = DeltaTable(lake / "raw_parquet").to_pyarrow_table().to_pylist()
    enriched = DeltaTable(lake / "enriched_usage").to_pyarrow_table().to_pylist()
    for name in ("app", "id", "antenna_id"):
        expected = sorted(getattr(event, name) for event in accepted)
        for rows in (landed, raw, enriched):
            assert strings(rows, name) == expected
    of_known = [row for row in enriched if row["quota"] == QUOTA]
    for name in ("name", "email"):
        assert strings(of_known, name) == sorted(TEXTS)
    over = connection.execute("SELECT email FROM user_quota_limit").fetchall()
    assert sorted(email for (email,) in over) == sorted(TEXTS)
    ids = connection.execute("SELECT id FROM bytes_hourly WHERE type = 'app_total_bytes'").fetchall()
    assert sorted(id_ for (id_,) in ids) == sorted({event.app for event in accepted})

    for file in (tmp_path / "rejected.parquet", tmp_path / "rejected.jsonl"):
        shown(settings, "quarantine", "export", "--output", str(file))
    exported = sorted(pq.read_table(tmp_path / "rejected.parquet")["value"].to_pylist())
    lines = (tmp_path / "rejected.jsonl").read_text(encoding="ascii").splitlines()
    assert exported == sorted(json.loads(line)["value"].encode() for line in lines) == sorted(rejected)

    refused = [row for path, kind in paths if kind == "rejected" for row in rows_of(lake / path)]
    counted = shown(settings, "quarantine", "list")
    assert f"{len(accepted):,}" in counted
    # Several came within a millisecond: the first of a reason is that of the first partition, whichever was sent first.
    refused.sort(key=lambda row: (row["kafka_timestamp"], row["kafka_partition"], row["kafka_offset"]))
    examples = {row["reason"]: row["value"] for row in reversed(refused)}
    assert all(f" {safe_text(value, EXAMPLE_LENGTH)} " in counted for value in examples.values())
    for command in (("status",), ("certificate", hour_key(hour)), ("verify",)):
        shown(settings, *command)
    where = {row["value"]: row for row in refused}
    for text in SHOWN:
        row = where[text.encode()]
        place = (str(row["kafka_partition"]), str(row["kafka_offset"]))
        assert f"value       {safe_text(text)}\n" in shown(settings, "quarantine", "show", *place)
    # As many as `check` lists: twenty differences.
    for some in (SHOWN[::2], SHOWN[1::2]):
        more = read_answers(written(answers, tmp_path / "answers.json"))
        for text in some:
            more.add(Event(int(hour.timestamp()) * 1_000_000, text, "u", "a", 1))
        said = shown(settings, "check", "--answers", str(written(more, tmp_path / "more.json")), code=1)
        assert all(said.count(f"Z {safe_text(text)} ") == 2 for text in some)
    # Wide enough for the longest name without a blank, escaped: a narrower console shows lists.
    console = Console(file=io.StringIO(), width=3_000, highlight=False, emoji=False, force_terminal=False)
    for table in result_tables(connection, [hour, hour + HOUR]):
        console.print(table)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert_harmless(said)
    assert all(said.count(f" {safe_text(text)} ") >= 3 for text in SHOWN)

    record_property("hostile texts", len(TEXTS) + len(LONG_APPS))
    record_property("fields", 7)
    record_property("texts that changed", 0)


def written(answers: Answers, path: Path) -> Path:
    write_answers(answers, path)
    return path


def rows_of(path: Path) -> list[dict]:
    return pq.read_table(path, partitioning=None).to_pylist()
