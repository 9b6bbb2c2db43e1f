"""Row 12 of docs/proofs.md: events of 1970, 2038, 2999 and tomorrow are rejected, drop no other event and close no hour early."""

import json
import random
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pyarrow.parquet as pq
import pytest

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import HOUR, hour_of
from antenna_assets.settings import Settings
from antenna_assets.simulator.events import messages
from antenna_assets.simulator.scenario import Scenario
from antenna_assets.streaming.job import Stream
from antenna_assets_tests.end_to_end.runs import place
from antenna_assets_tests.stream_engines import EACH_ENGINE_IN_THE_LONG_FORM, limit_batches

pytestmark = [pytest.mark.services, EACH_ENGINE_IN_THE_LONG_FORM]

Placed = tuple[int, bytes | None]
Times = dict[tuple[int, int], datetime]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
STRANGE = {
    EPOCH: "timestamp_too_old",
    datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC): "timestamp_in_future",
    datetime(2999, 12, 31, 23, 59, 59, tzinfo=UTC): "timestamp_in_future",
}
PARTITIONS = 4
BATCHES = 4


def traffic(seed: int, events: int, strange: bool) -> tuple[list[Placed], Times, dict[tuple[int, int], str]]:
    """Messages for their partitions; when each good event happened, and why each other message is rejected.

    Every thousandth message is not an event of the hours before the present one: it has a strange time, or it is no
    JSON at all, and then all good events lie at the same offsets as with the strange times.
    """
    start = hour_of(datetime.now(UTC) - timedelta(minutes=2)) - 4 * HOUR
    scenario = Scenario(events=events, seed=seed, start=start, hours=4, late=0.05, unknown_users=0.01)
    rng = random.Random(seed)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    moments = [*STRANGE, tomorrow]
    sent: list[Placed] = []
    good: Times = {}
    bad: dict[tuple[int, int], str] = {}
    next_offset = [0] * PARTITIONS

    def put(partition: int, value: bytes | None) -> tuple[int, int]:
        sent.append((partition, value))
        next_offset[partition] += 1
        return partition, next_offset[partition] - 1

    odd = 0
    for number, message in enumerate(messages(scenario)):
        assert message.event is not None
        where = put(rng.randrange(PARTITIONS), message.value)
        good[where] = EPOCH + timedelta(microseconds=message.event.timestamp)
        if number % 1_000 == 500:
            moment = moments[odd % len(moments)]
            odd += 1
            event = {"bytes": 1, "timestamp": moment.timestamp(), "app": "a", "id": "u", "antenna_id": "n"}
            value = json.dumps(event).encode() if strange else b"no event"
            where = put(rng.randrange(PARTITIONS), value)
            bad[where] = STRANGE.get(moment, "timestamp_in_future") if strange else "not_json"
    return sent, good, bad


def closed_after_each_batch(connection: psycopg.Connection) -> list[set[datetime]]:
    """The hours that were closed when the next batch began, by the ledger."""
    times = connection.execute("SELECT committed_at FROM ledger.batch ORDER BY batch").fetchall()
    closed = connection.execute(
        "SELECT hour, closed_at FROM ledger.hour WHERE closed_at IS NOT NULL AND rows > 0"
    ).fetchall()
    ends = [time for (time,) in times[1:]] + [datetime.max.replace(tzinfo=UTC)]
    return [{hour for hour, at in closed if at < end} for end in ends]


