"""Row 11 of docs/proofs.md: whatever bytes come through Kafka, each message lands or is rejected for its reason, and
poison does not slow the stream down.
"""

import random
import statistics
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import HOUR, hour_of
from antenna_assets.domain.schema import REASONS
from antenna_assets.settings import Settings
from antenna_assets.simulator.event_json import event_fields
from antenna_assets.simulator.events import Message, messages
from antenna_assets.simulator.malformed import SHAPES
from antenna_assets.simulator.scenario import Scenario
from antenna_assets.simulator.send import Target, send
from antenna_assets.streaming.job import Stream
from antenna_assets_tests.end_to_end.runs import place
from antenna_assets_tests.messages import TABLE
from antenna_assets_tests.parse_oracle import Accepted, Rejected, verdict
from antenna_assets_tests.random_messages import random_message
from antenna_assets_tests.stream_engines import EACH_ENGINE_IN_THE_LONG_FORM

pytestmark = [pytest.mark.services, EACH_ENGINE_IN_THE_LONG_FORM]

Places = dict[tuple[int, int], bytes | None]
Verdicts = dict[tuple[int, int], Accepted | Rejected]

# Kafka takes no larger message.
LONGEST = 900_000


def hostile(now: int) -> dict[bytes | None, str]:
    """Messages of every shape that breaks the contract, with the reason that must be found."""
    fields = event_fields(5, str(now), "web", "u-1", "a-1")
    return {shape(fields): reason for reason, shapes in SHAPES.items() for shape in shapes}


def payloads(seed: int, count: int, now: int) -> list[bytes | None]:
    """Hostile shapes, literal ones and random ones, in random order: of a few hours, as each is a file of its own."""
    rng = random.Random(f"payloads {seed}")
    table = [value for value, _ in TABLE.values()]
    some: list[bytes | None] = [value for value in table if len(value or b"") < LONGEST]
    some += hostile(now)
    some += [random_message(rng, now, back=2 * 3600) for _ in range(count - len(some))]
    rng.shuffle(some)
    return some


def expected_verdicts(settings: Settings, connection: psycopg.Connection, held: Places) -> Verdicts:
    """The oracle's verdict on each message, with the clock of the batch that read it."""
    found: Verdicts = {}
    for partition, first, end, clock in connection.execute(
        "SELECT partition, from_offset, until_offset, clock FROM ledger.batch_offset JOIN ledger.batch USING (batch)"
    ):
        oldest = max(settings.start, clock - settings.horizon)
        for offset in range(first, end):
            found[partition, offset] = verdict(held[partition, offset], clock, oldest)
    return found


