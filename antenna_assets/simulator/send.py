"""Sending messages to Kafka, paced or as fast as possible: each is acknowledged, or sending fails."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from antenna_assets.clients.kafka_broker import Broker, BrokerError
from antenna_assets.clients.kafka_config import PLAIN, KafkaConfig
from antenna_assets.domain.counted import counted
from antenna_assets.errors import AntennaError
from antenna_assets.simulator.events import Message

if TYPE_CHECKING:
    from confluent_kafka import Producer

DELIVERY_SECONDS = 60
"""How long a message may stay unacknowledged: longer than the restart of a broker."""

_BATCH = 1000
_FULL_QUEUE_SECONDS = 0.05

_silent = logging.getLogger("antenna.librdkafka.producer")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


class SendError(AntennaError):
    """Not every message reached Kafka; the error says how many did and what to do."""


@dataclass(frozen=True)
class Target:
    """The topic to send to: its brokers, its name, and how clients connect."""

    bootstrap: str
    topic: str
    config: KafkaConfig = PLAIN


@dataclass
class Sent:
    """What Kafka acknowledged. `offsets` has, by partition, the first offset and the one after the last."""

    topic: str
    topic_id: str
    messages: int = 0
    offsets: dict[int, tuple[int, int]] = field(default_factory=dict)


@dataclass
class Receipts:
    """Collects delivery reports: librdkafka's `poll` calls it once for each message."""

    delivered: int = 0
    failed: int = 0
    failure: str = ""
    first: dict[int, int] = field(default_factory=dict)
    last: dict[int, int] = field(default_factory=dict)
    unplaced: Counter[int] = field(default_factory=Counter)

    def __call__(self, error: Any, message: Any) -> None:
        if error is not None:
            self.failed += 1
            self.failure = self.failure or error.str()
            return
        self.delivered += 1
        partition, offset = message.partition(), message.offset()
        # With idempotence, a partition's reports arrive in the order of its offsets. A message that was
        # retried after a lost response has no offset: Kafka has it already and does not say where.
        if partition in self.last:
            self.last[partition] = self.last[partition] + 1 if offset is None else offset
        elif offset is None:
            self.unplaced[partition] += 1
        else:
            self.first[partition] = offset - self.unplaced.pop(partition, 0)
            self.last[partition] = offset

    def offsets(self, ends: Callable[[], Mapping[int, int]]) -> dict[int, tuple[int, int]]:
        """Return by partition the first offset and the one after the last.

        Args:
            ends: returns the end of each partition; called if a partition had no report with an offset.
        """
        found = {partition: (first, self.last[partition] + 1) for partition, first in self.first.items()}
        if self.unplaced:
            end = ends()
            found.update(
                {
                    partition: (end[partition] - count, end[partition])
                    for partition, count in self.unplaced.items()
                }
            )
        return dict(sorted(found.items()))


def no_progress(_count: int) -> None:
    """Report nothing."""


def send(
    messages: Iterable[Message],
    target: Target,
    *,
    rate: float | None = None,
    clock: Callable[[], float] = monotonic,
    progress: Callable[[int], None] = no_progress,
) -> Sent:
    """Send the messages and wait until Kafka has acknowledged each of them.

    The key of a message is its user, so that the events of a user stay in order in one partition, as a
    gateway would send them, and partitions are as uneven as users are. The partitioner is that of the Java
    client.

    Args:
        rate: messages per second; None: as fast as possible.
        clock: monotonic seconds, for the pace.
        progress: called about every thousand messages with how many were handed to the producer so far.

    Raises:
        SendError: the broker does not answer, the topic does not exist, or messages stayed unacknowledged. In
            the last case the topic has some of the messages.
    """
    from confluent_kafka import KafkaException

    if rate is not None and rate <= 0:
        raise SendError(f"rate: expected more than 0 messages per second, found {rate:g}")
    try:
        # Checked first: a producer would wait for an unknown topic until the messages time out.
        broker = Broker(target.bootstrap, target.topic, target.config)
        description = broker.describe()
    except BrokerError as error:
        raise SendError(str(error)) from error
    receipts = Receipts()
    producer = _producer(target, receipts)
    count = 0
    try:
        for batch in _batches(messages, rate, clock):
            _hand_over(producer, target.topic, batch)
            count += len(batch)
            progress(count)
            producer.poll(0)
            if receipts.failed:
                break
    except KafkaException as error:
        # The producer itself failed, as when the topic is deleted while it sends.
        receipts.failure = error.args[0].str()
    finally:
        # Also on an interrupt: whether each message is in the topic is known afterwards.
        unacknowledged = producer.flush(DELIVERY_SECONDS + 5)
    if receipts.failed or receipts.failure or unacknowledged:
        reason = f": {receipts.failure}" if receipts.failure else ""
        raise SendError(
            f"Kafka at {target.bootstrap} acknowledged {receipts.delivered:,} of {counted(count, 'message')},"
            f" {receipts.failed:,} failed and {unacknowledged:,} are without an answer{reason}."
            f" Topic {target.topic} has some of them, so no answers fit it:"
            " check the broker (`antenna doctor`), then send to a new topic"
        )
    return Sent(
        description.name,
        description.id,
        receipts.delivered,
        receipts.offsets(lambda: broker.next_offsets(description)),
    )


def _producer(target: Target, receipts: Receipts) -> "Producer":
    from confluent_kafka import Producer

    return Producer(
        {
            **target.config.for_librdkafka(),
            "bootstrap.servers": target.bootstrap,
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",
            "linger.ms": 50,
            "batch.size": 1_000_000,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 500_000,
            "queue.buffering.max.kbytes": 262_144,
            "message.timeout.ms": DELIVERY_SECONDS * 1000,
            "on_delivery": receipts,
            # One error of ours instead of a line on stderr for each refused connection.
            "log_level": 0,
            "logger": _silent,
        }
    )


def _batches(
    messages: Iterable[Message], rate: float | None, clock: Callable[[], float]
) -> Iterator[list[Message]]:
    """Yield batches of about 1,000 messages, or of a twentieth of a second at a given rate."""
    size = _BATCH if rate is None else max(1, min(_BATCH, int(rate / 20)))
    began = clock()
    count = 0
    batch: list[Message] = []
    for message in messages:
        batch.append(message)
        if len(batch) < size:
            continue
        yield batch
        count += len(batch)
        batch = []
        if rate is not None and (ahead := began + count / rate - clock()) > 0:
            sleep(ahead)
    if batch:
        yield batch


def _hand_over(producer: "Producer", topic: str, batch: list[Message]) -> None:
    for message in batch:
        while True:
            try:
                producer.produce(topic, message.value, message.key)
                break
            except BufferError:
                # The queue is full until messages are acknowledged.
                producer.poll(_FULL_QUEUE_SECONDS)
