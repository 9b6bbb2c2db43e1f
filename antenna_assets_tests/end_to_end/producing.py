"""Events of one hour, and sending values to a partition as a test says: packed, in transactions, or in one batch."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from antenna_assets.settings import Settings

HOUR = (datetime.now(UTC) - timedelta(hours=2)).replace(minute=0, second=0, microsecond=0)

ZSTD = {
    "compression.type": "zstd",
    "message.max.bytes": 1_000_000_000,
    "queue.buffering.max.kbytes": 2_000_000,
}
"""Options of a producer for messages that are large until they are packed."""

ONE_BATCH = {**ZSTD, "batch.size": 1_000_000_000, "batch.num.messages": 1_000_000, "linger.ms": 5_000}
"""Those for values that all go into one record batch: it is sent when they are flushed."""


def event(number: int = 10, **fields: object) -> bytes:
    values = {"bytes": number, "timestamp": int(HOUR.timestamp()), "app": "A", "id": "u1", "antenna_id": "a1"}
    return json.dumps({**values, **fields}).encode()


def produce(
    settings: Settings, values: Iterable[bytes | None], partition: int = 0, **options: object
) -> None:
    from confluent_kafka import Producer

    failed: list[object] = []
    producer = Producer(
        {
            "bootstrap.servers": settings.kafka_bootstrap,
            "on_delivery": lambda error, _message: failed.append(error) if error else None,
            **options,
        }
    )
    for value in values:
        producer.produce(settings.topic, value, partition=partition)
        producer.poll(0)
    assert producer.flush(60) == 0
    assert failed == []
