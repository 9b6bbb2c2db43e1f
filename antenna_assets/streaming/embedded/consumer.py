"""Consuming a topic from given offsets on, into Arrow tables, with bounded memory.

What is handed out, and how far, is in `positions`; what ends the reading is in `failure`, and never lost
between two polls: messages that came before it are handed out first.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from antenna_assets.clients.kafka_broker import Broker, BrokerError, authorization_failed
from antenna_assets.streaming.embedded.errors import OffsetsGone, RecordRefused
from antenna_assets.streaming.embedded.turns import Turns
from antenna_assets.streaming.envelope import MESSAGES, record_times
from antenna_assets.streaming.ledger_consumer import ledger_consumer, unreadable_codes

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Message

FETCH_BYTES = 16 * 2**10
"""The most bytes of a response of the broker, unless its first record batch has more.

All of a response is unpacked at once: 76 kB of zstd can be 600 MB. The next
one is asked for while this one is read, so small ones cost little.
"""

UNPACKED_BYTES = 64 * 10**6
"""The most bytes of one record batch, unpacked. A larger one is refused, and read by `exact_ranges.py`."""

PREFETCHED_BYTES = 32 * 2**20
"""The bytes at which librdkafka stops to fetch ahead."""

RECORD_BYTES = 16 * 10**6
"""The largest message that is read here: each stage has a micro-batch in memory, and copies of it."""

POLL_MESSAGES = 20_000
POLL_BYTES = 8 * 2**20
"""The most messages and, estimated by the first ones, bytes that one poll turns into Arrow."""

_STEP = 4
"""A poll takes one message, then so many times as many as it has while they are small."""

SILENT_SECONDS = 30
"""Kafka gives something of a partition that is not read out, or moves on in it, within this time."""

STATISTICS_MILLIS = 5_000


@dataclass(frozen=True)
class Chunk:
    """Messages of one poll, with the columns of `MESSAGES`, and the bytes of their values."""

    messages: pa.Table
    value_bytes: int


EMPTY = Chunk(MESSAGES.empty_table(), 0)


class TopicConsumer:
    """Reads the committed messages of some partitions; a context manager.

    Args:
        offsets: where to begin each partition.

    Attributes:
        positions: the next offset of each partition: everything before it was handed out. Control records
            and aborted messages count as handed out once a later message, or the end, was seen.
        drained: whether the last poll found fewer messages than it would have taken.
        failure: why nothing more is read; None while it goes on.
    """

    def __init__(self, broker: Broker, offsets: Mapping[int, int]) -> None:
        self._broker = broker
        self.positions = dict(offsets)
        self.failure: Exception | None = None
        self._ends: dict[int, int] = {}
        self._fetched: dict[int, int] = {}
        self._silent = dict.fromkeys(offsets, 0.0)
        self._heard: set[int] = set()
        self._turns = Turns(offsets)
        self.drained = True
        self._last_error = ""
        self._first = EMPTY
        self._unreadable = unreadable_codes()
        self._consumer: Consumer = ledger_consumer(
            broker,
            **{
                "fetch.message.max.bytes": FETCH_BYTES,
                "fetch.max.bytes": FETCH_BYTES,
                # Of producers only, but librdkafka wants a response to be no smaller.
                "message.max.bytes": FETCH_BYTES,
                "receive.message.max.bytes": UNPACKED_BYTES,
                "queued.max.messages.kbytes": PREFETCHED_BYTES // 1024,
                # So soon after the last message its partition is known to be read out.
                "fetch.wait.max.ms": 100,
                "statistics.interval.ms": STATISTICS_MILLIS,
                "stats_cb": self._progress,
            },
        )
        self.resume()

    def __enter__(self) -> "TopicConsumer":
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    @property
    def read_out(self) -> bool:
        """Whether nothing was left in any partition when it was last looked at."""
        return all(self._ends.get(partition) == at for partition, at in self.positions.items())

    @property
    def heard(self) -> bool:
        """Whether Kafka has given anything of a partition since the last `resume`: a message, or its end."""
        return bool(self._heard)

    def require_first_sign(self, seconds: float) -> None:
        """Wait until Kafka has given anything, at most so long; the next poll begins with it.

        Raises:
            Exception: `failure`, if that came first.
        """
        end = time.monotonic() + seconds
        while not self.heard and self.failure is None and time.monotonic() < end:
            self._first = self.poll(1, 0.1)
        if self.failure is not None and not self._first.messages.num_rows:
            raise self.failure

    def pause(self) -> None:
        """Stop fetching; what was fetched ahead is dropped, and read again after `resume`."""
        self._consumer.unassign()

    def resume(self) -> None:
        """Fetch from the present positions on; what is known of the partitions' ends is forgotten."""
        from confluent_kafka import TopicPartition

        self._ends, self._heard = {}, set()
        self._turns = Turns(self.positions)
        places = [TopicPartition(self._broker.topic, *place) for place in self.positions.items()]
        self._consumer.assign(places)

    def poll(self, most: int, seconds: float) -> Chunk:
        """At most so many messages: those that are there now, or that come first within the time.

        Once something ends the reading, `failure` is set, and every later poll is empty.
        """
        if self._first.messages.num_rows:
            first, self._first = self._first, EMPTY
            return first
        if self.failure is not None:
            return EMPTY
        began, before = time.monotonic(), dict(self.positions)
        messages = []
        for one in self._consumed(min(POLL_MESSAGES, most), seconds):
            if one.error() is None and len(one) <= RECORD_BYTES:
                messages.append(one)
            elif not self._noted(one):
                # What follows may be behind a gap.
                break
        chunk = self._chunk(messages) if messages else EMPTY
        self._require_signs(time.monotonic() - began)
        if self.failure is None:
            self._take_turns(before, chunk.messages.num_rows)
        return chunk

    def _consumed(self, most: int, seconds: float) -> "list[Message]":
        """Messages and events: few at a time while they are large, since each of them is a copy."""
        found: list[Message] = self._consumer.consume(1, seconds)
        size = sum(map(len, found))
        self.drained = not found
        while not self.drained:
            each = max(1, size // len(found))
            step = min(_STEP * len(found), most - len(found), (POLL_BYTES - size) // each)
            if step <= 0:
                break
            more = self._consumer.consume(step, 0)
            found += more
            size += sum(map(len, more))
            self.drained = len(more) < step
        return found

    def _chunk(self, messages: "list[Message]") -> Chunk:
        partitions = [one.partition() for one in messages]
        offsets = [one.offset() for one in messages]
        values = pa.array([one.value() for one in messages], pa.binary())
        millis = pa.array([one.timestamp()[1] for one in messages], pa.int64())
        # The last one of each partition stays.
        for partition, offset in dict(zip(partitions, offsets, strict=True)).items():
            self.positions[partition] = max(self.positions[partition], offset + 1)
            self._hear(partition)
        columns = [
            values,
            pa.array(partitions, pa.int32()),
            pa.array(offsets, pa.int64()),
            record_times(millis),
        ]
        value_bytes = pc.sum(pc.binary_length(values)).as_py() or 0
        return Chunk(pa.Table.from_arrays(columns, schema=MESSAGES), value_bytes)

    def _noted(self, event: "Message") -> bool:
        """Take note of what is no message, or one too large; returns whether reading goes on."""
        from confluent_kafka import KafkaError

        error, partition, offset = event.error(), event.partition(), event.offset()
        if error is None:
            self.failure = RecordRefused(self._broker.topic, partition, f"it has {len(event):,} bytes")
            return False
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            # Between the last message and the end are control records and aborted messages only.
            self.positions[partition] = max(self.positions[partition], offset)
            self._ends[partition] = offset
            self._hear(partition)
        elif code == KafkaError._AUTO_OFFSET_RESET:
            self.failure = OffsetsGone(self._broker.topic, partition, error.str())
        elif code in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED):
            self.failure = authorization_failed(self._broker.bootstrap, self._broker.topic, "Read")
        elif code in self._unreadable:
            self.failure = RecordRefused(self._broker.topic, partition, error.str())
        elif error.fatal():
            self.failure = BrokerError(f"Kafka at {self._broker.bootstrap} cannot be used: {error.str()}")
        else:
            # Transient; or about consumer groups, for a login that has rights at the topic only.
            self._last_error = error.str()
        return self.failure is None

    def _take_turns(self, before: Mapping[int, int], messages: int) -> None:
        """Stop fetching the partitions that are too far ahead; go on with those that no longer are.

        Args:
            before: the positions before a poll.
            messages: how many it gave.
        """
        from confluent_kafka import TopicPartition

        waited = self._turns.waiting
        self._turns.take(
            # A long aborted transaction is passed over at once: its offsets count as nothing.
            {partition: min(at - before[partition], messages) for partition, at in self.positions.items()},
            [partition for partition, at in self.positions.items() if self._ends.get(partition) == at],
        )
        waiting, topic = self._turns.waiting, self._broker.topic
        if stops := waiting - waited:
            self._consumer.incremental_unassign([TopicPartition(topic, partition) for partition in stops])
        if goes_on := waited - waiting:
            self._consumer.incremental_assign(
                [TopicPartition(topic, partition, self.positions[partition]) for partition in goes_on]
            )

    def _hear(self, partition: int) -> None:
        self._heard.add(partition)
        self._silent[partition] = 0.0

    def _progress(self, statistics: str) -> None:
        """Note where librdkafka fetches next: a long aborted transaction gives no message for long."""
        topics = json.loads(statistics)["topics"]
        found: dict[str, Any] = topics.get(self._broker.topic, {}).get("partitions", {})
        for name, state in found.items():
            partition, fetched = int(name), state["next_offset"]
            if partition in self.positions and self._fetched.get(partition) != fetched:
                self._fetched[partition] = fetched
                self._silent[partition] = 0.0

    def _require_signs(self, seconds: float) -> None:
        """Add the time of a poll to the silence of each partition; waiting elsewhere adds none.

        Nor does a poll that got all it asked for: of large messages it takes long until the others wait for
        a partition that librdkafka does not fetch meanwhile, see `turns.py`.
        """
        if not self.drained:
            return
        for partition, at in self.positions.items():
            if self._ends.get(partition) == at or partition in self._turns.waiting:
                continue
            self._silent[partition] += seconds
            if self._silent[partition] > SILENT_SECONDS and self.failure is None:
                self.failure = BrokerError(
                    f"Kafka at {self._broker.bootstrap} gave nothing of partition {partition} of "
                    f"{self._broker.topic} from offset {at} on for {SILENT_SECONDS} s"
                    + (self._last_error and f": {self._last_error}")
                )
