"""One walk through Dagster's UI: the graph, an hour, a backfill, a check that fails. With `--pictures` it leaves screenshots."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import HOUR, hour_key
from antenna_assets_tests.ui.conftest import SIZE, World

pytestmark = [pytest.mark.services, pytest.mark.timeout(900)]

RUN_SECONDS = 120_000
"""Milliseconds in which a run must have come to its end."""


@pytest.fixture
def picture(request: pytest.FixtureRequest, page: Page) -> Callable[[str], None]:
    """Keeps what the page shows now, if the pictures are asked for."""
    folder = request.config.getoption("--pictures")

    def keep(name: str) -> None:
        if folder:
            page.wait_for_timeout(2_000)
            page.screenshot(path=str(Path(folder) / f"{name}.png"))

    return keep


def open_graph(page: Page, world: World) -> None:
    page.goto(f"{world.url}/asset-groups")
    # Hours, days and months.
    expect(page.get_by_text("Materialize all (9)")).to_be_visible()


def materialize(page: Page, world: World, hours: str, button: str) -> None:
    """Ask for hours of all six assets, from the page of their job."""
    page.goto(f"{world.url}/locations/antenna_assets/jobs/hourly_usage")
    every = page.get_by_text("Materialize all")
    expect(every).to_be_visible()
    every.click()
    dialog = page.get_by_role("dialog")
    selection = dialog.get_by_placeholder("No matching partitions")
    selection.fill(hours)
    selection.press("Enter")
    dialog.get_by_role("button", name=button).click()
    expect(dialog).to_be_hidden()


def open_hour(page: Page, world: World, asset: str, hour: datetime) -> None:
    page.goto(f"{world.url}/assets/{asset}?view=partitions&partition={hour_key(hour)}")
    expect(page.get_by_text("dagster/partition_row_count")).to_be_visible()


def wait_until_materialized(page: Page, world: World, asset: str, hours: int) -> None:
    """Look at an asset's partitions until so many are green."""
    page.goto(f"{world.url}/assets/{asset}?view=partitions")
    expect(page.get_by_text(f"Materialized ({hours})")).to_be_visible(timeout=RUN_SECONDS)


def test_a_person_materializes_an_hour_backfills_three_and_sees_a_check_fail(
    page: Page, world: World, picture: Callable[[str], None]
) -> None:
    open_graph(page, world)
    # Unfolds every group.
    page.keyboard.press("Alt+e")
    for name in ("devices", "landing", "user_metadata", "raw_parquet", "enriched_usage", "bytes_agg_app_1h"):
        expect(page.get_by_text(name, exact=True).last).to_be_visible()

    materialize(page, world, hour_key(world.first), "Launch 1 run")
    wait_until_materialized(page, world, "users_over_quota_1h", 1)
    open_hour(page, world, "raw_parquet", world.first)
    for shown in ("rows", "late_rows", "transform_seconds", "bytes per 5 minutes", "antenna certificate"):
        expect(page.get_by_text(shown).first).to_be_visible()
    picture("an-hour")
    page.get_by_text("[Show Markdown]").first.click()
    image = page.get_by_alt_text("bytes per 5 minutes")
    expect(image).to_be_visible()
    assert image.evaluate("image => image.complete && image.naturalWidth > 0")
    picture("bytes-per-5-minutes")

    begin, end = world.first + HOUR, world.first + 3 * HOUR
    materialize(page, world, f"[{hour_key(begin)}...{hour_key(end)}]", "Launch")
    wait_until_materialized(page, world, "users_over_quota_1h", 4)
    picture("a-backfill")

    with connect(world.settings.postgres_url or "") as connection:
        # Sealed with the bytes that its files have, and then the ledger says that more landed.
        connection.execute("UPDATE ledger.file SET bytes = bytes + 1 WHERE hour = %s", [world.first])
        ((landed,),) = connection.execute(
            "SELECT sum(bytes)::bigint FROM ledger.file WHERE hour = %s", [world.first]
        ).fetchall()
    # Large enough to be read in a picture.
    page.set_viewport_size({"width": 2000, "height": 1450})
    open_graph(page, world)
    picture("asset-graph")
    page.set_viewport_size(SIZE)
    materialize(page, world, hour_key(world.first), "Launch 1 run")
    page.goto(f"{world.url}/assets/raw_parquet?view=checks&checkDetail=bytes_are_conserved")
    expect(page.get_by_text(f"{landed:,} bytes landed")).to_be_visible(timeout=RUN_SECONDS)
    expect(page.get_by_text("Failed", exact=True).first).to_be_visible()
    picture("a-failed-check")
