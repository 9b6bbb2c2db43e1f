"""proofs.md, row 6: after Kafka itself lost messages, `antenna accept-loss` is the recorded way on."""

from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from antenna_assets.cli import app
from antenna_assets.clients.kafka_broker import Broker
from antenna_assets.clients.postgres import connect
from antenna_assets.ledger.errors import LedgerError
from antenna_assets.ledger.loss import accept_losses
from antenna_assets.ledger.stream_lock import StreamRunning, require_only_stream
from antenna_assets.settings import Settings
from antenna_assets_tests.exactness import (
    committed_by_the_ledger,
    held_by_the_broker,
    named_by_the_ledger,
)
from antenna_assets_tests.faults.plain_stream import read_everything
from antenna_assets_tests.faults.runs import send
from antenna_assets_tests.faults.topics import create_again, truncate

pytestmark = pytest.mark.services


def accept_loss(*options: str) -> str:
    result = CliRunner().invoke(app, ["accept-loss", *options])
    assert result.exit_code == 0, result.output
    return result.output


def accepted(connection: psycopg.Connection) -> list[tuple]:
    return connection.execute(
        "SELECT partition, from_offset, until_offset, reason FROM ledger.accepted_loss ORDER BY 1"
    ).fetchall()


def test_row_6_a_truncated_head_is_shown_then_recorded_and_the_stream_goes_on(
    settings: Settings, connection: psycopg.Connection, tmp_path: Path
) -> None:
    send(settings, tmp_path / "answers.json", seed=1, events=400)
    read_everything(settings)
    assert "nothing is lost" in accept_loss()
    before = held_by_the_broker(settings)
    end = 1 + max(offset for partition, offset in before if partition == 0)
    send(settings, tmp_path / "answers.json", seed=2, events=400)
    truncate(settings, 0, end + 7)
    assert f"partition 0: 7 messages, offsets {end} to {end + 6}" in accept_loss()
    assert accepted(connection) == []
    assert "recorded; the stream can resume" in accept_loss("--yes", "--reason", "retention too short")
    assert accepted(connection) == [(0, end, end + 7, "retention too short")]
    assert "nothing is lost" in accept_loss("--yes")
    read_everything(settings)
    lost = [(0, offset) for offset in range(end, end + 7)]
    # Contiguous with the loss in it, and every message that can still be read is filed once.
    assert named_by_the_ledger(settings) == sorted({*before, *held_by_the_broker(settings)})
    assert committed_by_the_ledger(settings) == sorted([*named_by_the_ledger(settings), *lost])


def test_row_6_a_topic_created_again_is_recorded_and_read_from_its_first_message(
    settings: Settings, connection: psycopg.Connection, tmp_path: Path
) -> None:
    send(settings, tmp_path / "answers.json", seed=1, events=400)
    read_everything(settings)
    old = named_by_the_ledger(settings)
    create_again(settings)
    send(settings, tmp_path / "new.json", seed=2, events=300)
    assert "as the topic was deleted" in accept_loss()
    accept_loss("--yes")
    ends = {partition: offset + 1 for partition, offset in old}
    assert accepted(connection) == [(p, end, None, "accepted by hand") for p, end in sorted(ends.items())]
    read_everything(settings)
    assert named_by_the_ledger(settings) == sorted([*old, *held_by_the_broker(settings)])
    assert accept_loss("--yes").startswith("nothing is lost")


def test_row_6_no_loss_is_recorded_under_a_running_stream(
    settings: Settings, connection: psycopg.Connection
) -> None:
    require_only_stream(connection)
    with connect(settings.postgres_url or "") as other, pytest.raises(StreamRunning):
        accept_losses(other, Broker(settings.kafka_bootstrap or "", settings.topic), "no")


def test_row_6_who_accepts_a_loss_gives_the_lock_back_before_the_session_ends(
    settings: Settings, connection: psycopg.Connection
) -> None:
    # A session that ends keeps its locks for a moment, in which a stream that is started would be refused.
    with pytest.raises(LedgerError):
        accept_losses(
            connection,
            Broker(settings.kafka_bootstrap or "", settings.topic),
            "of a topic that was never read",
        )
    with connect(settings.postgres_url or "") as other:
        require_only_stream(other)
