"""Sending: every message acknowledged and its place known, or one clear error in seconds."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from random import Random
from time import monotonic
from typing import Any

import pytest

from antenna_assets.clients import kafka_broker as broker
from antenna_assets.simulator.events import Message, Scenario, messages
from antenna_assets.simulator.send import Receipts, SendError, Target, send
from antenna_assets_tests.faults.topics import change_config

START = datetime(2026, 11, 22, 8, tzinfo=UTC)


def scenario(events: int = 2000) -> Scenario:
    return Scenario(events=events, seed=1, start=START, hours=2, malformed=0.05)


def received(bootstrap: str, topic: str) -> list[Any]:
    """Every message of the topic, as confluent_kafka gives them."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "test", "enable.auto.commit": False})
    places = [TopicPartition(topic, partition, 0) for partition in range(4)]
    total = sum(consumer.get_watermark_offsets(place, timeout=10)[1] for place in places)
    consumer.assign(places)
    found: list[Any] = []
    began = monotonic()
    while len(found) < total and monotonic() - began < 20:
        found += [
            message
            for message in consumer.consume(total - len(found), timeout=0.5)
            if message.error() is None
        ]
    consumer.close()
    return found


@pytest.mark.services
def test_every_message_arrives_once_and_in_its_users_order(kafka: str, topic: str) -> None:
    expected = list(messages(scenario()))
    seen: list[int] = []
    sent = send(expected, Target(kafka, topic), progress=seen.append)
    found = received(kafka, topic)
    assert sent.messages == len(found) == 2000
    assert seen[-1] == 2000
    for key in {message.key for message in expected}:
        arrived = [(message.partition(), message.value()) for message in found if message.key() == key]
        assert [value for _, value in arrived] == [
            message.value for message in expected if message.key == key
        ]
        assert len({partition for partition, _ in arrived}) == 1


@pytest.mark.services
def test_the_offsets_name_exactly_what_was_sent(kafka: str, topic: str) -> None:
    first = send(messages(scenario(500)), Target(kafka, topic))
    second = send(messages(scenario(300)), Target(kafka, topic))
    assert first.topic == topic
    assert first.topic_id == second.topic_id != ""
    assert sum(end - begin for begin, end in first.offsets.values()) == 500
    assert sum(end - begin for begin, end in second.offsets.values()) == 300
    for partition, (begin, _end) in second.offsets.items():
        assert begin == first.offsets.get(partition, (0, 0))[1]
    counts = Counter(message.partition() for message in received(kafka, topic))
    assert counts == {
        partition: max(span[1] for sent in (first, second) if (span := sent.offsets.get(partition)))
        for partition in first.offsets.keys() | second.offsets.keys()
    }


@pytest.mark.services
def test_nothing_to_send_is_nothing_sent(kafka: str, topic: str) -> None:
    sent = send([], Target(kafka, topic))
    assert (sent.messages, sent.offsets) == (0, {})


@pytest.mark.services
def test_a_rate_paces_the_messages(kafka: str, topic: str) -> None:
    began = monotonic()
    send(messages(scenario(300)), Target(kafka, topic), rate=200)
    assert 1.2 < monotonic() - began < 30


@pytest.mark.services
def test_a_message_that_kafka_refuses_is_an_error_that_counts(kafka: str, topic: str) -> None:
    change_config(kafka, topic, {"max.message.bytes": "1000"})
    # Bytes that do not compress.
    large = Message(b"a", Random(1).randbytes(5000), None, "not_json")
    with pytest.raises(
        SendError, match=r"acknowledged 0 of 1 message, 1 failed and 0 are without an answer: .*"
    ):
        send([large], Target(kafka, topic))


@pytest.mark.services
def test_a_missing_topic_is_named_before_anything_is_sent(kafka: str) -> None:
    def never() -> Iterator[Message]:
        raise AssertionError("a message was asked for")
        yield

    with pytest.raises(SendError, match="topic no-such-topic does not exist"):
        send(never(), Target(kafka, "no-such-topic"))


def test_a_broker_that_does_not_answer_is_one_clear_error(
    closed_port: int, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "TIMEOUT_SECONDS", 1)
    began = monotonic()
    address = f"127.0.0.1:{closed_port}"
    with pytest.raises(SendError, match=f"Kafka at {address} cannot be used: .*start it with `antenna up`"):
        send(messages(scenario()), Target(address, "devices"))
    assert monotonic() - began < 30
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("rate", [0, -5.0])
def test_a_rate_below_one_message_ever_is_refused(rate: float) -> None:
    with pytest.raises(SendError, match="rate: expected more than 0 messages per second"):
        send([], Target("127.0.0.1:1", "devices"), rate=rate)


class Report:
    """A delivered message, as far as a delivery report is read."""

    def __init__(self, partition: int, offset: int | None) -> None:
        self.partition = lambda: partition
        self.offset = lambda: offset


def test_reports_without_an_offset_are_placed_between_those_that_have_one() -> None:
    receipts = Receipts()
    for partition, offset in [(1, 7), (0, None), (0, None), (1, 8), (0, 5), (1, None), (1, None)]:
        receipts(None, Report(partition, offset))
    assert receipts.delivered == 7
    assert receipts.offsets(pytest.fail) == {0: (3, 6), 1: (7, 11)}


def test_where_no_report_has_an_offset_the_end_of_the_partition_places_them() -> None:
    receipts = Receipts()
    for partition, offset in [(2, None), (2, None), (0, 1)]:
        receipts(None, Report(partition, offset))
    assert receipts.offsets(lambda: {0: 9, 2: 40}) == {0: (1, 2), 2: (38, 40)}
