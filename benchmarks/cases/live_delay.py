"""The delay from an event's arrival in Kafka to its bytes in the live tables, at 10,000 events per second.

Measured from outside: another connection polls the committed micro-batches every 20 ms; the delay of an event
ends when its batch is seen.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator

from confluent_kafka import Consumer, TopicPartition

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import HOUR
from antenna_assets.settings import PREFIX
from antenna_assets.simulator.events import Message
from antenna_assets.simulator.send import Target, send
from antenna_assets.stack.kafka_topic import ensure_topic
from benchmarks.context import Context
from benchmarks.measure import ContenderFailed
from benchmarks.outcome import Claim, Measured, Outcome, Table
from benchmarks.stream_data import messages
from benchmarks.world import ANTENNA, PARTITIONS, fresh, last_full_hour

TITLE = "From an event to its live sum"
RATE, SECONDS, WARM_UP_SECONDS, USERS = 10_000, 120, 40, 20_000
LOOK_SECONDS = 0.02
PATIENCE_SECONDS = 120


def measure(context: Context) -> Outcome:
    """Run a stream and a steady sender; measure each event from its arrival to the visible commit."""
    seconds, warm_up = (6, 0) if context.short else (SECONDS, WARM_UP_SECONDS)
    rate = 500 if context.short else RATE
    topic = "bench-live"
    environment = context.environment()
    bootstrap = environment[f"{PREFIX}KAFKA_BOOTSTRAP"]
    ensure_topic(bootstrap, topic, PARTITIONS)
    own = {**fresh(environment, context.folder / "own"), f"{PREFIX}TOPIC": topic}
    url = own[f"{PREFIX}POSTGRES_URL"]
    total = rate * (warm_up + seconds)
    watch = Watch(url, total)
    watch.start()
    log = context.folder / "stream.log"
    with log.open("wb") as output:
        variables = {**os.environ, **own}
        stream = subprocess.Popen((*ANTENNA, "stream"), env=variables, stdout=output, stderr=output)
        try:
            send(_of_this_hour(total), Target(bootstrap, topic), rate=rate)
            watch.join(timeout=PATIENCE_SECONDS)
        finally:
            stream.send_signal(signal.SIGINT)
            stream.wait(PATIENCE_SECONDS)
    if watch.is_alive():
        raise ContenderFailed(
            f"expected {total} messages in the ledger, found {watch.read};"
            f" the stream's log ends with: {log.read_text()[-2_000:]}"
        )
    delays = delays_of(url, bootstrap, topic, watch.seen, skip=rate * warm_up)
    delays.sort()
    at = {share: delays[min(int(len(delays) * share), len(delays) - 1)] for share in (0.5, 0.95, 0.99)}
    table = Table(
        f"{len(delays):,} events at {rate:,} a second",
        "s",
        [Measured(f"p{share * 100:.0f}", [value]) for share, value in at.items()],
    )
    return Outcome(
        [table],
        [Claim("10,000 events/s: p95 at most 0.5 s", f"{at[0.95]:.2f} s", at[0.95] <= 0.5)],
        notes=[
            f"The first {warm_up} s are left out.",
            "A windowed query in append mode shows a window only after the watermark has passed its end:"
            " five minutes of window and one of lateness.",
        ],
    )


def _of_this_hour(count: int) -> Iterator[Message]:
    """Messages of the last hour: only Kafka's time of arrival matters here."""
    return messages(count, users=USERS, start=last_full_hour(), span=HOUR)


class Watch(threading.Thread):
    """Records when each micro-batch was first seen, until all messages are in the ledger."""

    def __init__(self, url: str, total: int) -> None:
        super().__init__(daemon=True)
        self._url, self._total = url, total
        self.seen: dict[int, float] = {}
        self.read = 0

    def run(self) -> None:
        with connect(self._url) as connection:
            known = 0
            while self.read < self._total:
                rows = connection.execute(
                    "SELECT batch, rows + quarantined FROM ledger.batch WHERE batch > %s ORDER BY batch",
                    [known],
                ).fetchall()
                now = time.time()
                for known, read in rows:
                    self.seen[known] = now
                    self.read += read
                time.sleep(LOOK_SECONDS)


def delays_of(url: str, bootstrap: str, topic: str, seen: dict[int, float], *, skip: int) -> list[float]:
    """Return the delay of each message but the first ones in seconds, from Kafka's timestamp."""
    with connect(url) as connection:
        ranges = connection.execute(
            "SELECT partition, from_offset, until_offset, batch FROM ledger.batch_offset"
            " ORDER BY partition, from_offset"
        ).fetchall()
    arrived = _arrivals(bootstrap, topic, sum(end - begin for _, begin, end, _ in ranges))
    found = sorted(
        (arrived[partition, offset], seen[batch] - arrived[partition, offset])
        for partition, begin, end, batch in ranges
        for offset in range(begin, end)
    )
    return [delay for _, delay in found[skip:]]


def _arrivals(bootstrap: str, topic: str, count: int) -> dict[tuple[int, int], float]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "bench", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    found: dict[tuple[int, int], float] = {}
    while len(found) < count:
        for message in consumer.consume(min(100_000, count - len(found)), timeout=10):
            found[message.partition(), message.offset()] = message.timestamp()[1] / 1000
    consumer.close()
    return found