def verdicts_in_the_lake(settings: Settings, connection: psycopg.Connection, held: Places) -> Verdicts:
    """What became of each message, from the files that the ledger names: no message is in two of them."""
    found: Verdicts = {}
    for path, kind, hour in connection.execute("SELECT path, kind, hour FROM ledger.file"):
        table = pq.read_table(Path(settings.lake_uri) / path, partitioning=None)
        places = zip(table["kafka_partition"].to_pylist(), table["kafka_offset"].to_pylist(), strict=True)
        verdicts: list[Accepted | Rejected]
        if kind == "landed":
            micros = table["timestamp"].cast(pa.int64()).to_pylist()
            begin = int(hour.timestamp())
            assert all(begin <= one // 1_000_000 < begin + 3600 for one in micros), path
            columns = [table[name].to_pylist() for name in ("app", "id", "antenna_id", "bytes")]
            verdicts = [Accepted(*row) for row in zip(micros, *columns, strict=True)]
        else:
            verdicts = [Rejected(reason) for reason in table["reason"].to_pylist()]
        values = table["value"].to_pylist() if kind == "rejected" else []
        for number, (where, one) in enumerate(zip(places, verdicts, strict=True)):
            assert where not in found
            found[where] = one
            assert not values or values[number] == held[where], "a rejected message keeps its very bytes"
    return found


@pytest.mark.timeout(1_800)
def test_row_11_each_fuzzed_payload_lands_or_is_rejected_as_the_oracle_says(
    another_world: Callable[[], AbstractContextManager[Settings]],
    new_stream: Callable[..., Stream],
    proving: bool,
    record_property: Callable[[str, object], None],
) -> None:
    chunks, size = (10, 100_000) if proving else (1, 50_000)
    counts: Counter[str] = Counter()
    for seed in range(chunks):
        with another_world() as settings:
            now = int(time.time())
            sent = payloads(seed, size, now)
            held = place(settings, ((number % 4, value) for number, value in enumerate(sent)))
            new_stream(settings).read_available()
            with connect(settings.postgres_url or "") as connection:
                found = verdicts_in_the_lake(settings, connection, held)
                expected = expected_verdicts(settings, connection, held)
                counted = connection.execute(
                    "SELECT sum(rows), sum(quarantined) FROM ledger.batch"
                ).fetchone()
        assert found.keys() == held.keys()
        differ = [
            (held[where], found[where], expected[where]) for where in held if found[where] != expected[where]
        ]
        assert differ == [], f"{len(differ)} of {size}, as {differ[:3]}"
        reasons = hostile(now)
        for where, value in held.items():
            if value in reasons:
                assert found[where] == Rejected(reasons[value]), value
        in_chunk = Counter(one.reason if isinstance(one, Rejected) else "accepted" for one in found.values())
        assert set(in_chunk) == {"accepted", *REASONS}, (
            "a fuzzer that misses a verdict proves nothing about it"
        )
        assert counted == (in_chunk["accepted"], size - in_chunk["accepted"])
        counts += in_chunk
    record_property("payloads", counts.total())
    record_property("landed", counts["accepted"])
    record_property("quarantined", counts.total() - counts["accepted"])
    record_property("reasons", len(counts) - 1)
    record_property("verdicts that differ from the oracle's", 0)


def traffic(events: int, poison: float) -> list[Message]:
    """Messages of two hours, of which a share breaks the contract in every way."""
    start = hour_of(datetime.now(UTC) - timedelta(minutes=2)) - 2 * HOUR
    return list(messages(Scenario(events=events, seed=11, start=start, hours=2, malformed=poison)))


def seconds_to_read(settings: Settings, stream: Stream, sent: list[Message]) -> float:
    """How long the stream takes for messages that are in its topic when it starts."""
    send(sent, Target(settings.kafka_bootstrap or "", settings.topic))
    began = time.monotonic()
    stream.read_available()
    took = time.monotonic() - began
    with connect(settings.postgres_url or "") as connection:
        read = connection.execute("SELECT sum(rows), sum(quarantined) FROM ledger.batch").fetchone()
    rejected = sum(message.event is None for message in sent)
    assert read == (len(sent) - rejected, rejected)
    return took


@pytest.mark.timeout(1_800)
def test_row_11_a_tenth_of_poison_costs_at_most_a_fifth_of_the_throughput(
    another_world: Callable[[], AbstractContextManager[Settings]],
    new_stream: Callable[..., Stream],
    proving: bool,
    record_property: Callable[[str, object], None],
) -> None:
    events = 600_000 if proving else 20_000
    mixes = {"clean": traffic(events, 0.0), "10 % poison": traffic(events, 0.1)}
    took: dict[str, list[float]] = {name: [] for name in mixes}
    # The first round warms Java up and does not count.
    for round_ in range(4 if proving else 2):
        for name, sent in mixes.items():
            with another_world() as settings:
                seconds = seconds_to_read(settings, new_stream(settings), sent)
            if round_:
                took[name].append(seconds)
    medians = {name: statistics.median(seconds) for name, seconds in took.items()}
    for name, seconds in medians.items():
        record_property(f"events a second, {name}", round(events / seconds))
    ratio = medians["clean"] / medians["10 % poison"]
    record_property("throughput with 10 % poison, % of clean", round(100 * ratio, 1))
    if proving:
        assert ratio >= 0.8, took
