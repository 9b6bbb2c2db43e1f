"""Published hours, days and a month, of which each test gets copies of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from antenna_assets.clients.postgres import connect
from antenna_assets_tests.certified import World
from antenna_assets_tests.period_world import (
    ANNA,
    BELA,
    land_and_publish_hours,
    set_quota,
    use_world,
    use_zones,
)
from antenna_assets_tests.periods_meet.october import END, EVENTS, FIRST, ZONES, publish_days, publish_month


@pytest.fixture(scope="session")
def hours(new_database, migrated_template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two days of published hours, with users who are over each quota. Tests change only copies of it."""
    with new_database(migrated_template) as url:
        world = World(url, tmp_path_factory.mktemp("hours") / "lake")
        with connect(url) as connection:
            use_zones(connection, "UTC", ZONES)
            for period, bytes_ in (("hour", 900), ("day", 999), ("month", 1_000)):
                set_quota(connection, ANNA, period, bytes_)
            set_quota(connection, BELA, "day", 300)
        land_and_publish_hours(world, EVENTS, FIRST, END)
        yield world


@pytest.fixture(scope="session")
def periods(hours: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The same with its days and its month published."""
    with hours.copy(tmp_path_factory.mktemp("periods")) as world:
        publish_days(world)
        publish_month(world)
        yield world


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("ANTENNA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ANTENNA_REPUBLISH_WAIT", "0 minutes")
    return monkeypatch


@contextmanager
def own(source: World, folder: Path, environment: pytest.MonkeyPatch) -> Iterator[World]:
    """A copy of one's own, which the environment names."""
    with source.copy(folder) as copied:
        use_world(environment, copied)
        yield copied


@pytest.fixture
def world(periods: World, tmp_path: Path, environment: pytest.MonkeyPatch) -> Iterator[World]:
    """Published hours, days and month of one's own."""
    with own(periods, tmp_path, environment) as copied:
        yield copied


@pytest.fixture
def unpublished(hours: World, tmp_path: Path, environment: pytest.MonkeyPatch) -> Iterator[World]:
    """Published hours of one's own, and no day."""
    with own(hours, tmp_path, environment) as copied:
        yield copied


@pytest.fixture
def opened(world: World) -> Iterator[psycopg.Connection]:
    with connect(world.url) as connection:
        yield connection


@pytest.fixture
def dagster() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance
