"""What Kafka says of the topic: its id, its partitions, its first and next offsets.

Messages are read by Spark, not here.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from antenna_assets.errors import AntennaError
from antenna_assets.hours import EPOCH
from antenna_assets.kafka_client import PLAIN, KafkaConfig, Refusal

# Long enough for a broker that is starting, short enough for a person who mistyped its address.
TIMEOUT_SECONDS = 10


class BrokerError(AntennaError):
    """Kafka or the topic cannot be used; the message says what was found and what to do."""


class BrokerRefuses(BrokerError):
    """Kafka runs and does not let us in: another certificate authority, user or password."""


@dataclass(frozen=True)
class Topic:
    """A topic as it is now. Kafka gives a topic that is deleted and created again another id."""

    name: str
    id: str
    partitions: tuple[int, ...]


class Broker:
    """A connection to one Kafka cluster for questions about one topic."""

    def __init__(self, bootstrap: str, topic: str, config: KafkaConfig = PLAIN) -> None:
        from confluent_kafka.admin import AdminClient

        self.bootstrap = bootstrap
        self.topic = topic
        self.config = config
        self._refusal = Refusal()
        # librdkafka writes a line per refused connection to stderr: our error says it once.
        self._admin = AdminClient(
            {
                **config.for_librdkafka(),
                "bootstrap.servers": bootstrap,
                "log_level": 0,
                "logger": _SILENT,
                "error_cb": self._refusal,
            }
        )

    def describe(self) -> Topic:
        """Look the topic up.

        Raises:
            BrokerError: Kafka does not answer or let us in, the topic does not exist, or it is compacted.
        """
        from confluent_kafka import TopicCollection
        from confluent_kafka.admin import ConfigResource, ResourceType

        topics, resource = TopicCollection([self.topic]), ConfigResource(ResourceType.TOPIC, self.topic)
        (found,) = self._ask(
            lambda: self._admin.describe_topics(topics, request_timeout=TIMEOUT_SECONDS)
        ).values()
        (config,) = self._ask(
            lambda: self._admin.describe_configs([resource], request_timeout=TIMEOUT_SECONDS)
        ).values()
        policy = config["cleanup.policy"]
        if "compact" in policy.value:
            raise BrokerError(
                f"topic {self.topic} has cleanup.policy={policy.value}: compaction removes messages, so not every offset "
                "could be accounted for; expected cleanup.policy=delete"
            )
        return Topic(self.topic, str(found.topic_id), tuple(sorted(p.id for p in found.partitions)))

    def earliest(self, topic: Topic) -> dict[int, int]:
        """The first offset that Kafka still holds, of each partition."""
        from confluent_kafka.admin import OffsetSpec

        return self._offsets(topic, OffsetSpec.earliest())

    def next_offsets(self, topic: Topic) -> dict[int, int]:
        """The offset after the last one that a reader of committed messages can read, of each partition."""
        from confluent_kafka.admin import OffsetSpec

        return self._offsets(topic, OffsetSpec.latest())

    def ends(self, topic: Topic) -> dict[int, int]:
        """The offset after the last message, of each partition: those of open transactions are before it, too."""
        from confluent_kafka.admin import OffsetSpec

        return self._offsets(topic, OffsetSpec.latest(), uncommitted=True)

    def first_at(self, topic: Topic, instant: datetime) -> dict[int, int | None]:
        """The offset of the first message that Kafka's record time puts at the instant or later, of each partition.

        None where there is no such message. Those of open transactions count.
        """
        from confluent_kafka.admin import OffsetSpec

        milliseconds = (instant - EPOCH) // timedelta(milliseconds=1)
        found = self._offsets(topic, OffsetSpec.for_timestamp(milliseconds), uncommitted=True)
        return {partition: None if offset < 0 else offset for partition, offset in found.items()}

    def _offsets(self, topic: Topic, spec: Any, *, uncommitted: bool = False) -> dict[int, int]:
        from confluent_kafka import IsolationLevel, TopicPartition

        asked = {TopicPartition(topic.name, partition): spec for partition in topic.partitions}
        level = IsolationLevel.READ_UNCOMMITTED if uncommitted else IsolationLevel.READ_COMMITTED
        answers = self._ask(
            lambda: self._admin.list_offsets(asked, isolation_level=level, request_timeout=TIMEOUT_SECONDS)
        )
        return {place.partition: answer.offset for place, answer in answers.items()}

    def _ask(self, request: Callable[[], Mapping[Any, Any]]) -> dict[Any, Any]:
        """The answers to a request; asked again while the broker says that it is only not ready."""
        from confluent_kafka import KafkaError, KafkaException

        end = time.monotonic() + TIMEOUT_SECONDS
        self._admin.poll(0)  # takes what was said meanwhile
        self._refusal.reason = ""
        while True:
            try:
                return {key: future.result(timeout=TIMEOUT_SECONDS + 5) for key, future in request().items()}
            except KafkaException as error:
                found = error.args[0]
                if found.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
                    raise BrokerError(
                        f"topic {self.topic} does not exist at {self.bootstrap}; `antenna up` creates it on the "
                        "embedded broker, on your own create it with cleanup.policy=delete, or correct ANTENNA_TOPIC"
                    ) from error
                # A topic that was just made has no leader for a moment, and not every answer that says so is marked as one
                # to ask again after.
                without_leader = found.code() in (
                    KafkaError.NOT_LEADER_FOR_PARTITION,
                    KafkaError.LEADER_NOT_AVAILABLE,
                )
                self._admin.poll(0)
                if self._refusal.reason:
                    raise BrokerRefuses(
                        f"Kafka at {self.bootstrap} does not let us in: {self._refusal.reason}; correct the file of "
                        "ANTENNA_KAFKA_CONFIG (protocol, login, certificate authority)"
                    ) from error
                if not (found.retriable() or without_leader) or time.monotonic() > end:
                    raise BrokerError(
                        f"Kafka at {self.bootstrap} cannot be used: {found.str()}; start it with `antenna up`, "
                        "or correct ANTENNA_KAFKA_BOOTSTRAP; if it wants TLS or a login, set ANTENNA_KAFKA_CONFIG"
                    ) from error
                time.sleep(0.1)


def _silent_logger() -> Any:
    import logging

    logger = logging.getLogger("antenna.librdkafka")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger


_SILENT = _silent_logger()