def allowed(
    connection: psycopg.Connection, good: Times, lateness: timedelta
) -> tuple[list[datetime | None], list[set[datetime]]]:
    """After each batch, the low watermark and the closed hours that the good events alone give, by design 2.4.

    The last batch reads everything out: the clock closes then, and all hours have ended.
    """
    ends = dict.fromkeys(range(PARTITIONS), 0)
    for partition, _offset in good:
        ends[partition] += 1
    batches: dict[int, dict[int, tuple[int, int]]] = {}
    for batch, partition, first, end in connection.execute(
        "SELECT batch, partition, from_offset, until_offset FROM ledger.batch_offset ORDER BY batch"
    ):
        batches.setdefault(batch, {})[partition] = (first, end)
        ends[partition] = max(end, ends[partition])
    newest: dict[int, datetime] = {}
    read = dict.fromkeys(ends, 0)
    watermark: datetime | None = None
    watermarks: list[datetime | None] = []
    closed: list[set[datetime]] = []
    for ranges in batches.values():
        for partition, (first, end) in ranges.items():
            read[partition] = end
            times = [good[partition, offset] for offset in range(first, end) if (partition, offset) in good]
            newest[partition] = max([*times, *([newest[partition]] if partition in newest else [])])
        behind = [partition for partition, end in ends.items() if read[partition] < end]
        if behind and all(partition in newest for partition in behind):
            one = min(newest[partition] for partition in behind) - lateness
            watermark = one if watermark is None else max(watermark, one)
        watermarks.append(watermark)
        hours = {hour_of(time) for time in good.values()}
        passed = {hour for hour in hours if watermark is not None and hour + HOUR <= watermark}
        closed.append(passed if behind else hours)
    return watermarks, closed


def filed(
    settings: Settings, connection: psycopg.Connection, kind: str, column: str
) -> dict[tuple[int, int], object]:
    paths = connection.execute("SELECT path FROM ledger.file WHERE kind = %s", [kind]).fetchall()
    found: dict[tuple[int, int], object] = {}
    for (path,) in paths:
        for row in pq.read_table(Path(settings.lake_uri) / path, partitioning=None).to_pylist():
            found[row["kafka_partition"], row["kafka_offset"]] = row[column]
    return found


def observed(
    settings: Settings, stream: Stream, sent: Iterable[Placed], good: Times, bad: dict
) -> list[object]:
    """Read everything in several batches and compare it with what the good events allow; what the ledger says of time."""
    held = place(settings, sent)
    assert held.keys() == good.keys() | bad.keys()
    stream.read_available()
    with connect(settings.postgres_url or "") as connection:
        assert filed(settings, connection, "landed", "timestamp") == good
        assert filed(settings, connection, "rejected", "reason") == bad
        found_watermarks = [
            watermark
            for (watermark,) in connection.execute("SELECT low_watermark FROM ledger.batch ORDER BY batch")
        ]
        assert len(found_watermarks) >= BATCHES
        watermarks, closed = allowed(connection, good, settings.lateness)
        # The last watermark is the clock's.
        assert found_watermarks[:-1] == watermarks[:-1]
        assert found_watermarks[-1] > max(good.values())
        found = closed_after_each_batch(connection)
        assert found == closed
        assert closed[0] < closed[-2], "expected hours that close one after another"
        head = connection.execute("SELECT first_hour FROM ledger.head").fetchall()
        by_watermark = connection.execute(
            "SELECT hour FROM ledger.hour WHERE rows > 0 AND closed_by = 'watermark'"
        ).fetchall()
        assert {hour for (hour,) in by_watermark} == closed[-2]
        hours = connection.execute(
            "SELECT hour, rows, bytes FROM ledger.hour WHERE rows > 0 ORDER BY hour"
        ).fetchall()
    # Which messages a batch has depends on the order in which Kafka hands out its partitions.
    return [head, hours]


def test_row_12_events_with_strange_times_drop_no_row_and_close_no_hour_early(
    another_world: Callable[[], AbstractContextManager[Settings]],
    new_stream: Callable[..., Stream],
    monkeypatch: pytest.MonkeyPatch,
    proving: bool,
    record_property: Callable[[str, object], None],
) -> None:
    seeds, events = (range(1, 5), 40_000) if proving else (range(1, 2), 8_000)
    limit_batches(monkeypatch, events // BATCHES)
    strange = hours = 0
    for seed in seeds:
        ledgers = []
        for with_strange in (True, False):
            with another_world() as settings:
                sent, good, bad = traffic(seed, events, with_strange)
                ledgers.append(observed(settings, new_stream(settings), sent, good, bad))
                strange += len(bad) if with_strange else 0
        assert ledgers[0] == ledgers[1]
        hours += len(ledgers[0][-1])  # type: ignore[arg-type]
    record_property("good events", len(seeds) * events)
    record_property("events with strange times", strange)
    record_property("good events dropped", 0)
    record_property("hours", hours)
    record_property("hours closed early", 0)
