"""Killed at each point of a day's publication, the day is as it was before or whole, and the next run publishes it."""

from pathlib import Path

import dagster as dg
import psycopg
import pytest

from antenna_assets.clients.postgres import connect
from antenna_assets.definitions import build_definitions
from antenna_assets.ledger.billing_zone import recorded_zone
from antenna_assets.settings import load_settings
from antenna_assets_tests.certified import World
from antenna_assets_tests.faults.publish import die
from antenna_assets_tests.period_world import (
    ANNA,
    Event,
    land,
    land_and_publish_hours,
    oracle_days,
    publish_hours,
    publish_periods,
    stored_days,
    use_world,
)

pytestmark = pytest.mark.services

POINTS = {
    "period.computed",
    "period.fenced",
    "period.copied",
    "period.certified",
    "period.committed",
}
DAY = "2026-10-24"


def publish_the_day(key: str) -> None:
    """Run the assets of a day; a run that fails raises."""
    job = build_definitions().resolve_job_def("daily_usage")
    with dg.DagsterInstance.ephemeral() as instance:
        job.execute_in_process(instance=instance, tags={"dagster/partition": key})


def certified(connection: psycopg.Connection) -> list[tuple[int, int]]:
    rows = connection.execute(
        "SELECT head.generation, max(certificate.generation) FROM ledger.period_head AS head"
        " LEFT JOIN ledger.period_certificate AS certificate USING (period, day) GROUP BY 1"
    )
    return rows.fetchall()


def test_row_41_a_day_whose_publication_is_killed_is_whole_after_the_next(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(postgres_url, tmp_path / "lake")
    use_world(monkeypatch, world)
    monkeypatch.setenv("ANTENNA_HOME", str(tmp_path))
    events = [Event("2026-10-24 05:00", ANNA, 1)]
    land_and_publish_hours(world, events, "2026-10-24 05:00", "2026-10-25 00:00")
    with connect(world.url) as connection:
        assert recorded_zone(connection) == "UTC"
        for number, point in enumerate(sorted(POINTS), start=1):
            before, at_first = stored_days(connection), certified(connection)
            die(load_settings(), point, publish_the_day, DAY)
            if point != "period.committed":
                assert (stored_days(connection), certified(connection)) == (before, at_first)
            publish_periods(world, "daily_usage", DAY)
            assert stored_days(connection) == oracle_days(events, "UTC", {})
            assert certified(connection) == [(number, number)]
            # A late row for the next point: there is something to replace.
            late = Event("2026-10-24 06:00", ANNA, 10**number)
            events.append(late)
            land(world, [late], closes="2026-10-25 00:00")
            publish_hours(world, "2026-10-24 06:00", "2026-10-24 07:00")
