"""Replays on real Spark and PostgreSQL: what is accepted, and that nothing is lost or doubled, whatever happens."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.closing_rule import NO_BACKLOG
from antenna_assets.domain.schema import LANDED_SCHEMA
from antenna_assets.ledger.batch import AttemptFile, BatchContent, BatchPlan
from antenna_assets.ledger.commit import NotContiguous, Observation, commit_batch, commit_heartbeat
from antenna_assets.ledger.errors import LedgerError
from antenna_assets.ledger.files import generation_files
from antenna_assets.ledger.generations import Generation
from antenna_assets.ledger.head import read_head
from antenna_assets.ledger.hours_to_publish import hours_to_publish
from antenna_assets.ledger.offsets import OffsetRange
from antenna_assets.ledger.replay import (
    AlreadyReplayed,
    HourInPart,
    ReplayedMessage,
    commit_replay,
    hours_in_part,
)
from antenna_assets.ledger.seal import seal
from antenna_assets.operations.quarantine import replay
from antenna_assets.operations.quarantine.files import QuarantineError
from antenna_assets.operations.quarantine.message_transform import Transform, load_transform
from antenna_assets.operations.quarantine.messages import Selection, find, select
from antenna_assets.operations.quarantine.replay import FAILED, IN_PART, LEFT, HourOfReplay, Plan, Skipped
from antenna_assets.settings import Settings, load_settings
from antenna_assets_tests.quarantined import SENT, TOPIC, TOPIC_ID, reject

pytestmark = pytest.mark.services

CLOCK = SENT + timedelta(hours=2)
NINE = SENT - timedelta(hours=1)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
OLD = datetime(2026, 2, 1, 3, tzinfo=UTC)

MEND = """
import json

def transform(value: bytes) -> bytes | None:
    event = json.loads(value)
    if "bytes" not in event:
        return None
    event["bytes"] = int(event["bytes"])
    return json.dumps(event).encode()
