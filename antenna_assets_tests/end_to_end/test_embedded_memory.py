"""Row 32 of docs/proofs.md, embedded: whatever a topic holds, the whole process stays below 1 GiB while it reads it."""

import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from antenna_assets.clients.kafka_broker import Broker
from antenna_assets.settings import Settings
from antenna_assets.streaming import exact_ranges
from antenna_assets.streaming.embedded import batches, consumer
from antenna_assets.streaming.embedded.consumer import TopicConsumer
from antenna_assets.streaming.exact_ranges import Unreadable
from antenna_assets.streaming.job import Stream
from antenna_assets_tests.end_to_end.producing import ONE_BATCH, ZSTD, event, produce
from antenna_assets_tests.exactness import committed_by_the_ledger, named_by_the_ledger
from antenna_assets_tests.faults.processes import Process
from antenna_assets_tests.faults.runs import STREAM
from antenna_assets_tests.faults.topics import add_partitions
from antenna_assets_tests.stream_engines import EMBEDDED

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("settings"), EMBEDDED]


def megabytes(count: int) -> list[bytes | None]:
    """Good events of a megabyte, of which zstd leaves a hundred bytes."""
    return [event(number, more=" " * 1_000_000) for number in range(count)]


def read_in_a_process(settings: Settings, seconds: float) -> tuple[int, str, int]:
    """Read to Kafka's end; exit code, what was said, and the most memory."""
    peak, end = 0, time.monotonic() + seconds
    with Process(settings, STREAM) as process:
        while process.code is None:
            assert time.monotonic() < end, process.said
            peak = max(peak, process.peak())
            time.sleep(0.05)
        return process.wait(1), " ".join(process.said.split()), peak


@pytest.mark.timeout(600)
def test_row_32_a_record_that_is_too_large_is_named_and_stepped_over_and_memory_stays_bounded(
    settings: Settings, proving: bool, record_property: Callable[[str, object], None]
) -> None:
    count = 200 if proving else 20
    for partition in range(1, 4):
        produce(settings, megabytes(count), partition, **ZSTD)
    # 18 kB in Kafka.
    for value in (event(1), b" " * 600_000_000, event(2)):
        produce(settings, [value], 0, **ZSTD)
    code, said, peak = read_in_a_process(settings, 300)
    assert code == 1, said
    assert "Traceback" not in said
    assert "the record at offset 1 cannot be read" in said
    assert "antenna accept-loss --skip 0 1" in said
    assert "antenna stream --engine spark --available-now" in said
    assert len(named_by_the_ledger(settings)) == 3 * count + 1
    skip = ("accept-loss", "--skip", "0", "1", "--reason", "600 MB of spaces")
    subprocess.run([sys.executable, "-m", "antenna_assets.cli", *skip], check=True, capture_output=True)
    code, said, again = read_in_a_process(settings, 300)
    assert code == 0, said
    assert len(named_by_the_ledger(settings)) == 3 * count + 2
    record_property("peak MiB", [peak >> 20, again >> 20])
    assert max(peak, again) < 2**30


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("of_a_megabyte", [True, False], ids=["a-megabyte-each", "small"])
def test_row_32_a_backlog_of_48_partitions_of_zstd_is_read_within_a_gibibyte(
    settings: Settings,
    proving: bool,
    of_a_megabyte: bool,
    record_property: Callable[[str, object], None],
) -> None:
    add_partitions(settings, 48)
    if of_a_megabyte:
        values = megabytes(40 if proving else 3)
    else:
        values = [event(number, id=f"u{number % 20_000}") for number in range(40_000 if proving else 2_000)]
    for partition in range(48):
        produce(settings, values, partition, **ZSTD)
    code, said, peak = read_in_a_process(settings, 900)
    assert code == 0, said
    assert len(committed_by_the_ledger(settings)) == 48 * len(values)
    record_property("messages", 48 * len(values))
    record_property("peak MiB", peak >> 20)
    assert peak < 2**30


def test_row_32_a_batch_of_records_that_unpacks_to_a_hundred_megabytes_is_read_within_a_gibibyte(
    settings: Settings, proving: bool, record_property: Callable[[str, object], None]
) -> None:
    produce(settings, [event(number) for number in range(100_000 if proving else 3_000)], 1, **ZSTD)
    produce(settings, megabytes(150 if proving else 70), 0, **ONE_BATCH)
    if proving:
        produce(settings, megabytes(400), 0, **{**ONE_BATCH, "compression.type": "gzip"})
    produce(settings, [event()], 0)
    code, said, peak = read_in_a_process(settings, 300)
    assert code == 0, said
    assert len(named_by_the_ledger(settings)) == len(committed_by_the_ledger(settings))
    record_property("peak MiB", peak >> 20)
    assert peak < 2**30


def test_a_record_of_more_than_the_bound_is_named_and_everything_before_it_is_committed(
    settings: Settings, new_stream: Callable[[], Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "RECORD_BYTES", 10_000)
    monkeypatch.setattr(exact_ranges, "RECORD_BYTES", 20_000)
    produce(settings, [event(), event(more=" " * 15_000), event(), event(more=" " * 20_000), event()], 0)
    produce(settings, [event(), event()], 1)
    with pytest.raises(
        Unreadable, match=r"offset 3 cannot be read: it has 20,0\d\d bytes, more than the 20,000"
    ):
        new_stream().read_available()
    assert named_by_the_ledger(settings) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]


def test_large_messages_are_taken_few_at_a_time_though_all_of_them_are_there(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "POLL_BYTES", 500_000)
    produce(settings, [event(number, more="x" * 100_000) for number in range(30)])
    sizes: list[int] = []
    with TopicConsumer(Broker(settings.kafka_bootstrap or "", settings.topic), {0: 0}) as one:
        while sum(sizes) < 3_000_000:
            sizes.append(one.poll(batches.MESSAGES_PER_BATCH, 1).value_bytes)
            time.sleep(0.05)
    assert max(sizes) <= 600_000
