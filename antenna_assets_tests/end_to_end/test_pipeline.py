"""From Kafka to over-quota users on real services, compared with exact answers: rows 3 and 13 of docs/proofs.md."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import hour_of
from antenna_assets.settings import Settings
from antenna_assets.simulator.answers_file import read_answers
from antenna_assets.simulator.compare import differences
from antenna_assets.simulator.rejected import counts_by_reason
from antenna_assets.simulator.run import AnswersFile, simulate
from antenna_assets.simulator.scenario import Scenario
from antenna_assets.simulator.send import Target
from antenna_assets.streaming.job import Stream
from antenna_assets_tests.end_to_end.runs import instance, publish_what_the_sensor_asks_for
from antenna_assets_tests.local_runs import execute, tick

pytestmark = pytest.mark.services

HOUR = timedelta(hours=1)
PLACE = ["kafka_partition", "kafka_offset", "timestamp"]


def scenario(seed: int, *, events: int = 5_000, hours: int = 2) -> Scenario:
    """Events of the hours before the present one, with something wrong of each kind."""
    start = hour_of(datetime.now(UTC) - timedelta(minutes=2)) - hours * HOUR
    shares = {"late": 0.02, "malformed": 0.01, "future": 0.001, "unknown_users": 0.01}
    return Scenario(events=events, seed=seed, start=start, hours=hours, **shares)


def send(settings: Settings, wanted: Scenario, answers: Path, *, append: bool = False) -> None:
    simulate(
        settings,
        wanted,
        Target(settings.kafka_bootstrap or "", settings.topic),
        answers=AnswersFile(answers, append=append),
    )


def varied(seed: int) -> Scenario:
    """Scenarios of different shapes: from one hour to seven, few users and many, hardly anything wrong and a lot."""
    return replace(
        scenario(seed, events=2_000 + 1_700 * (seed % 5), hours=1 + seed * 3 % 7),
        late=(0.0, 0.02, 0.3)[seed % 3],
        malformed=(0.001, 0.01, 0.2)[seed // 3 % 3],
        future=(0.0, 0.001, 0.05)[seed // 2 % 3],
        unknown_users=(0.01, 0.3)[seed % 2],
        users=(20, 3, 200, 2_000)[seed % 4],
        antennas=(5, 1, 60)[seed % 3],
    )


def late_rows(settings: Settings) -> int:
    """The ledger's count of rows that came after their hour had closed."""
    with connect(settings.postgres_url or "") as connection:
        (count,) = connection.execute(
            "SELECT coalesce(sum(late_rows), 0)::bigint FROM ledger.batch"
        ).fetchall()[0]
    return count


def accepted_in(answers: Path) -> int:
    """The events that the answers expect to be stored."""
    return sum(row["rows"] for row in read_answers(answers).hours())


def wrong(settings: Settings, answers: Path) -> list[str]:
    url = settings.postgres_url or ""
    found = differences(read_answers(answers), url, rejected_in=counts_by_reason(url, settings.lake_uri))
    return [str(difference) for difference in found]


def out_of_order(settings: Settings) -> int:
    """How many landed events happened before one that lies ahead of them in their partition."""
    with connect(settings.postgres_url or "") as connection:
        paths = connection.execute("SELECT path FROM ledger.file WHERE kind = 'landed'").fetchall()
    tables = [pq.read_table(Path(settings.lake_uri) / path, partitioning=None) for (path,) in paths]
    newest: dict[int, datetime] = {}
    count = 0
    for row in sorted(
        (row for table in tables for row in table.select(PLACE).to_pylist()),
        key=lambda row: (row["kafka_partition"], row["kafka_offset"]),
    ):
        partition, time = row["kafka_partition"], row["timestamp"]
        count += time < newest.get(partition, time)
        newest[partition] = max(time, newest.get(partition, time))
    return count


