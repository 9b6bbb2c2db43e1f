"""Reading exact ranges of offsets with Kafka's own client in this process, in parts whose bytes are bounded.

For what Spark's reader cannot read: a record's time that it cannot multiply, messages that its Java has no memory for. What
becomes of the messages is `micro_batch.py`'s matter.
"""

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from antenna_assets.clients.kafka_broker import Broker, BrokerError, right_missing
from antenna_assets.domain.schema import TIMESTAMP
from antenna_assets.errors import StreamError
from antenna_assets.ledger.offsets import OffsetRange
from antenna_assets.streaming.envelope import kafka_micros

if TYPE_CHECKING:
    from confluent_kafka import Consumer

MESSAGES = pa.schema(
    [
        pa.field("value", pa.binary()),
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("timestamp", TIMESTAMP, nullable=False),
    ]
)
"""Messages as Spark's Kafka source gives them, with a timestamp that can be shown."""

PART_BYTES = 32 * 2**20
"""What a part holds at most, but for its last message."""

PART_MESSAGES = 200_000

# All batches of an answer are unpacked at once, each up to the second bound: 76 kB of zstd can be 600 MB.
_FETCH_BYTES = 8 * 2**10
_UNPACKED_BYTES = 100 * 10**6

_SILENT_SECONDS = 30


class Unreadable(StreamError):
    """A record that this client cannot read; what is before it in its partition, and in the others, was read."""

    def __init__(self, topic: str, partition: int, offset: int, why: str) -> None:
        super().__init__(
            f"partition {partition} of {topic}: the record at offset {offset} cannot be read: {why}; all before it is "
            f"committed; `antenna accept-loss --skip {partition} {offset}` records it as lost, and the stream goes on "
            "behind it"
        )
        self.partition = partition
        self.offset = offset


@dataclass(frozen=True)
class Part:
    """Messages (`MESSAGES`), the ranges that they are all of, control records aside, and the bytes of their values."""

    ranges: Sequence[OffsetRange]
    messages: pa.Table
    value_bytes: int

    @property
    def record(self) -> tuple[int, int] | None:
        """Partition and offset, if it has a single message."""
        if self.messages.num_rows != 1:
            return None
        return self.messages["partition"][0].as_py(), self.messages["offset"][0].as_py()


@dataclass
class PartBounds:
    """What ends a part. It may be changed between two of them."""

    bytes: int = PART_BYTES
    messages: int = PART_MESSAGES


class _PartBuilder:
    """The part that is being read."""

    def __init__(self) -> None:
        self.ranges: list[OffsetRange] = []
        self.rows: list[tuple[bytes | None, int, int, int]] = []
        self.bytes = 0

    def closed(self) -> Part:
        columns = list(zip(*self.rows, strict=True)) or [(), (), (), ()]
        arrays = [
            pa.array(column, pa.int64() if field.name == "timestamp" else field.type).cast(field.type)
            for column, field in zip(columns, MESSAGES, strict=True)
        ]
        return Part(self.ranges, pa.Table.from_arrays(arrays, schema=MESSAGES), self.bytes)


def read_ranges(broker: Broker, ranges: Sequence[OffsetRange], bounds: PartBounds) -> Generator[Part]:
    """The committed messages of the ranges, partition by partition, each of which is contiguous from part to part.

    Raises:
        Unreadable: a record cannot be read. It is raised at the end, behind all that could be read of the other partitions.
        BrokerError: Kafka does not answer.
    """
    unreadable: Unreadable | None = None
    part = _PartBuilder()
    for wanted in ranges:
        begin = wanted.from_offset
        try:
            for value, offset, millis in _messages(broker, wanted):
                part.rows.append((value, wanted.partition, offset, kafka_micros(millis)))
                part.bytes += len(value or b"")
                if part.bytes >= bounds.bytes or len(part.rows) >= bounds.messages:
                    part.ranges.append(OffsetRange(wanted.partition, begin, offset + 1))
                    yield part.closed()
                    part, begin = _PartBuilder(), offset + 1
            end = wanted.until_offset
        except _Stuck as stuck:
            unreadable = unreadable or Unreadable(broker.topic, wanted.partition, stuck.offset, stuck.why)
            end = stuck.offset
        if end > begin:
            part.ranges.append(OffsetRange(wanted.partition, begin, end))
    if part.ranges:
        yield part.closed()
    if unreadable is not None:
        raise unreadable


class _Stuck(Exception):
    def __init__(self, offset: int, why: str) -> None:
        super().__init__(why)
        self.offset = offset
        self.why = why


def _messages(broker: Broker, wanted: OffsetRange) -> Iterator[tuple[bytes | None, int, int]]:
    """Value, offset and milliseconds of each committed message of a range, in the order of the offsets."""
    from confluent_kafka import KafkaError, TopicPartition

    consumer = _consumer(broker)
    following, heard = wanted.from_offset, time.monotonic()
    last = ""
    try:
        consumer.assign([TopicPartition(broker.topic, wanted.partition, wanted.from_offset)])
        while True:
            message = consumer.poll(0.2)
            if message is None:
                if time.monotonic() - heard > _SILENT_SECONDS:
                    raise BrokerError(
                        f"Kafka at {broker.bootstrap} gave nothing of partition {wanted.partition} of {broker.topic} from "
                        f"offset {following} on for {_SILENT_SECONDS} s" + (last and f": {last}")
                    )
                continue
            error = message.error()
            if error is None:
                if message.offset() >= wanted.until_offset:
                    return
                yield message.value(), message.offset(), message.timestamp()[1]
                following, heard = message.offset() + 1, time.monotonic()
            # Nothing but control records is between the last message and the end.
            elif error.code() == KafkaError._PARTITION_EOF:
                if message.offset() >= wanted.until_offset:
                    return
            elif error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise right_missing(broker.bootstrap, broker.topic, "Read")
            elif error.code() in _unreadable():
                # A batch is unpacked whole, and one that begins before this record was read in part.
                raise _Stuck(max(following, message.offset()), error.str())
            else:
                # It may pass; and a login that is let in nowhere but at the topic is told so about groups.
                last = error.str()
    finally:
        consumer.close()


def _unreadable() -> set[int]:
    from confluent_kafka import KafkaError

    return {
        KafkaError._BAD_COMPRESSION,
        KafkaError._BAD_MSG,
        KafkaError._UNDERFLOW,
        KafkaError._INCONSISTENT,
        KafkaError.INVALID_MSG,
    }


def _consumer(broker: Broker) -> "Consumer":
    from confluent_kafka import Consumer

    return Consumer(
        {
            **broker.config.for_librdkafka(),
            "bootstrap.servers": broker.bootstrap,
            # Of no group: nothing is committed to Kafka, nor asked of it but these offsets.
            "group.id": "antenna",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "check.crcs": True,
            "fetch.message.max.bytes": _FETCH_BYTES,
            "receive.message.max.bytes": _UNPACKED_BYTES,
            "queued.max.messages.kbytes": 16 * 1024,
            "fetch.queue.backoff.ms": 10,
            "log_level": 0,
        }
    )
