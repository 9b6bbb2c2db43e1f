"""Metadata of a Kafka topic: its id, partitions, offsets and settings. Messages are read in `streaming/`."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from antenna_assets.clients.kafka_config import PLAIN, ConnectionErrors, KafkaConfig
from antenna_assets.domain.hours import EPOCH
from antenna_assets.errors import AntennaError

# Long enough for a starting broker, short enough for a person who mistyped its address.
TIMEOUT_SECONDS = 10


class BrokerError(AntennaError):
    """Kafka or the topic cannot be used; the message says why and what to do."""


class AuthenticationFailed(BrokerError):
    """Kafka rejected our certificate authority, user or password."""


class AuthorizationFailed(AuthenticationFailed):
    """The login lacks a right on the topic; the message names it."""


@dataclass(frozen=True)
class Topic:
    """A topic. One that is deleted and created again gets another id.

    Attributes:
        warning: what could not be checked, and the right that it needs.
        kept_by_sender: how long a message is kept after the time that its sender gave it; None if its arrival
            counts instead, or messages are kept for ever.
    """

    name: str
    id: str
    partitions: tuple[int, ...]
    warning: str = ""
    kept_by_sender: timedelta | None = None


class Broker:
    """A connection to a Kafka cluster for the metadata of one topic."""

    def __init__(self, bootstrap: str, topic: str, config: KafkaConfig = PLAIN) -> None:
        from confluent_kafka.admin import AdminClient

        self.bootstrap = bootstrap
        self.topic = topic
        self.config = config
        self._connection_errors = ConnectionErrors()
        # librdkafka writes a line per refused connection to stderr; our error says it once.
        self._admin = AdminClient(
            {
                **config.for_librdkafka(),
                "bootstrap.servers": bootstrap,
                "log_level": 0,
                "logger": _SILENT,
                "error_cb": self._connection_errors,
            }
        )

    def describe(self) -> Topic:
        """The topic with its settings.

        Raises:
            BrokerError: Kafka does not answer or denies access, the topic does not exist, or it is compacted.
        """
        from confluent_kafka.admin import ConfigResource, ResourceType

        topic, resource = self.identify(), ConfigResource(ResourceType.TOPIC, self.topic)
        try:
            (config,) = self._ask(
                lambda: self._admin.describe_configs([resource], request_timeout=TIMEOUT_SECONDS),
                operation="DescribeConfigs",
            ).values()
        except AuthorizationFailed as missing:
            # Reading does not depend on it.
            return replace(topic, warning=_UNCHECKED.format(missing=missing))
        policy = config["cleanup.policy"]
        if "compact" in policy.value:
            raise BrokerError(
                f"topic {self.topic} has cleanup.policy={policy.value}: compaction removes messages, so not "
                "every offset could be accounted for; expected cleanup.policy=delete"
            )
        return replace(topic, kept_by_sender=kept_by_sender(config))

    def identify(self) -> Topic:
        """The topic's id and partitions, without a look at its settings.

        Raises:
            BrokerError: Kafka does not answer or denies access, or the topic does not exist.
        """
        from confluent_kafka import TopicCollection

        topics = TopicCollection([self.topic])
        (found,) = self._ask(
            lambda: self._admin.describe_topics(topics, request_timeout=TIMEOUT_SECONDS)
        ).values()
        return Topic(self.topic, str(found.topic_id), tuple(sorted(p.id for p in found.partitions)))

    def require_read(self) -> None:
        """Require the right to read the topic's messages; every Kafka since 2.3 tells a login its rights.

        Raises:
            AuthorizationFailed: the login may describe the topic only.
            BrokerError: Kafka does not answer or denies access, or the topic does not exist.
        """
        from confluent_kafka import TopicCollection
        from confluent_kafka.admin import AclOperation

        topics = TopicCollection([self.topic])
        (found,) = self._ask(
            lambda: self._admin.describe_topics(
                topics, include_authorized_operations=True, request_timeout=TIMEOUT_SECONDS
            )
        ).values()
        # One that tells none may still let us read.
        if found.authorized_operations and AclOperation.READ not in found.authorized_operations:
            raise authorization_failed(self.bootstrap, self.topic, "Read")

    def earliest(self, topic: Topic) -> dict[int, int]:
        """The first offset of each partition that Kafka still holds."""
        from confluent_kafka.admin import OffsetSpec

        return self._offsets(topic, OffsetSpec.earliest())

    def next_offsets(self, topic: Topic) -> dict[int, int]:
        """The next offset of each partition for a reader of committed messages."""
        from confluent_kafka.admin import OffsetSpec

        return self._offsets(topic, OffsetSpec.latest())

    def ends(self, topic: Topic) -> dict[int, int]:
        """The end offset of each partition, after messages of open transactions."""
        from confluent_kafka.admin import OffsetSpec

        return self._offsets(topic, OffsetSpec.latest(), uncommitted=True)

    def first_at(self, topic: Topic, instant: datetime) -> dict[int, int | None]:
        """The first offset of each partition whose record time is the instant or later, if there is one.

        Messages of open transactions count.
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
        """The answers to a request, repeated while the broker is not ready.

        Args:
            operation: the right on the topic that the request needs.
        """
        from confluent_kafka import KafkaError, KafkaException

        end = time.monotonic() + TIMEOUT_SECONDS
        self._admin.poll(0)  # delivers earlier errors
        self._connection_errors.reason = ""
        while True:
            try:
                return {key: future.result(timeout=TIMEOUT_SECONDS + 5) for key, future in request().items()}
            except KafkaException as error:
                found = error.args[0]
                if found.code() in (
                    KafkaError.TOPIC_AUTHORIZATION_FAILED,
                    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
                ):
                    raise authorization_failed(self.bootstrap, self.topic, operation) from error
                if found.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
                    raise BrokerError(
                        f"topic {self.topic} does not exist at {self.bootstrap}; `antenna up` creates it on "
                        "the embedded broker, on your own create it with cleanup.policy=delete, or correct "
                        "ANTENNA_TOPIC"
                    ) from error
                # A new topic, or one whose broker was restarted, has no settled leader for a moment. By
                # Kafka's protocol these may be tried again; librdkafka does not mark them so.
                without_leader = found.code() in (
                    KafkaError.NOT_LEADER_FOR_PARTITION,
                    KafkaError.LEADER_NOT_AVAILABLE,
                    KafkaError.REPLICA_NOT_AVAILABLE,
                    KafkaError.FENCED_LEADER_EPOCH,
                    KafkaError.UNKNOWN_LEADER_EPOCH,
                    KafkaError.OFFSET_NOT_AVAILABLE,
                    KafkaError.KAFKA_STORAGE_ERROR,
                )
                self._admin.poll(0)
                if self._connection_errors.reason:
                    raise AuthenticationFailed(
                        f"Kafka at {self.bootstrap} denies access: {self._connection_errors.reason}; correct "
                        "the file of ANTENNA_KAFKA_CONFIG (protocol, login, certificate authority)"
                    ) from error
                if not (found.retriable() or without_leader) or time.monotonic() > end:
                    raise BrokerError(
                        f"Kafka at {self.bootstrap} cannot be used: {found.str()}; start it with `antenna "
                        "up`, or correct ANTENNA_KAFKA_BOOTSTRAP; if it needs TLS or a login, set "
                        "ANTENNA_KAFKA_CONFIG"
                    ) from error
                time.sleep(0.1)