@pytest.mark.timeout(1_800)
def test_row_3_every_table_equals_the_answers(
    another_world: Callable[[], AbstractContextManager[Settings]],
    new_stream: Callable[..., Stream],
    proving: bool,
    record_property: Callable[[str, object], None],
) -> None:
    seeds = range(1, 34) if proving else range(1, 4)
    events = reordered = late = 0
    for seed in seeds:
        with another_world() as settings:
            answers = settings.home / "answers.json"
            wanted = varied(seed)
            send(settings, wanted, answers)
            assert wrong(settings, answers), "nothing is read yet, so nothing can be equal"
            new_stream(settings).read_available()
            if seed % 2:
                # As a gateway that was away: more of the same hours, which have closed meanwhile.
                behind = replace(wanted, seed=1_000 + seed, events=wanted.events // 4)
                send(settings, behind, answers, append=True)
                new_stream(settings).read_available()
                events += behind.events
            with instance() as dagster:
                assert publish_what_the_sensor_asks_for(dagster) >= 1
            assert wrong(settings, answers) == [], f"seed {seed}: {wanted}"
            reordered += out_of_order(settings)
            late += late_rows(settings)
            events += wanted.events
    assert reordered > events / 20
    assert late > 0
    record_property("seeds", len(seeds))
    record_property("messages", events)
    record_property("events behind a newer one in their partition", reordered)
    record_property("late rows of closed hours", late)
    record_property("rows that differ", 0)


def test_row_13_a_closed_hour_is_right_again_within_two_ticks_and_many_late_batches_are_one_generation(
    settings: Settings,
    new_stream: Callable[..., Stream],
    tmp_path: Path,
    proving: bool,
    record_property: Callable[[str, object], None],
) -> None:
    answers = tmp_path / "answers.json"
    once = scenario(4, events=1_000)
    rounds, batches = (6, 4) if proving else (1, 3)
    longest = 0
    with instance() as dagster:
        send(settings, once, answers)
        new_stream().read_available()
        assert publish_what_the_sensor_asks_for(dagster) >= 1
        on_time = accepted_in(answers)
        for round_ in range(1, rounds + 1):
            for number in range(batches):
                send(settings, replace(once, seed=100 * round_ + number, events=200), answers, append=True)
                new_stream().read_available()
            assert late_rows(settings) == accepted_in(answers) - on_time
            assert wrong(settings, answers), "late rows are not published yet"
            ticks = 0
            while wrong(settings, answers):
                ticks += 1
                assert ticks <= 2, wrong(settings, answers)
                for request in tick(dagster):
                    assert execute(dagster, request).success
            longest = max(longest, ticks)
            assert tick(dagster) == []
            with connect(settings.postgres_url or "") as connection:
                sealed = connection.execute(
                    "SELECT hour, generation FROM ledger.hour ORDER BY hour"
                ).fetchall()
            ours = [generation for hour, generation in sealed if once.start <= hour < once.end]
            assert ours == [round_ + 1] * once.hours
    record_property("late batches", rounds * batches)
    record_property("late rows", late_rows(settings))
    record_property("late rows counted wrongly", 0)
    record_property("most ticks until the hours were right again", longest)
    record_property("generations an hour for all late batches before a tick", 1)


def test_every_offset_is_accounted_for_once_and_nothing_lies_about(
    settings: Settings, new_stream: Callable[[], Stream], tmp_path: Path
) -> None:
    answers = tmp_path / "answers.json"
    for seed in (5, 6):
        send(settings, scenario(seed, events=2_000), answers)
        new_stream().read_available()
    new_stream().read_available()
    with connect(settings.postgres_url or "") as connection:
        ranges = connection.execute(
            "SELECT partition, from_offset, until_offset FROM ledger.batch_offset"
        ).fetchall()
        files = connection.execute("SELECT path, rows FROM ledger.file").fetchall()
        counted = connection.execute("SELECT sum(rows) + sum(quarantined) FROM ledger.batch").fetchone()
    consumed = [(partition, offset) for partition, first, end in ranges for offset in range(first, end)]
    assert len(consumed) == len(set(consumed)) == 4_000
    assert counted == (4_000,)
    stored = []
    for path, rows in files:
        table = pq.read_table(Path(settings.lake_uri) / path, partitioning=None)
        assert table.num_rows == rows
        stored += list(
            zip(table["kafka_partition"].to_pylist(), table["kafka_offset"].to_pylist(), strict=True)
        )
    assert sorted(stored) == sorted(consumed)
    landing = Path(settings.lake_uri) / "landing"
    on_disk = {
        path.relative_to(settings.lake_uri).as_posix() for path in landing.rglob("*") if path.is_file()
    }
    assert on_disk == {path for path, _ in files}
