"""How the end-to-end tests run Dagster, the real sensor and job on an instance of the test's own, and send messages."""

import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

import dagster as dg

from antenna_assets.defs.requested_runs import RANGE_END_TAG, RANGE_START_TAG
from antenna_assets.domain.hours import range_of_hours
from antenna_assets.settings import Settings
from antenna_assets_tests.local_runs import publish

EXECUTE = (
    *(sys.executable, "-m", "dagster", "job", "execute"),
    *("-m", "antenna_assets.definitions", "-j", "hourly_usage", "--tags"),
)
"""`dagster job execute` as a user runs it; the run's tags follow, as JSON."""


def instance() -> AbstractContextManager[dg.DagsterInstance]:
    """A Dagster instance of the test's own, in memory: on a disk a quarter of a second goes to making it, and as much to a run."""
    return dg.DagsterInstance.ephemeral()


def hours_of(requests: Iterable[dg.RunRequest]) -> list[datetime]:
    """The hours that the sensor asks for, ascending."""
    found: list[datetime] = []
    for request in requests:
        first = request.partition_key or request.tags[RANGE_START_TAG]
        found += range_of_hours(first, request.partition_key or request.tags[RANGE_END_TAG])
    return sorted(found)


def publish_what_the_sensor_asks_for(on: dg.DagsterInstance) -> int:
    """Tick and run until the sensor asks for nothing; the number of runs, each of which must succeed."""
    results = [run for _hours, run in publish(on)]
    assert all(run.success for run in results)
    return len(results)


def place(
    settings: Settings, values: Iterable[tuple[int, bytes | None]]
) -> dict[tuple[int, int], bytes | None]:
    """Send each value to its partition; by partition and offset, what Kafka acknowledged."""
    from confluent_kafka import Producer

    held: dict[tuple[int, int], bytes | None] = {}

    def acknowledged(error: object, message: Any) -> None:
        assert error is None
        held[message.partition(), message.offset()] = message.value()

    producer = Producer(
        {
            "bootstrap.servers": settings.kafka_bootstrap,
            "enable.idempotence": True,
            "linger.ms": 20,
            "queue.buffering.max.messages": 1_000_000,
            "on_delivery": acknowledged,
        }
    )
    sent = 0
    for partition, value in values:
        producer.produce(settings.topic, value, partition=partition)
        sent += 1
        if sent % 1000 == 0:
            producer.poll(0)
    assert producer.flush(60) == 0
    assert len(held) == sent
    return held
