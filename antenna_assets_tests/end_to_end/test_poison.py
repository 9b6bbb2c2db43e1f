"""Row 11 of docs/proofs.md: whatever bytes come through Kafka, each message lands or is rejected for its reason, and
poison does not slow the stream down.
"""

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta

import pytest

from antenna_assets.database import connect
from antenna_assets.hours import HOUR, hour_of
from antenna_assets.settings import Settings
from antenna_assets.simulator.events import Message, messages
from antenna_assets.simulator.scenario import Scenario
from antenna_assets.simulator.send import send
from antenna_assets.streaming.job import Stream

pytestmark = pytest.mark.services


def traffic(events: int, poison: float) -> list[Message]:
    """Messages of two hours, of which a share breaks the contract in every way."""
    start = hour_of(datetime.now(UTC) - timedelta(minutes=2)) - 2 * HOUR
    return list(messages(Scenario(events=events, seed=11, start=start, hours=2, malformed=poison)))


def seconds_to_read(settings: Settings, stream: Stream, sent: list[Message]) -> float:
    """How long the stream takes for messages that are in its topic when it starts."""
    send(sent, bootstrap=settings.kafka_bootstrap or "", topic=settings.topic)
    began = time.monotonic()
    stream.read_available()
    took = time.monotonic() - began
    with connect(settings.postgres_url or "") as connection:
        read = connection.execute("SELECT sum(rows), sum(quarantined) FROM ledger.batch").fetchone()
    rejected = sum(message.event is None for message in sent)
    assert read == (len(sent) - rejected, rejected)
    return took


def test_row_11_a_tenth_of_poison_costs_at_most_a_fifth_of_the_throughput(
    another_world: Callable[[], AbstractContextManager[Settings]],
    new_stream: Callable[..., Stream],
    proving: bool,
    record_property: Callable[[str, object], None],
) -> None:
    events = 600_000 if proving else 20_000
    mixes = {"clean": traffic(events, 0.0), "10 % poison": traffic(events, 0.1)}
    took: dict[str, list[float]] = {name: [] for name in mixes}
    # The first round warms Java up and does not count.
    for round_ in range(4 if proving else 2):
        for name, sent in mixes.items():
            with another_world() as settings:
                seconds = seconds_to_read(settings, new_stream(settings), sent)
            if round_:
                took[name].append(seconds)
    medians = {name: statistics.median(seconds) for name, seconds in took.items()}
    for name, seconds in medians.items():
        record_property(f"events a second, {name}", round(events / seconds))
    ratio = medians["clean"] / medians["10 % poison"]
    record_property("throughput with 10 % poison, % of clean", round(100 * ratio, 1))
    if proving:
        assert ratio >= 0.8, took
