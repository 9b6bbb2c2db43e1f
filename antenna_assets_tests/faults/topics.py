"""What may happen to a topic under the stream: its head is cut off, it is deleted and made again, it gets partitions."""

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from antenna_assets.settings import Settings
from antenna_assets_tests.faults.live import wait_until


def truncate(settings: Settings, partition: int, offset: int) -> None:
    """Drop the messages of a partition before the offset."""
    from confluent_kafka import TopicPartition

    admin = _admin(settings.kafka_bootstrap or "")
    _done(admin.delete_records([TopicPartition(settings.topic, partition, offset)]))


def create_again(settings: Settings, partitions: int = 2) -> None:
    """Delete the topic and make it anew, without messages."""
    from antenna_assets.stack.kafka_topic import ensure_topic

    admin = _admin(settings.kafka_bootstrap or "")
    _done(admin.delete_topics([settings.topic], operation_timeout=10))
    ensure_topic(settings.kafka_bootstrap or "", settings.topic, partitions)


def add_partitions(settings: Settings, total: int) -> None:
    """Give the topic so many partitions."""
    from confluent_kafka.admin import NewPartitions

    admin = _admin(settings.kafka_bootstrap or "")
    _done(admin.create_partitions([NewPartitions(settings.topic, total)]))


def let_senders_choose_times(settings: Settings, *, retention_ms: int = -1) -> None:
    """Let a topic take any time of its senders, and keep messages for so long of it; by default whatever it is."""
    change_config(
        settings.kafka_bootstrap or "",
        settings.topic,
        {
            "message.timestamp.type": "CreateTime",
            "message.timestamp.after.max.ms": str(2**63 - 1),
            "message.timestamp.before.max.ms": str(2**63 - 1),
            "retention.ms": str(retention_ms),
        },
    )


def change_config(bootstrap: str, topic: str, config: Mapping[str, str]) -> None:
    """Change a topic's configuration, and wait until its broker has it: the controller answers before."""
    from confluent_kafka.admin import (
        AlterConfigOpType,
        ConfigEntry,
        ConfigResource,
        ResourceType,
    )

    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        for name, value in config.items()
    ]
    admin = _admin(bootstrap)
    _done(
        admin.incremental_alter_configs(
            [ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)]
        )
    )

    def taken_up() -> bool:
        (found,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values()
        return config.items() <= {name: entry.value for name, entry in found.result(20).items()}.items()

    wait_until(taken_up, 20)


def _admin(bootstrap: str) -> Any:
    """Keep it until its answers are there: they end with it."""
    from confluent_kafka.admin import AdminClient

    return AdminClient({"bootstrap.servers": bootstrap})


def _done(futures: dict[Any, Future]) -> None:
    for future in futures.values():
        future.result(20)
