"""The topic of events on an embedded or external Kafka, and the admin client that creates it."""

import contextlib
import time
from typing import TYPE_CHECKING

from antenna_assets.clients.kafka_config import PLAIN, ConnectionErrors, KafkaConfig
from antenna_assets.stack.kafka_storage import PARTITIONS, KafkaError

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

_LEADER_SECONDS = 30


def ensure_topic(
    bootstrap: str, topic: str, partitions: int = PARTITIONS, *, config: KafkaConfig = PLAIN
) -> None:
    """Create the topic if it is missing, and wait until each of its partitions has a leader.

    An existing topic is not changed.

    Raises:
        KafkaError: the topic cannot be created, or lacks leaders after 30 seconds.
    """
    from confluent_kafka import KafkaError as Code
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import NewTopic

    refusal = ConnectionErrors()
    admin = admin_client(bootstrap, config, refusal)
    # Timestamps of arrival: retention would follow a sender's timestamp, which can be any number.
    settings = {"cleanup.policy": "delete", "message.timestamp.type": "LogAppendTime"}
    new = NewTopic(topic, num_partitions=partitions, replication_factor=-1, config=settings)
    try:
        if topic not in admin.list_topics(timeout=10).topics:
            admin.create_topics([new], operation_timeout=10)[topic].result(20)
    except KafkaException as error:
        if error.args[0].code() != Code.TOPIC_ALREADY_EXISTS:
            admin.poll(0)
            reason = refusal.reason or error.args[0].str()
            raise KafkaError(f"cannot create topic {topic!r} on {bootstrap}: {reason}") from error
    deadline = time.monotonic() + _LEADER_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(KafkaException):
            found = admin.list_topics(topic, timeout=5).topics[topic]
            if (
                found.error is None
                and found.partitions
                and all(p.leader >= 0 for p in found.partitions.values())
            ):
                return
        time.sleep(0.1)
    raise KafkaError(
        f"expected every partition of {topic!r} on {bootstrap} to have a leader, found some without"
    )


def admin_client(
    bootstrap: str, config: KafkaConfig = PLAIN, refusal: ConnectionErrors | None = None
) -> "AdminClient":
    """Return an admin client that logs nothing: librdkafka prints a line for each refused connection.

    Args:
        refusal: receives, in the client's `poll`, why authentication failed.
    """
    from confluent_kafka.admin import AdminClient

    return AdminClient(
        {
            **config.for_librdkafka(),
            "bootstrap.servers": bootstrap,
            "log_level": 0,
            "error_cb": refusal or ConnectionErrors(),
        }
    )
