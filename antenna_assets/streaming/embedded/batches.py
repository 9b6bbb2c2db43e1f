"""Micro-batches of what is consumed, bounded by messages, by bytes and by time."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

import pyarrow as pa

from antenna_assets.ledger.offsets import OffsetRange
from antenna_assets.streaming.embedded.consumer import Chunk, TopicConsumer
from antenna_assets.streaming.embedded.errors import OffsetsGone
from antenna_assets.streaming.envelope import MESSAGES

MESSAGES_PER_BATCH = 300_000
"""The most."""

BYTES_PER_BATCH = 64 * 2**20
"""The bytes of values at which a micro-batch ends; those of its last poll may be more."""

LEAST_SECONDS = 0.25
"""From the end of a micro-batch to the end of the next one, unless that is full: each one has its files."""

MOST_SECONDS = 1.0
"""After its first message a micro-batch ends within this time, if the next stage is ready for it.

Large ones cost less a message. The first ones of a start are smaller, so that it soon shows something.
"""

FIRST_SECONDS = 0.05
"""`MOST_SECONDS` of a start's first micro-batch; each one after it may take `_GROWTH` times as long."""

_GROWTH = 4

_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class ReadBatch:
    """A micro-batch that is read and not yet judged.

    Attributes:
        messages: with the columns of `MESSAGES`; without rows if the ranges hold only control records.
        began: when reading it began, on the monotonic clock.
    """

    messages: pa.Table
    ranges: list[OffsetRange]
    value_bytes: int
    began: float


class _Growing:
    """A micro-batch that is being read."""

    def __init__(self, positions: Mapping[int, int]) -> None:
        self._begin = dict(positions)
        self._tables: list[pa.Table] = []
        self.messages = self.value_bytes = 0
        self.began: float | None = None

    def add(self, chunk: Chunk, positions: Mapping[int, int]) -> None:
        if self.began is None and positions != self._begin:
            self.began = time.monotonic()
        if chunk.messages.num_rows:
            self._tables.append(chunk.messages)
            self.messages += chunk.messages.num_rows
            self.value_bytes += chunk.value_bytes

    @property
    def is_full(self) -> bool:
        return self.messages >= MESSAGES_PER_BATCH or self.value_bytes >= BYTES_PER_BATCH

    def build(self, positions: Mapping[int, int]) -> ReadBatch | None:
        if self.began is None:
            return None
        ranges = [
            OffsetRange(partition, begin, positions[partition])
            for partition, begin in sorted(self._begin.items())
            if positions[partition] > begin
        ]
        return ReadBatch(
            pa.concat_tables([MESSAGES.empty_table(), *self._tables]), ranges, self.value_bytes, self.began
        )


def read_batches(
    consumer: TopicConsumer,
    begin: Mapping[int, int],
    *,
    stop: threading.Event,
    is_wanted: Callable[[], bool],
    until: Mapping[int, int] | None = None,
    trigger: timedelta = timedelta(0),
) -> Iterator[ReadBatch]:
    """Micro-batches without a gap between them, until `stop`, or until everything before `until` is read.

    A micro-batch ends when it is full. It also ends when Kafka has nothing more, or after `MOST_SECONDS`,
    as soon as the next stage waits for one: while that is busy, it grows.

    Args:
        begin: the offsets at which the consumer was begun.
        stop: what is read and not yet yielded is dropped then.
        is_wanted: whether the next stage waits for a micro-batch.
        until: the offset to read to, of each partition.
        trigger: a micro-batch begins so long after the one before, with what Kafka has then.

    Raises:
        OffsetsGone: Kafka does not have the next offset of a partition.
        Exception: any other `consumer.failure`, once everything before it was yielded.
    """
    ended = -LEAST_SECONDS
    most_seconds = FIRST_SECONDS
    while not stop.is_set():
        began = time.monotonic()
        growing = _Growing(begin)
        at_end = False
        while not (stop.is_set() or at_end or growing.is_full or consumer.failure):
            growing.add(
                consumer.poll(MESSAGES_PER_BATCH - growing.messages, _POLL_SECONDS), consumer.positions
            )
            at_end = until is not None and _reached(consumer.positions, until)
            if trigger and consumer.read_out:
                break
            if growing.began is not None and is_wanted():
                now = time.monotonic()
                if consumer.read_out and now - ended >= LEAST_SECONDS:
                    break
                # Without a pause in what arrives, no partition may ever be seen read out.
                if now - growing.began >= (LEAST_SECONDS if consumer.drained else most_seconds):
                    break
        if stop.is_set():
            return
        if isinstance(consumer.failure, OffsetsGone):
            # Nothing of the present micro-batch is committed, as with the other reader.
            raise consumer.failure
        batch = growing.build(consumer.positions)
        begin = dict(consumer.positions)
        if batch is not None:
            yield batch
            ended = time.monotonic()
            most_seconds = min(_GROWTH * most_seconds, MOST_SECONDS)
        if consumer.failure is not None:
            raise consumer.failure
        if at_end:
            return
        if trigger:
            consumer.pause()
            stop.wait(max(0.0, began + trigger.total_seconds() - time.monotonic()))
            consumer.resume()


def _reached(positions: Mapping[int, int], until: Mapping[int, int]) -> bool:
    return all(positions.get(partition, end) >= end for partition, end in until.items())