def authorization_failed(bootstrap: str, topic: str, operation: str) -> AuthorizationFailed:
    """The error of a login that lacks a right on the topic."""
    return AuthorizationFailed(
        f"the login at Kafka {bootstrap} has no right {operation} on topic {topic}: add an ACL with "
        f"operation {operation} and resource topic {topic} (a stream needs Describe and Read, and "
        "DescribeConfigs to read the topic's settings)"
    )


_UNCHECKED = (
    "the topic's settings cannot be read, so compaction, which is refused, would go unnoticed: {missing}"
)


def retention_warning(topic: str, kept_by_sender: timedelta | None, horizon: timedelta) -> str:
    """A warning if Kafka may remove messages unread that would be accepted; else empty."""
    if kept_by_sender is None or kept_by_sender >= horizon:
        return ""
    return (
        f"topic {topic} has message.timestamp.type=CreateTime and keeps messages for "
        f"{kept_by_sender.total_seconds():,.0f} s of their senders' time, less than the horizon of "
        f"{horizon.total_seconds():,.0f} s: Kafka may remove back-dated ones before they are read; "
        "set message.timestamp.type=LogAppendTime"
    )


def kept_by_sender(config: Mapping[str, Any]) -> timedelta | None:
    """`Topic.kept_by_sender` from a topic's settings."""
    by, kept = (config.get(name) for name in ("message.timestamp.type", "retention.ms"))
    if by is None or kept is None or by.value != "CreateTime" or int(kept.value) < 0:
        return None
    millis = int(kept.value)
    # 2^63 - 1 is a usual value for "for ever".
    return timedelta(milliseconds=millis) if millis < 10**15 else timedelta.max


def _silent_logger() -> Any:
    import logging

    logger = logging.getLogger("antenna.librdkafka")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger


_SILENT = _silent_logger()
