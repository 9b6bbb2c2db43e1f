"""proofs.md, rows 15 and 16: killed at each point of an hour's publication and of the sensor's tick, the hour is whole."""

from datetime import datetime
from pathlib import Path

import dagster as dg
import pytest

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import hour_key
from antenna_assets.domain.schema import ASSETS, LAKE_TABLES
from antenna_assets.publishing.lake import Lake
from antenna_assets.settings import Settings
from antenna_assets_tests.end_to_end.runs import hours_of, instance, publish_what_the_sensor_asks_for
from antenna_assets_tests.exactness import assert_exact
from antenna_assets_tests.faults.plain_stream import read_everything
from antenna_assets_tests.faults.publish import die, publish_hour, publish_range, tick_once
from antenna_assets_tests.faults.runs import send
from antenna_assets_tests.local_runs import tick

pytestmark = pytest.mark.services

HOURS = 3
"""Hours of a run."""

# `:2` is the second asset of those that pass the point: of the lake `enriched_usage`, of the tables the user's. Some
# points are passed by each hour.
PUBLICATION = (
    "publish.seal.last_statement",
    "publish.sealed:2",
    "publish.lake.files_written",
    "publish.lake.files_written:2",
    "publish.lake.committed",
    "publish.lake.committed:2",
    "publish.hours_done",
    "publish.hours_done:2",
    "publish.table.computed",
    "publish.table.fenced",
    "publish.table.deleted:2",
    "publish.table.copied",
    "publish.table.committed:2",
    "publish.certified",
    "publish.certified:2",
)
SENSOR = ("sensor.before_query", "sensor.before_requests")
POINTS = {point.partition(":")[0] for point in (*PUBLICATION, *SENSOR)}


@pytest.fixture
def answers(settings: Settings, tmp_path: Path) -> Path:
    """An hour of events, landed and closed, nothing published."""
    return landed(settings, tmp_path, hours=1)


def landed(settings: Settings, folder: Path, *, hours: int) -> Path:
    """Land so many hours of events and close them; their answers."""
    answers = folder / "answers.json"
    send(settings, answers, hours=hours)
    read_everything(settings)
    return answers


def the_hours(settings: Settings) -> list[datetime]:
    """The hours with events, ascending."""
    with connect(settings.postgres_url or "") as connection:
        rows = connection.execute("SELECT hour FROM ledger.hour WHERE rows > 0 ORDER BY hour").fetchall()
    return [hour for (hour,) in rows]


def the_hour(settings: Settings) -> datetime:
    (hour,) = the_hours(settings)
    return hour


def assert_published_once(settings: Settings, answers: Path, generation: int) -> None:
    """Tables equal the answers, Delta holds each hour once, every asset is at the generation."""
    assert_exact(settings, answers, published=True)
    with connect(settings.postgres_url or "") as connection:
        heads = connection.execute("SELECT hour, asset, generation FROM ledger.publication_head").fetchall()
        rows = dict(connection.execute("SELECT hour, rows FROM ledger.hour").fetchall())
    lake = Lake(settings.lake_uri)
    for hour in the_hours(settings):
        at = {asset: found for of_hour, asset, found in heads if of_hour == hour}
        assert at == dict.fromkeys(ASSETS, generation), hour
        for table in LAKE_TABLES:
            found = lake.hour(table, hour)
            assert (found.generation, found.rows) == (generation, rows[hour]), (table, hour)


def test_row_16_killed_at_a_point_of_the_publication_of_several_hours_they_are_run_again_and_whole(
    settings: Settings, tmp_path: Path
) -> None:
    # Hours for each point: none shares anything with those of another one but the tables.
    answers = landed(settings, tmp_path, hours=HOURS * len(PUBLICATION))
    hours = the_hours(settings)
    for point, first, last in zip(PUBLICATION, hours[::HOURS], hours[HOURS - 1 :: HOURS], strict=True):
        die(settings, point, publish_range, f"{hour_key(first)}...{hour_key(last)}")
    with instance() as dagster:
        assert publish_what_the_sensor_asks_for(dagster) >= 1
    assert_published_once(settings, answers, 1)


def test_row_16_killed_between_two_generations_the_newer_one_replaces_the_older_whole(
    settings: Settings, answers: Path
) -> None:
    with instance() as dagster:
        assert publish_what_the_sensor_asks_for(dagster) >= 1
        send(settings, answers, seed=2, start=the_hour(settings), hours=1)
        read_everything(settings)
        # The old hour is deleted and the new one copied, in a transaction that never ends.
        die(settings, "publish.table.copied:3", publish_hour, hour_key(the_hour(settings)))
        assert publish_what_the_sensor_asks_for(dagster) >= 1
    assert_published_once(settings, answers, 2)


@pytest.mark.parametrize("point", SENSOR)
def test_row_15_a_tick_that_is_killed_is_asked_for_again_by_the_next(
    settings: Settings, answers: Path, tmp_path: Path, point: str
) -> None:
    home = tmp_path / "dagster"
    home.mkdir()
    die(settings, point, tick_once, home)
    with dg.instance_for_test(temp_dir=str(home)) as dagster:
        assert the_hour(settings) in hours_of(tick(dagster))
        publish_what_the_sensor_asks_for(dagster)
        assert tick(dagster) == []
    assert_published_once(settings, answers, 1)
