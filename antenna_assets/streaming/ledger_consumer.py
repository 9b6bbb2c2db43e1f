"""Kafka's own client, placed by the ledger: it is in no consumer group, and commits nothing to Kafka."""

from typing import TYPE_CHECKING, Any

from antenna_assets.clients.kafka_broker import Broker

if TYPE_CHECKING:
    from confluent_kafka import Consumer


def ledger_consumer(broker: Broker, **options: Any) -> "Consumer":
    """A consumer of committed messages, whose partitions and offsets are assigned by the caller.

    It reports the end of a partition, and offsets that Kafka does not have; it never moves on from those.

    Args:
        options: further options of librdkafka, such as bounds on its memory.
    """
    from confluent_kafka import Consumer

    return Consumer(
        {
            **broker.config.for_librdkafka(),
            "bootstrap.servers": broker.bootstrap,
            # It must have a name, and there is no group of it.
            "group.id": "antenna",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "check.crcs": True,
            "fetch.queue.backoff.ms": 10,
            "log_level": 0,
            **options,
        }
    )


def unreadable_codes() -> frozenset[int]:
    """The codes of errors that mean: this record cannot be read, now or later."""
    from confluent_kafka import KafkaError

    return frozenset(
        {
            KafkaError._BAD_COMPRESSION,
            KafkaError._BAD_MSG,
            KafkaError._UNDERFLOW,
            KafkaError._INCONSISTENT,
            KafkaError.INVALID_MSG,
        }
    )
