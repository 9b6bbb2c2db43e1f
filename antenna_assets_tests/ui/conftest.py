"""A browser, and Dagster's webserver and daemon with closed hours to publish."""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from antenna_assets.settings import Settings
from antenna_assets.stack.ports import HOST, is_open
from antenna_assets.storage.project_files import workspace_file
from antenna_assets_tests.faults.dagster_daemon import dagster, wait_for
from antenna_assets_tests.faults.plain_stream import read_everything
from antenna_assets_tests.faults.runs import send
from antenna_assets_tests.free_ports import free_port

HOURS = 6
SIZE: ViewportSize = {"width": 1440, "height": 900}


@dataclass(frozen=True)
class World:
    """Closed hours that nobody has published, and the address of the UI."""

    url: str
    first: datetime
    settings: Settings


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's chromium: Playwright's own would be downloaded from elsewhere."""
    program = shutil.which("chromium")
    assert program, (
        "expected chromium in the PATH; `make test-ui` installs it as root, or `apt-get install chromium`"
    )
    with sync_playwright() as playwright:
        # Without its sandbox, which root may not use; the pages are our own.
        launched = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that waits up to a minute for what it looks for: a run has to start."""
    context = browser.new_context(viewport=SIZE, timezone_id="UTC", locale="en-GB")
    opened = context.new_page()
    opened.set_default_timeout(60_000)
    yield opened
    context.close()


@pytest.fixture
def world(settings: Settings, tmp_path: Path) -> Iterator[World]:
    """The sensor is stopped: what is published is what the test asks for."""
    first = send(settings, tmp_path / "answers.json", events=6_000, hours=HOURS)
    read_everything(settings)
    port = free_port()
    with dagster(settings, settings.home / "dagster") as on:
        on.stop_sensor()
        on.start()
        webserver = str(Path(sys.executable).with_name("dagster-webserver"))
        on.run(webserver, "-w", str(workspace_file()), "-h", HOST, "-p", str(port))
        wait_for(lambda: is_open(HOST, port, 1))
        yield World(f"http://{HOST}:{port}", first, settings)
