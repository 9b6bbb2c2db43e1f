"""What Kafka says of the topic: its id, its partitions, its first and next offsets.

Messages are read by Spark, not here.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from antenna_assets.clients.kafka_config import PLAIN, KafkaConfig, Refusal
from antenna_assets.domain.hours import EPOCH
from antenna_assets.errors import AntennaError

# Long enough for a broker that is starting, short enough for a person who mistyped its address.
TIMEOUT_SECONDS = 10


class BrokerError(AntennaError):
    """Kafka or the topic cannot be used; the message says what was found and what to do."""


class BrokerRefuses(BrokerError):
    """Kafka runs and does not let us in: another certificate authority, user or password."""


class RightMissing(BrokerRefuses):
    """Kafka lets us in, but not at the topic; the message names the right."""


@dataclass(frozen=True)
class Topic:
    """A topic as it is now. Kafka gives a topic that is deleted and created again another id.

    Attributes:
        unseen: what could not be looked at, and which right would show it.
        kept_by_sender: how long a message is kept, counted from the time that its sender gave; None if it is counted from
            its arrival, or a message is kept whatever its time.
    """

    name: str
    id: str
    partitions: tuple[int, ...]
    unseen: str = ""
    kept_by_sender: timedelta | None = None


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
        partitions = tuple(sorted(p.id for p in found.partitions))
        try:
            (config,) = self._ask(
                lambda: self._admin.describe_configs([resource], request_timeout=TIMEOUT_SECONDS),
                operation="DescribeConfigs",
            ).values()
        except RightMissing as missing:
            # Nothing that is read depends on it.
            return Topic(self.topic, str(found.topic_id), partitions, unseen=_UNSEEN.format(missing=missing))
        policy = config["cleanup.policy"]
        if "compact" in policy.value:
            raise BrokerError(
                f"topic {self.topic} has cleanup.policy={policy.value}: compaction removes messages, so not every offset "
                "could be accounted for; expected cleanup.policy=delete"
            )
        return Topic(self.topic, str(found.topic_id), partitions, kept_by_sender=kept_by_sender(config))

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

    def _ask(
        self, request: Callable[[], Mapping[Any, Any]], *, operation: str = "Describe"
    ) -> dict[Any, Any]:
        """The answers to a request; asked again while the broker says that it is only not ready.

        Args:
            operation: the right at the topic that it needs.
        """
        from confluent_kafka import KafkaError, KafkaException

        end = time.monotonic() + TIMEOUT_SECONDS
        self._admin.poll(0)  # takes what was said meanwhile
        self._refusal.reason = ""
        while True:
            try:
                return {key: future.result(timeout=TIMEOUT_SECONDS + 5) for key, future in request().items()}
            except KafkaException as error:
                found = error.args[0]
                if found.code() in (
                    KafkaError.TOPIC_AUTHORIZATION_FAILED,
                    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
                ):
                    raise right_missing(self.bootstrap, self.topic, operation) from error
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


def right_missing(bootstrap: str, topic: str, operation: str) -> RightMissing:
    """The error of a login that lacks a right at the topic."""
    return RightMissing(
        f"the login at Kafka {bootstrap} has no right {operation} on topic {topic}: let it have an ACL with operation "
        f"{operation} and resource topic {topic} (a stream needs Describe and Read, and DescribeConfigs to look at the "
        "topic's settings)"
    )


_UNSEEN = "the topic's settings cannot be looked at, so that compaction, which is refused, would go unnoticed: {missing}"


def kept_too_shortly(topic: str, kept_by_sender: timedelta | None, horizon: timedelta) -> str:
    """What a topic may lose unread by its senders' times; empty if nothing that would be accepted."""
    if kept_by_sender is None or kept_by_sender >= horizon:
        return ""
    return (
        f"topic {topic} has message.timestamp.type=CreateTime and keeps messages for {kept_by_sender.total_seconds():,.0f} s "
        f"of their senders' time, less than the horizon of {horizon.total_seconds():,.0f} s: Kafka may remove back-dated "
        "ones before they are read; set message.timestamp.type=LogAppendTime"
    )


def kept_by_sender(config: Mapping[str, Any]) -> timedelta | None:
    """See `Topic`; from a topic's settings."""
    by, kept = (config.get(name) for name in ("message.timestamp.type", "retention.ms"))
    if by is None or kept is None or by.value != "CreateTime" or int(kept.value) < 0:
        return None
    millis = int(kept.value)
    # 2^63 - 1 is a usual way to say for ever.
    return timedelta(milliseconds=millis) if millis < 10**15 else timedelta.max


def _silent_logger() -> Any:
    import logging

    logger = logging.getLogger("antenna.librdkafka")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger


_SILENT = _silent_logger()