"""


def event(**fields: object) -> bytes:
    values = {"bytes": 10, "timestamp": int(NINE.timestamp()), "app": "SKYPE", "id": "u1", "antenna_id": "a1"}
    return json.dumps({**values, **fields}).encode()


MESSAGES = {
    0: [
        ("wrong_type", event(bytes="12")),
        ("not_json", b"{"),
        ("timestamp_too_old", event(timestamp=OLD.isoformat())),
    ],
    3: [("wrong_type", event(bytes="7", timestamp=SENT.isoformat())), ("missing_field", b'{"id": "u1"}')],
}
"""Five messages; the transformation mends two of them, and the too old one needs none."""


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, postgres_url: str) -> Settings:
    """Settings of a database and a lake, without Kafka."""
    monkeypatch.setenv("ANTENNA_HOME", str(tmp_path))
    monkeypatch.setenv("ANTENNA_POSTGRES_URL", postgres_url)
    return load_settings()


@pytest.fixture
def ledger(connection: psycopg.Connection, settings: Settings) -> psycopg.Connection:
    """The five messages in quarantine, as batch 1."""
    reject(connection, settings, MESSAGES)
    return connection


@pytest.fixture
def mend(tmp_path: Path) -> Transform:
    file = tmp_path / "mend.py"
    file.write_text(MEND)
    return load_transform(file)


Replay = Callable[..., tuple[Plan, Callable[[], int]]]


@pytest.fixture
def planned(settings: Settings, ledger: psycopg.Connection) -> Replay:
    """Plans a replay; returns the plan, and what carries it out on a connection."""

    def make(selection: Selection = Selection(), transform: Transform | None = None) -> tuple:  # noqa: B008
        found = replay.plan(ledger, settings, selection, clock=CLOCK, transform=transform)

        def execute(on: psycopg.Connection = ledger) -> int:
            return replay.execute(on, settings, found, transform=transform)

        return found, execute

    return make


def everything(ledger: psycopg.Connection) -> dict[str, list]:
    """The rows of every table that a batch writes."""
    tables = ["head", "batch", "batch_offset", "file", "rejection", "hour", "replay", "replayed"]
    names = [*(f"ledger.{name}" for name in tables), "bytes_agg_antenna", "bytes_agg_user", "bytes_agg_app"]
    return {
        name: ledger.execute(f"SELECT t::text FROM {name} AS t ORDER BY 1".encode()).fetchall()  # noqa: S608
        for name in names
    }


def landed_rows(ledger: psycopg.Connection, settings: Settings) -> list[dict]:
    """What the landed files hold that the ledger names, by partition and offset; each file as the ledger says."""
    rows = []
    for path, count, bytes_ in ledger.execute(
        "SELECT path, rows, bytes FROM ledger.file WHERE kind = 'landed'"
    ).fetchall():
        table = pq.read_table(Path(settings.lake_uri) / path, partitioning=None)
        assert (table.schema.names, table.schema.types) == (LANDED_SCHEMA.names, LANDED_SCHEMA.types)
        found = table.to_pylist()
        assert (len(found), sum(row["bytes"] for row in found)) == (count, bytes_)
        rows += found
    return sorted(rows, key=lambda row: (row["kafka_partition"], row["kafka_offset"]))


def coordinates(rows: list[dict]) -> list[tuple[int, int]]:
    return [(row["kafka_partition"], row["kafka_offset"]) for row in rows]


def assert_each_message_is_in_one_place(ledger: psycopg.Connection, settings: Settings) -> None:
    """Invariant 2: landed + rejected - replayed rows = messages consumed, and each message is one of them."""
    landed = coordinates(landed_rows(ledger, settings))
    waiting = coordinates(select(ledger, settings.lake_uri, Selection()).to_pylist())
    consumed = ledger.execute(
        "SELECT partition, from_offset, until_offset FROM ledger.batch_offset"
    ).fetchall()
    assert sorted(landed + waiting) == sorted(
        (partition, offset) for partition, first, end in consumed for offset in range(first, end)
    )
    row = ledger.execute(
        "SELECT (SELECT sum(rows) FROM ledger.file) - (SELECT count(*) FROM ledger.replayed)"
        " - (SELECT sum(until_offset - from_offset) FROM ledger.batch_offset)"
    ).fetchone()
    assert row == (0,)
    assert hours_in_part(ledger, [NINE, SENT, OLD]) == []


def stream_one_event(connection: psycopg.Connection, number: int, offset: int, settings: Settings) -> None:
    """What the stream commits of one more event at nine, with the number that it expects."""
    path = f"landing/{number}-stream/hour=2026112209/part-0.parquet"
    row = {
        "timestamp": NINE,
        "app": "SKYPE",
        "id": "u2",
        "antenna_id": "a1",
        "bytes": 5,
        "kafka_partition": 0,
        "kafka_offset": offset,
    }
    place = Path(settings.lake_uri) / path
    place.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([row], schema=LANDED_SCHEMA), place)
    commit_batch(
        connection,
        BatchPlan(TOPIC, TOPIC_ID, number, CLOCK, [OffsetRange(0, offset, offset + 1)]),
        BatchContent(files=[AttemptFile(path, NINE, 1, 5, place.stat().st_size)], event_times={0: NINE}),
        Observation(CLOCK, dict.fromkeys([0], NO_BACKLOG)),
        lateness=MINUTE,
    )


def test_a_plan_says_what_is_accepted_by_hour_and_why_the_rest_stays_and_changes_nothing(
    ledger: psycopg.Connection, settings: Settings, planned: Replay, mend: Transform
) -> None:
    before = everything(ledger)
    files = sorted(Path(settings.lake_uri).rglob("*.*"))
    found, _ = planned(transform=mend)
    assert list(found.hours) == [
        HourOfReplay(OLD, 1, 10, closed=False),
        HourOfReplay(NINE, 1, 12, closed=False),
        HourOfReplay(SENT, 1, 7, closed=False),
    ]
    assert [(one.partition, one.offset, one.reason) for one in found.skipped] == [
        (0, 1, FAILED),
        (3, 1, LEFT),
    ]
    assert found.skipped[0].detail.startswith("JSONDecodeError: ")
    assert everything(ledger) == before
    assert sorted(Path(settings.lake_uri).rglob("*.*")) == files


def test_without_a_transformation_the_stream_s_verdict_stands(planned: Replay) -> None:
    found, _ = planned()
    assert coordinates(found.accepted.to_pylist()) == [(0, 2)]
    assert found.skipped_by_reason == {"wrong_type": 2, "not_json": 1, "missing_field": 1}
    assert found.skipped[0] == Skipped(0, 0, "wrong_type", 'bytes is a number in quotes: "12"')


def test_what_was_mended_joins_its_hours_under_its_first_coordinates(
    ledger: psycopg.Connection, settings: Settings, planned: Replay, mend: Transform
) -> None:
    _, execute = planned(Selection(reasons=("wrong_type",)), mend)
    offsets = everything(ledger)["ledger.batch_offset"]
    assert execute() == 2
    assert landed_rows(ledger, settings) == [
        {
            "timestamp": timestamp,
            "app": "SKYPE",
            "id": "u1",
            "antenna_id": "a1",
            "bytes": bytes_,
            "kafka_partition": partition,
            "kafka_offset": 0,
        }
        for timestamp, bytes_, partition in [(NINE, 12, 0), (SENT, 7, 3)]
    ]
    assert ledger.execute(
        "SELECT kind, clock, rows, bytes, quarantined, max_event_time FROM ledger.batch WHERE batch = 2"
    ).fetchone() == ("replay", CLOCK, 2, 19, 0, SENT)
    assert ledger.execute("SELECT batch, transform FROM ledger.replay").fetchall() == [(2, MEND)]
    assert ledger.execute("SELECT * FROM ledger.replayed ORDER BY partition").fetchall() == [
        (TOPIC_ID, 0, 0, "wrong_type", 2),
        (TOPIC_ID, 3, 0, "wrong_type", 2),
    ]
    assert ledger.execute("SELECT date, sum_user_bytes FROM bytes_agg_user ORDER BY date").fetchall() == [
        (NINE, 12),
        (SENT, 7),
    ]
    # No offset, event time or watermark of the stream moves, and no second rejected file is written.
    assert everything(ledger)["ledger.batch_offset"] == offsets
    head = read_head(ledger, TOPIC)
    assert (head.batch, head.event_times, head.low_watermark) == (2, {}, None)
    assert ledger.execute("SELECT count(*) FROM ledger.file WHERE kind = 'rejected'").fetchone() == (1,)
    assert [batch for _, batch in find(ledger, settings.lake_uri, 0, 0)] == [2]
    assert_each_message_is_in_one_place(ledger, settings)


def test_a_replay_done_twice_changes_nothing_the_second_time(
    ledger: psycopg.Connection, settings: Settings, planned: Replay, mend: Transform
) -> None:
    selection = Selection(reasons=("wrong_type",))
    _, execute = planned(selection, mend)
    execute()
    after = everything(ledger)
    with pytest.raises(QuarantineError, match="no message in quarantine is selected"):
        planned(selection, mend)
    with pytest.raises(AlreadyReplayed, match="another replay was faster"):
        execute()
    assert everything(ledger) == after
    _, execute_the_rest = planned(transform=mend)
    execute_the_rest()
    assert coordinates(landed_rows(ledger, settings)) == [(0, 0), (0, 2), (3, 0)]
    assert_each_message_is_in_one_place(ledger, settings)


def test_a_replay_that_died_between_landing_and_commit_is_done_once_by_the_next(
    ledger: psycopg.Connection,
    settings: Settings,
    planned: Replay,
    mend: Transform,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def die(*_arguments: object, **_named: object) -> int:
        raise KeyboardInterrupt

    before = everything(ledger)
    with monkeypatch.context() as patch:
        patch.setattr(replay, "commit_replay", die)
        with pytest.raises(KeyboardInterrupt):
            planned(transform=mend)[1]()
    # Its files lie there, and count for nothing.
    assert len(list(Path(settings.lake_uri).glob("landing/2-*/hour=*/*.parquet"))) == 3
    assert everything(ledger) == before
    planned(transform=mend)[1]()
    assert coordinates(landed_rows(ledger, settings)) == [(0, 0), (0, 2), (3, 0)]
    assert_each_message_is_in_one_place(ledger, settings)


def test_a_replay_that_dies_inside_its_transaction_leaves_nothing(
    ledger: psycopg.Connection, planned: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    from antenna_assets.ledger import replay as module

    def die(*_arguments: object, **_named: object) -> None:
        raise KeyboardInterrupt

    before = everything(ledger)
    _, execute = planned()
    with monkeypatch.context() as patch:
        patch.setattr(module, "close_passed", die)
        with pytest.raises(KeyboardInterrupt):
            execute()
    assert everything(ledger) == before
    assert execute() == 2


def test_a_commit_whose_answer_was_lost_is_not_done_again(
    ledger: psycopg.Connection, settings: Settings, planned: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    def commit_and_lose_the_answer(*arguments: object, **named: object) -> int:
        commit_replay(*arguments, **named)  # type: ignore[arg-type]
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    with monkeypatch.context() as patch:
        patch.setattr(replay, "commit_replay", commit_and_lose_the_answer)
        with pytest.raises(psycopg.OperationalError):
            planned(Selection(reasons=("timestamp_too_old",)))[1]()
    with pytest.raises(QuarantineError, match="no message in quarantine is selected"):
        planned(Selection(reasons=("timestamp_too_old",)))
    assert_each_message_is_in_one_place(ledger, settings)


def test_of_two_replays_at_once_one_counts(
    ledger: psycopg.Connection, settings: Settings, planned: Replay, mend: Transform, postgres_url: str
) -> None:
    # The second overlaps with the first in one message of three, and is refused whole.
    plans = [planned(Selection(reasons=("wrong_type",), limit=1), mend)[1], planned(transform=mend)[1]]
    outcomes: list[int | Exception] = []
    start = threading.Barrier(2)

    def run(execute: Callable[..., int]) -> None:
        with connect(postgres_url) as connection:
            start.wait()
            try:
                outcomes.append(execute(connection))
            except AlreadyReplayed as error:
                outcomes.append(error)

    threads = [threading.Thread(target=run, args=[execute]) for execute in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 2
    assert {type(outcome) for outcome in outcomes} == {int, AlreadyReplayed}
    assert_each_message_is_in_one_place(ledger, settings)
    if len(landed_rows(ledger, settings)) == 1:
        planned(transform=mend)[1]()
    assert coordinates(landed_rows(ledger, settings)) == [(0, 0), (0, 2), (3, 0)]


def test_the_stream_may_commit_between_a_replay_s_landing_and_its_commit(
    ledger: psycopg.Connection, settings: Settings, planned: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    def commit_after_the_stream(*arguments: object, **named: object) -> int:
        stream_one_event(ledger, 2, 3, settings)
        return commit_replay(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(replay, "commit_replay", commit_after_the_stream)
    assert planned()[1]() == 3
    assert ledger.execute("SELECT batch, kind FROM ledger.batch ORDER BY batch").fetchall() == [
        (1, "stream"),
        (2, "stream"),
        (3, "replay"),
    ]
    assert_each_message_is_in_one_place(ledger, settings)


def test_a_replay_may_commit_between_the_stream_s_landing_and_its_commit(
    ledger: psycopg.Connection, settings: Settings, planned: Replay
) -> None:
    assert planned()[1]() == 2
    # The stream has read the head at batch 1, so it expects to be batch 2.
    stream_one_event(ledger, 2, 3, settings)
    assert ledger.execute("SELECT batch, kind FROM ledger.batch ORDER BY batch").fetchall() == [
        (1, "stream"),
        (2, "replay"),
        (3, "stream"),
    ]
    commit_heartbeat(ledger, TOPIC, 3, Observation(CLOCK), lateness=MINUTE)
    assert_each_message_is_in_one_place(ledger, settings)
    # Another stream's batch is refused as ever, whatever replays came in between.
    with pytest.raises(NotContiguous, match="expected to commit batch 2 .* another stream wrote to it"):
        commit_batch(
            ledger,
            BatchPlan(TOPIC, TOPIC_ID, 2, CLOCK, [OffsetRange(1, 0, 1)]),
            BatchContent(),
            Observation(CLOCK),
            lateness=MINUTE,
        )


def test_a_replay_between_a_look_at_kafka_and_the_heartbeat_does_not_stop_the_stream(
    ledger: psycopg.Connection, planned: Replay
) -> None:
    planned()[1]()
    assert commit_heartbeat(ledger, TOPIC, 1, Observation(CLOCK), lateness=MINUTE) == CLOCK - MINUTE
    with pytest.raises(NotContiguous):
        commit_heartbeat(ledger, TOPIC, 0, Observation(CLOCK), lateness=MINUTE)


def test_a_closed_hour_becomes_dirty_and_gets_its_next_generation(
    ledger: psycopg.Connection, settings: Settings, planned: Replay, mend: Transform
) -> None:
    stream_one_event(ledger, 2, 3, settings)
    commit_heartbeat(ledger, TOPIC, 2, Observation(CLOCK), lateness=MINUTE)
    assert seal(ledger, NINE) == Generation(NINE, 1, 2, 1, 5)
    found, execute = planned(Selection(reasons=("wrong_type",)), mend)
    assert [(one.hour, one.closed) for one in found.hours] == [(NINE, True), (SENT, False)]
    execute()
    assert ledger.execute("SELECT late_rows FROM ledger.batch WHERE batch = 3").fetchone() == (1,)
    # The hour at ten lies before the watermark: it opened and closed with the replay.
    assert [one.hour for one in hours_to_publish(ledger, limit=9)] == [NINE, SENT]
    second = seal(ledger, NINE)
    assert second == Generation(NINE, 2, 3, 2, 17)
    assert len(generation_files(ledger, second)) == 2


def test_an_hour_that_lost_files_to_retention_is_not_rebuilt_from_a_part(
    ledger: psycopg.Connection, settings: Settings, planned: Replay, mend: Transform
) -> None:
    stream_one_event(ledger, 2, 3, settings)
    _, execute = planned(transform=mend)
    ledger.execute("DELETE FROM ledger.file WHERE hour = %s", [NINE])
    before = everything(ledger)
    with pytest.raises(HourInPart, match="hour 2026-11-22-09:00 has lost landed files"):
        execute()
    assert everything(ledger) == before
    found, execute = planned(transform=mend)
    assert [one.hour for one in found.hours] == [OLD, SENT]
    assert found.skipped[0] == Skipped(
        0, 0, IN_PART, "retention has removed landed files of 2026-11-22-09:00"
    )
    execute()
    assert coordinates(landed_rows(ledger, settings)) == [(0, 2), (3, 0)]


def test_a_replay_of_nothing_is_refused_or_says_why_nothing_is_left(
    ledger: psycopg.Connection, settings: Settings
) -> None:
    with pytest.raises(QuarantineError, match="no message in quarantine is selected"):
        replay.plan(ledger, settings, Selection(reasons=("not_utf8",)), clock=CLOCK)
    leave = Transform("", lambda _value: None)
    found = replay.plan(ledger, settings, Selection(), clock=CLOCK, transform=leave)
    assert (found.hours, found.skipped_by_reason) == ([], {LEFT: 5})


def test_a_replay_parses_once(
    ledger: psycopg.Connection, settings: Settings, planned: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, execute = planned()
    # What was planned lands as it was parsed, whatever another parser would say now.
    monkeypatch.setattr(replay, "validate", None)
    assert execute() == 2
    assert found.events.column_names[:5] == ["timestamp", "app", "id", "antenna_id", "bytes"]
    assert coordinates(landed_rows(ledger, settings)) == [(0, 2)]


def test_an_event_before_the_first_hour_stays(connection: psycopg.Connection, settings: Settings) -> None:
    reject(connection, settings, {0: [("timestamp_too_old", event(timestamp="2025-12-31T23:59:59Z"))]})
    found = replay.plan(connection, settings, Selection(), clock=CLOCK)
    assert found.skipped_by_reason == {"timestamp_too_old": 1}
    with pytest.raises(QuarantineError, match="none of the selected messages would be accepted"):
        replay.execute(connection, settings, found)


def test_rows_that_are_not_those_of_the_messages_are_not_committed(ledger: psycopg.Connection) -> None:
    with pytest.raises(
        LedgerError, match="expected 1 accepted row of a replay and no rejected one, found 0 and 0"
    ):
        commit_replay(
            ledger,
            topic=TOPIC,
            clock=CLOCK,
            messages=[ReplayedMessage(TOPIC_ID, 0, 0, "wrong_type")],
            content=BatchContent(),
            transform=None,
        )


def test_the_command_does_a_dry_run_and_then_replays(
    ledger: psycopg.Connection, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "mend.py").write_text(MEND)

    def antenna(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "antenna_assets.cli", "quarantine", *arguments],
            env={**os.environ, "COLUMNS": "160", "ANTENNA_TOPIC": TOPIC},
            capture_output=True,
            text=True,
            check=False,
        )

    before = everything(ledger)
    command = ("replay", "--all", "--transform", str(tmp_path / "mend.py"))
    dry = antenna(*command, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "a dry run: nothing was changed" in dry.stdout
    assert "the transformation failed at partition 0, offset 1: JSONDecodeError" in dry.stdout
    assert everything(ledger) == before
    real = antenna(*command)
    assert real.returncode == 0, real.stderr
    assert real.stdout.splitlines()[-1] == "batch 2 replayed 3 messages"
    assert_each_message_is_in_one_place(ledger, settings)
    again = antenna("replay", "--reason", "wrong_type")
    assert again.returncode == 1
    assert "error: no message in quarantine is selected" in again.stderr
    assert "Traceback" not in again.stderr
    assert "replayed by batch 2" in antenna("show", "0", "0").stdout
