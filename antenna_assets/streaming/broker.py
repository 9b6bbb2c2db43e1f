"""What Kafka says of the topic: its id, its partitions, its first and next offsets.

Messages are read by Spark, not here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from antenna_assets.errors import AntennaError

# Long enough for a broker that is starting, short enough for a person who mistyped its address.
TIMEOUT_SECONDS = 10


class BrokerError(AntennaError):
    """Kafka or the topic cannot be used; the message says what was found and what to do."""


@dataclass(frozen=True)
class Topic:
    """A topic as it is now. Kafka gives a topic that is deleted and created again another id."""

    name: str
    id: str
    partitions: tuple[int, ...]


class Broker:
    """A connection to one Kafka cluster for questions about one topic."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        from confluent_kafka.admin import AdminClient

        self.bootstrap = bootstrap
        self.topic = topic
        # librdkafka writes a line per refused connection to stderr: our error says it once.
        self._admin = AdminClient(
            {"bootstrap.servers": bootstrap, "log_level": 0, "logger": _SILENT}
        )

    def describe(self) -> Topic:
        """Look the topic up.

        Raises:
            BrokerError: Kafka does not answer, the topic does not exist, or it is compacted.
        """
        from confluent_kafka import TopicCollection
        from confluent_kafka.admin import ConfigResource, ResourceType

        found = self._ask(
            self._admin.describe_topics(TopicCollection([self.topic]), request_timeout=TIMEOUT_SECONDS)
        )
        resource = ConfigResource(ResourceType.TOPIC, self.topic)
        policy = self._ask(self._admin.describe_configs([resource], request_timeout=TIMEOUT_SECONDS))[
            "cleanup.policy"
        ]
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

    def _offsets(self, topic: Topic, spec: Any) -> dict[int, int]:
        from confluent_kafka import IsolationLevel, TopicPartition

        asked = {TopicPartition(topic.name, partition): spec for partition in topic.partitions}
        answers = self._admin.list_offsets(
            asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=TIMEOUT_SECONDS
        )
        return {place.partition: self._result(future).offset for place, future in answers.items()}

    def _ask(self, futures: Mapping[Any, Any]) -> Any:
        return self._result(next(iter(futures.values())))

    def _result(self, future: Any) -> Any:
        from confluent_kafka import KafkaError, KafkaException

        try:
            return future.result(timeout=TIMEOUT_SECONDS + 5)
        except KafkaException as error:
            if error.args[0].code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
                raise BrokerError(
                    f"topic {self.topic} does not exist at {self.bootstrap}; `antenna up` creates it on the embedded "
                    "broker, on your own create it with cleanup.policy=delete or correct ANTENNA_TOPIC"
                ) from error
            raise BrokerError(
                f"Kafka at {self.bootstrap} cannot be used: {error.args[0].str()}; start it with `antenna up`, "
                "or correct ANTENNA_KAFKA_BOOTSTRAP"
            ) from error


def _silent_logger() -> Any:
    import logging

    logger = logging.getLogger("antenna.librdkafka")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger


_SILENT = _silent_logger()
