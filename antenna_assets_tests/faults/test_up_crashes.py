"""`antenna up` is killed at each of its points, and the next one makes everything ready."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from antenna_assets.clients.migrations import require_migrated
from antenna_assets.clients.postgres import connect
from antenna_assets.settings import Settings
from antenna_assets.stack import services
from antenna_assets.stack.start import dagster_home
from antenna_assets_tests.faults.runs import crash, finish

pytestmark = pytest.mark.services

UP = ("antenna_assets.cli", "up")
POINTS = (
    "up.postgres_started",
    "up.kafka_started",
    "up.services_started",
    "up.migration.last_statement",
    "up.before_dagster_yaml",
)


@pytest.fixture
def home() -> Iterator[Path]:
    """A short path, as a socket needs it; whatever runs there is stopped at the end."""
    home = Path(tempfile.mkdtemp(prefix="antenna-up-"))
    try:
        yield home
    finally:
        services.down(Settings(home=home), lambda _line: None)
        shutil.rmtree(home, ignore_errors=True)


def test_row_16_up_that_is_killed_at_one_point_after_the_other_is_mended_by_the_next(home: Path) -> None:
    settings = Settings(home=home)
    for point in POINTS:
        # Each start goes on where the one before died, but for the services: they are what a crash leaves behind.
        crash(settings, UP, point)
        if point in ("up.postgres_started", "up.kafka_started"):
            services.down(settings, lambda _line: None)
    finish(settings, UP)
    found = services.services(settings)
    with connect(found.postgres_url) as connection:
        require_migrated(connection)
        assert connection.execute("SELECT count(*) FROM user_metadata").fetchone() == (20,)
    assert (dagster_home(settings) / "dagster.yaml").is_file()
    finish(settings, UP)
