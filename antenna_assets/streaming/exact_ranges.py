"""Exact ranges of offsets, read with Kafka's own client in this process, in parts of bounded size.

For what the readers cannot read: a record time that overflows in Spark, messages too large for its Java
(decision 18), and what the embedded reader's wider bounds refuse.
"""

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from antenna_assets.clients.kafka_broker import Broker, BrokerError, authorization_failed
from antenna_assets.errors import StreamError
from antenna_assets.ledger.offsets import OffsetRange
from antenna_assets.streaming.envelope import MESSAGES, record_times
from antenna_assets.streaming.ledger_consumer import ledger_consumer, unreadable_codes

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

PART_BYTES = 32 * 2**20
"""The most bytes of a part, its last message not counted."""

PART_MESSAGES = 200_000

UNPACKED_BYTES = 512 * 10**6
"""The most bytes that a record batch of zstd may unpack to.

A third of it is sure to be read: where the sender did not write the size, librdkafka guesses it in steps of
three. It has no bound for gzip and lz4.
"""

RECORD_BYTES = 32 * 10**6
"""The largest message that is read: judging and landing it takes several times as much memory."""

# All batches of a response are unpacked at once: 76 kB of zstd can be 600 MB. So there is one large batch at
# most, and the next response is asked for when nothing of it is left.
_BOUNDS = {
    "fetch.message.max.bytes": 8 * 2**10,
    "receive.message.max.bytes": UNPACKED_BYTES,
    "queued.max.messages.kbytes": 16 * 1024,
    "queued.min.messages": 1,
}

_SILENT_SECONDS = 30


class Unreadable(StreamError):
    """A record that this client cannot read; everything before it, and in the other partitions, was read."""

    def __init__(self, topic: str, partition: int, offset: int, reason: str) -> None:
        super().__init__(
            f"partition {partition} of {topic}: the record at offset {offset} cannot be read: {reason}; all "
            f"before it is committed; `antenna accept-loss --skip {partition} {offset}` records it as lost, "
            "and the stream resumes behind it"
        )
        self.partition = partition
        self.offset = offset


@dataclass(frozen=True)
class Part:
    """All messages of some ranges.

    Attributes:
        messages: with the columns of `MESSAGES`; control records are left out.
        value_bytes: the bytes of their values.
    """

    ranges: Sequence[OffsetRange]
    messages: pa.Table
    value_bytes: int

    @property
    def record(self) -> tuple[int, int] | None:
        """Partition and offset of the message, if there is only one."""
        if self.messages.num_rows != 1:
            return None
        return self.messages["partition"][0].as_py(), self.messages["offset"][0].as_py()


@dataclass
class PartBounds:
    """The size at which a part ends. It may be changed between two parts."""

    bytes: int = PART_BYTES
    messages: int = PART_MESSAGES


class _PartBuilder:
    """A part that is being read."""

    def __init__(self) -> None:
        self.ranges: list[OffsetRange] = []
        self.rows: list[tuple[bytes | None, int, int, int]] = []
        self.bytes = 0

    def build(self) -> Part:
        values, partitions, offsets, millis = list(zip(*self.rows, strict=True)) or [(), (), (), ()]
        # The part has a copy of the messages, and is handed out while this builder still exists.
        self.rows = []
        arrays = [
            pa.array(values, pa.binary()),
            pa.array(partitions, pa.int32()),
            pa.array(offsets, pa.int64()),
            record_times(pa.array(millis, pa.int64())),
        ]
        return Part(self.ranges, pa.Table.from_arrays(arrays, schema=MESSAGES), self.bytes)


def read_ranges(broker: Broker, ranges: Sequence[OffsetRange], bounds: PartBounds) -> Generator[Part]:
    """The committed messages of the ranges, partition by partition, without a gap from part to part.

    Raises:
        Unreadable: a record cannot be read. Raised at the end, after all that could be read of the other
            partitions.
        BrokerError: Kafka does not answer.
    """
    unreadable: Unreadable | None = None
    part = _PartBuilder()
    for wanted in ranges:
        begin = wanted.from_offset
        try:
            for value, offset, millis in _messages(broker, wanted):
                part.rows.append((value, wanted.partition, offset, millis))
                part.bytes += len(value or b"")
                if part.bytes >= bounds.bytes or len(part.rows) >= bounds.messages:
                    part.ranges.append(OffsetRange(wanted.partition, begin, offset + 1))
                    yield part.build()
                    part, begin = _PartBuilder(), offset + 1
            end = wanted.until_offset
        except _Stuck as stuck:
            unreadable = unreadable or Unreadable(broker.topic, wanted.partition, stuck.offset, stuck.reason)
            end = stuck.offset
        if end > begin:
            part.ranges.append(OffsetRange(wanted.partition, begin, end))
    if part.ranges:
        yield part.build()
    if unreadable is not None:
        raise unreadable


class _Stuck(Exception):
    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset
        self.reason = reason


def _messages(broker: Broker, wanted: OffsetRange) -> Iterator[tuple[bytes | None, int, int]]:
    """Value, offset and record time (ms) of each committed message of a range, in offset order."""
    from confluent_kafka import KafkaError, TopicPartition

    consumer = ledger_consumer(broker, **_BOUNDS)
    following, last_heard = wanted.from_offset, time.monotonic()
    last_error = ""
    try:
        consumer.assign([TopicPartition(broker.topic, wanted.partition, wanted.from_offset)])
        while True:
            message = consumer.poll(0.2)
            if message is None:
                if time.monotonic() - last_heard > _SILENT_SECONDS:
                    raise BrokerError(
                        f"Kafka at {broker.bootstrap} gave nothing of partition {wanted.partition} of "
                        f"{broker.topic} from "
                        f"offset {following} on for {_SILENT_SECONDS} s" + (last_error and f": {last_error}")
                    )
                continue
            error = message.error()
            if error is None:
                if message.offset() >= wanted.until_offset:
                    return
                if len(message) > RECORD_BYTES:
                    size = f"it has {len(message):,} bytes, more than the {RECORD_BYTES:,} that are read"
                    raise _Stuck(message.offset(), size)
                yield message.value(), message.offset(), message.timestamp()[1]
                following, last_heard = message.offset() + 1, time.monotonic()
            # Only control records are between the last message and the end.
            elif error.code() == KafkaError._PARTITION_EOF:
                if message.offset() >= wanted.until_offset:
                    return
            elif error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise authorization_failed(broker.bootstrap, broker.topic, "Read")
            elif error.code() in unreadable_codes():
                # A batch is unpacked whole, and one that starts before this record was read in part.
                raise _Stuck(max(following, message.offset()), _refusal(error))
            else:
                # Transient; or about consumer groups, for a login that has rights at the topic only.
                last_error = error.str()
    finally:
        consumer.close()


def _refusal(error: "KafkaError") -> str:
    """Why a record batch cannot be read, and what may read it."""
    from confluent_kafka import KafkaError

    if error.code() != KafkaError._BAD_COMPRESSION:
        return str(error.str())
    return (
        f"{error.str()}: its batch is damaged, or unpacks to more than {UNPACKED_BYTES // 3 // 10**6} MB; "
        "Spark unpacks record by record, so `antenna stream --engine spark --available-now` may read it"
    )
