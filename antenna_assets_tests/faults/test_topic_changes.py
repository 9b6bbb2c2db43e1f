"""proofs.md, row 6, with both readers: the topic changes before the stream starts or while it runs.

Lost messages stop it by their offsets, a topic that was made again by its id, and `accept-loss` is the way on; added
partitions are read. What `accept-loss` records is in `test_accept_loss.py`.
"""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from antenna_assets.clients.kafka_broker import Broker
from antenna_assets.clients.postgres import connect
from antenna_assets.errors import StreamError
from antenna_assets.ledger.errors import LedgerError
from antenna_assets.ledger.loss import accept_losses
from antenna_assets.settings import Settings
from antenna_assets.streaming.job import Stream
from antenna_assets_tests.exactness import (
    assert_exact,
    committed_by_the_ledger,
    held_by_the_broker,
    named_by_the_ledger,
)
from antenna_assets_tests.faults.live import committed, running, wait_until
from antenna_assets_tests.faults.runs import send
from antenna_assets_tests.faults.topics import add_partitions, create_again, truncate
from antenna_assets_tests.stream_engines import EACH_ENGINE_IN_THE_LONG_FORM

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.services, EACH_ENGINE_IN_THE_LONG_FORM]

# What was there before, and fewer and more than that: so the new topic ends before or after the ledger's offsets.
BEFORE = 400
SHORTER_AND_LONGER = pytest.mark.parametrize("messages", [100, 1_000], ids=["shorter", "longer"])
CUT = 7


def accept_loss(settings: Settings) -> None:
    with connect(settings.postgres_url or "") as connection:
        assert accept_losses(connection, Broker(settings.kafka_bootstrap or "", settings.topic), "a test")


def end_of(settings: Settings, partition: int) -> int:
    return 1 + max(offset for p, offset in named_by_the_ledger(settings) if p == partition)


def assert_all_but_the_cut(settings: Settings, before: list[tuple[int, int]], end: int) -> None:
    """What can still be read is filed once, and the offsets are contiguous with those that were lost."""
    lost = [(0, offset) for offset in range(end, end + CUT)]
    named = named_by_the_ledger(settings)
    assert named == sorted({*before, *held_by_the_broker(settings)})
    assert committed_by_the_ledger(settings) == sorted([*named, *lost])


def test_row_6_messages_that_kafka_dropped_unread_stop_the_stream_by_their_offsets(
    settings: Settings, new_stream: Callable[[], Stream], tmp_path: Path
) -> None:
    send(settings, tmp_path / "answers.json", seed=1, events=BEFORE)
    new_stream().read_available()
    before, end = named_by_the_ledger(settings), end_of(settings, 0)
    send(settings, tmp_path / "answers.json", seed=2, events=BEFORE)
    truncate(settings, 0, end + CUT)
    with pytest.raises(StreamError, match=f"messages {end} to {end + CUT - 1} are gone from Kafka unread"):
        new_stream().read_available()
    assert named_by_the_ledger(settings) == before
    accept_loss(settings)
    new_stream().read_available()
    assert_all_but_the_cut(settings, before, end)


def test_row_6_messages_that_kafka_drops_under_a_running_stream_stop_it_by_their_offsets(
    settings: Settings, stream_spark: "SparkSession | None", new_stream: Callable[[], Stream], tmp_path: Path
) -> None:
    # Between two micro-batches there is time to send and to drop.
    slow = settings.model_copy(update={"trigger": timedelta(seconds=20)})
    send(settings, tmp_path / "answers.json", seed=1, events=BEFORE)
    errors: list[BaseException] = []
    with running(slow, stream_spark, errors=errors):
        wait_until(lambda: committed(settings) == BEFORE)
        before, end = named_by_the_ledger(settings), end_of(settings, 0)
        send(settings, tmp_path / "answers.json", seed=2, events=BEFORE)
        truncate(settings, 0, end + CUT)
        wait_until(lambda: errors != [])
    assert f"messages {end} to {end + CUT - 1} are gone from Kafka unread" in str(errors[0])
    assert isinstance(errors[0], StreamError)
    assert named_by_the_ledger(settings) == before
    accept_loss(settings)
    new_stream().read_available()
    assert_all_but_the_cut(settings, before, end)


@SHORTER_AND_LONGER
def test_row_6_a_topic_that_was_created_again_stops_the_stream(
    settings: Settings, new_stream: Callable[[], Stream], tmp_path: Path, messages: int
) -> None:
    send(settings, tmp_path / "answers.json", seed=1, events=BEFORE)
    new_stream().read_available()
    before = named_by_the_ledger(settings)
    create_again(settings)
    send(settings, tmp_path / "new.json", seed=2, events=messages)
    with pytest.raises(LedgerError, match="was deleted and created again"):
        new_stream().read_available()
    assert named_by_the_ledger(settings) == before
    accept_loss(settings)
    new_stream().read_available()
    assert named_by_the_ledger(settings) == sorted([*before, *held_by_the_broker(settings)])


@SHORTER_AND_LONGER
def test_row_6_a_topic_that_is_created_again_under_a_running_stream_stops_it(
    settings: Settings,
    stream_spark: "SparkSession | None",
    new_stream: Callable[[], Stream],
    tmp_path: Path,
    messages: int,
) -> None:
    # All of it happens between two micro-batches: what the reader sees are only other offsets.
    slow = settings.model_copy(update={"trigger": timedelta(seconds=8)})
    send(settings, tmp_path / "answers.json", seed=1, events=BEFORE)
    errors: list[BaseException] = []
    with running(slow, stream_spark, errors=errors):
        wait_until(lambda: committed(settings) == BEFORE)
        before = named_by_the_ledger(settings)
        create_again(settings, 4)
        send(settings, tmp_path / "new.json", seed=2, events=messages)
        wait_until(lambda: errors != [])
    assert "was deleted and created again" in str(errors[0])
    assert isinstance(errors[0], LedgerError)
    assert named_by_the_ledger(settings) == before
    accept_loss(settings)
    new_stream().read_available()
    assert named_by_the_ledger(settings) == sorted([*before, *held_by_the_broker(settings)])


def test_row_6_partitions_that_were_added_are_read_from_their_first_message(
    settings: Settings, stream_spark: "SparkSession | None", new_stream: Callable[[], Stream], tmp_path: Path
) -> None:
    answers = tmp_path / "answers.json"
    send(settings, answers, seed=1, events=BEFORE)
    new_stream().read_available()
    add_partitions(settings, 6)
    send(settings, answers, seed=2, events=BEFORE)
    # Some before it starts, some while it runs.
    with running(settings, stream_spark):
        wait_until(lambda: committed(settings) == 2 * BEFORE)
        add_partitions(settings, 8)
        send(settings, answers, seed=3, events=BEFORE)
        wait_until(lambda: committed(settings) == 3 * BEFORE)
    assert {partition for partition, _ in named_by_the_ledger(settings)} == set(range(8))
    assert_exact(settings, answers)
