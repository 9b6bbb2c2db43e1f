"""From Kafka to over-quota users on real services, compared with exact answers."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from antenna_assets.database import connect
from antenna_assets.hours import hour_of
from antenna_assets.settings import Settings
from antenna_assets.simulator.answers import Answers
from antenna_assets.simulator.compare import differences
from antenna_assets.simulator.quarantine import counts_by_reason
from antenna_assets.simulator.run import simulate
from antenna_assets.simulator.scenario import Scenario
from antenna_assets.streaming.job import Stream
from antenna_assets_tests.end_to_end.runs import instance, publish_what_the_sensor_asks_for

pytestmark = pytest.mark.services

HOUR = timedelta(hours=1)


def scenario(seed: int, *, events: int = 5_000, hours: int = 2) -> Scenario:
    """Events of the hours before the present one, with something wrong of each kind."""
    start = hour_of(datetime.now(UTC) - timedelta(minutes=2)) - hours * HOUR
    shares = {"late": 0.02, "malformed": 0.01, "future": 0.001, "unknown_users": 0.01}
    return Scenario(events=events, seed=seed, start=start, hours=hours, **shares)


def send(settings: Settings, wanted: Scenario, answers: Path, *, append: bool = False) -> None:
    simulate(
        settings,
        wanted,
        bootstrap=settings.kafka_bootstrap or "",
        answers=answers,
        append=append,
        progress=lambda _count: None,
    )


def wrong(settings: Settings, answers: Path) -> list[str]:
    url = settings.postgres_url or ""
    found = differences(Answers.read(answers), url, rejected_in=counts_by_reason(url, settings.lake_uri))
    return [str(difference) for difference in found]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_table_equals_the_answers(
    settings: Settings, new_stream: Callable[[], Stream], tmp_path: Path, seed: int
) -> None:
    answers = tmp_path / "answers.json"
    send(settings, scenario(seed), answers)
    assert wrong(settings, answers), "nothing is read yet, so nothing can be equal"
    new_stream().read_available()
    with instance(tmp_path / "dagster") as dagster:
        assert publish_what_the_sensor_asks_for(dagster) >= 1
    assert wrong(settings, answers) == []


def test_a_closed_hour_sent_again_late_is_published_as_generation_2(
    settings: Settings, new_stream: Callable[[], Stream], tmp_path: Path
) -> None:
    answers = tmp_path / "answers.json"
    once = scenario(4, events=1_000, hours=1)
    with instance(tmp_path / "dagster") as dagster:
        for append in (False, True):
            send(settings, once, answers, append=append)
            new_stream().read_available()
            assert publish_what_the_sensor_asks_for(dagster) >= 1
    assert wrong(settings, answers) == []
    with connect(settings.postgres_url or "") as connection:
        row = connection.execute(
            "SELECT generation FROM ledger.hour WHERE hour = %s", [once.start]
        ).fetchone()
        late = connection.execute("SELECT sum(late_rows) FROM ledger.batch").fetchone()
        accepted = Answers.read(answers).hours()[0]["rows"]
    assert row == (2,)
    assert late == (accepted // 2,)


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
    import pyarrow.parquet as pq

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
    assert list((settings.home / "checkpoints").iterdir()) == []
