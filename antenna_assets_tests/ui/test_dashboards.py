"""Superset with the project's dashboards, as `antenna dashboards` starts it, in a real browser. With `--pictures` it leaves screenshots."""

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
import yaml
from playwright.sync_api import Browser, Page, Response, expect
from psycopg import sql

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import HOUR, hour_key
from antenna_assets.settings import Settings, load_settings
from antenna_assets.stack import services
from antenna_assets.stack.start import environment, start
from antenna_assets.stack.superset import ENVIRONMENT, Superset, superset, variables, write_dashboards
from antenna_assets.storage.project_files import docker_folder
from antenna_assets_tests.alerting import well_within_an_hour
from antenna_assets_tests.end_to_end.runs import EXECUTE
from antenna_assets_tests.faults.plain_stream import read_everything
from antenna_assets_tests.faults.runs import send
from antenna_assets_tests.notices import add_channel, write

pytestmark = [pytest.mark.services, pytest.mark.timeout(900)]

ASSETS = docker_folder() / "superset" / "assets"
DASHBOARDS = ("usage-and-quota", "trust", "alerts")
HOURS = 30
CHART_ERRORS = ".ant-alert-error, .ant-alert-warning"
LARGEST = 2**62
MARKUP = "<b>ana</b>"
QUOTA = 5 * 10**9
"""Bytes a day of those whose alerts are shown."""


@dataclass(frozen=True)
class World:
    """Superset over an embedded PostgreSQL, and the settings of both."""

    superset: Superset
    settings: Settings

    @property
    def url(self) -> str:
        return self.superset.url


@pytest.fixture(scope="module")
def on(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Superset over an embedded PostgreSQL with hours that are published, came late, wait and are open."""
    home = tmp_path_factory.mktemp("superset")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANTENNA_HOME", str(home))
        settings = load_settings()
        try:
            found = start(settings, print)
            for name, value in environment(settings).items():
                patch.setenv(name, value)
            settings = load_settings()
            first = send(settings, home / "answers.json", events=60_000, hours=HOURS)
            read_everything(settings)
            _publish(first, first + (HOURS - 1) * HOUR)
            _add_sums_beyond_what_javascript_counts(settings, first)
            send(
                settings,
                home / "answers.json",
                events=2_000,
                hours=4,
                start=first + (HOURS - 4) * HOUR,
                seed=2,
            )
            read_everything(settings)
            _raise_alerts(settings)
            with superset(settings, found.postgres_url, say=print) as started:
                yield World(started, settings)
        finally:
            services.down(settings, print)


def _publish(first: datetime, last: datetime) -> None:
    """As a user does it, in a process of its own: the browser's loop runs in this one."""
    tags = {
        "dagster/asset_partition_range_start": hour_key(first),
        "dagster/asset_partition_range_end": hour_key(last),
    }
    done = subprocess.run((*EXECUTE, json.dumps(tags)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2_000:]


def _add_sums_beyond_what_javascript_counts(settings: Settings, hour: datetime) -> None:
    """Most that an hour can hold, for one antenna, app and user with markup for a name: charts must show them, too."""
    assert settings.postgres_url is not None
    with connect(settings.postgres_url) as connection:
        for table, column in (
            ("bytes_agg_antenna_1h", "sum_antenna_bytes"),
            ("bytes_agg_app_1h", "sum_app_bytes"),
            ("bytes_agg_user_1h", "sum_user_bytes"),
            ("users_over_quota_1h", "sum_user_bytes"),
        ):
            update = "UPDATE {table} SET {column} = %s WHERE (date, {column}) = (SELECT date, {column} FROM {table}"
            update += " WHERE date >= %s ORDER BY date, {column} DESC LIMIT 1)"
            names = {"table": sql.Identifier(table), "column": sql.Identifier(column)}
            connection.execute(sql.SQL(update).format(**names), [LARGEST, hour])
        connection.execute("UPDATE ledger.hour SET bytes = %s WHERE hour = %s", [LARGEST, hour])
        connection.execute("UPDATE ledger.hour_generation SET bytes = %s WHERE hour = %s", [LARGEST, hour])
        connection.execute(
            "UPDATE user_metadata SET name = %s WHERE id IN (SELECT id FROM users_over_quota_1h WHERE sum_user_bytes = %s)",
            [MARKUP, LARGEST],
        )


def _raise_alerts(settings: Settings) -> None:
    """Users who have used most of a running day, with a notice of each that was sent or waits."""
    assert settings.postgres_url is not None
    with connect(settings.postgres_url) as connection:
        now = well_within_an_hour(connection)
        add_channel(connection, "ops")
        for number, percent in enumerate((132, 121, 107, 94, 91, 83, 64, 55), 1):
            user = {"id": f"alert-{number}", "name": f"Customer {number}", "quota": QUOTA, "percent": percent}
            connection.execute(
                "INSERT INTO user_metadata (id, name, email) VALUES (%(id)s, %(name)s, 'customer@example.com')",
                user,
            )
            connection.execute(
                "INSERT INTO user_quota_change (id, period, valid_from, quota) VALUES (%(id)s, 'day', '-infinity', %(quota)s)",
                user,
            )
            connection.execute(
                "INSERT INTO bytes_agg_user VALUES (date_trunc('hour', %(now)s, 'UTC'), %(id)s, %(percent)s * %(quota)s / 100)",
                {**user, "now": now},
            )
            # The highest of the usual thresholds that is reached.
            connection.execute(
                "INSERT INTO alert SELECT %(id)s, 'day', starts, reached, starts + interval '1 day', 'live',"
                " %(percent)s * %(quota)s / 100, %(quota)s, 1, false, false, %(now)s, %(now)s"
                " FROM date_trunc('day', %(now)s, 'UTC') AS starts,"
                " (SELECT max(usual) AS reached FROM unnest('{50, 80, 90, 100, 120}'::int[]) AS usual WHERE usual <= %(percent)s)",
                {**user, "now": now},
            )
            write(connection, f"notice-of-{number}")
        connection.execute(
            "UPDATE delivery SET state = 'delivered', delivered_at = now() WHERE outbox < (SELECT max(number) - 1 FROM outbox)"
        )


@pytest.fixture
def visitor(browser: Browser, on: World) -> Iterator[Page]:
    """Someone who has logged in, with a screen on which a whole dashboard fits: Superset loads only what is seen."""
    context = browser.new_context(viewport={"width": 1500, "height": 2400}, timezone_id="UTC", locale="en-GB")
    # The login page logs that it was loaded. The answer sets a session without a user, which replaces the new one if
    # it arrives after the login's answer: only a test types its password that quickly.
    context.route("**/superset/log/**", lambda route: route.abort())
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(f"{on.url}/login/")
    page.locator("#username").fill(on.superset.user)
    page.locator("#password").fill(on.superset.password)
    page.locator("button[type=submit]").click()
    page.wait_for_url("**/welcome/")
    yield page
    context.close()


def charts_of(slug: str) -> set[str]:
    file = ASSETS / "dashboards" / f"{slug.replace('-', '_')}.yaml"
    position = yaml.safe_load(file.read_text("utf-8"))["position"]
    return {
        part["meta"]["sliceName"]
        for part in position.values()
        if isinstance(part, dict) and part["type"] == "CHART"
    }


@pytest.mark.parametrize("slug", DASHBOARDS)
def test_each_chart_of_a_dashboard_shows_rows_and_no_error(
    visitor: Page, on: World, slug: str, request: pytest.FixtureRequest
) -> None:
    answers: dict[int, dict] = {}

    def keep(response: Response) -> None:
        address = urlsplit(response.url)
        if address.path == "/api/v1/chart/data":
            chart = json.loads(parse_qs(address.query)["form_data"][0])["slice_id"]
            answers[chart] = {"status": response.status, "body": response.json()}

    visitor.on("response", keep)
    visitor.goto(f"{on.url}/superset/dashboard/{slug}/")
    charts = charts_of(slug)
    for name in charts:
        expect(visitor.get_by_text(name, exact=True).first).to_be_visible()
    expect(visitor.locator('[data-test="loading-indicator"]')).to_have_count(0)
    visitor.wait_for_timeout(3_000)
    assert len(answers) == len(charts)
    for chart, answer in answers.items():
        assert answer["status"] == 200, (chart, answer)
        assert all(query["rowcount"] > 0 for query in answer["body"]["result"]), (chart, answer)
    assert visitor.locator(CHART_ERRORS).all_inner_texts() == []
    expect(visitor.get_by_text("No results were returned")).to_have_count(0)
    if slug == "usage-and-quota":
        # 2^62 bytes in billions: in two tables, and in the one number.
        expect(visitor.get_by_text(re.compile(r"4,611,686,01\d\.")).first).to_be_visible()
        # Its tags are text, and no elements of the page.
        expect(visitor.get_by_text(MARKUP).first).to_be_visible()
    if folder := request.config.getoption("--pictures"):
        visitor.screenshot(path=str(Path(folder) / f"{slug}.png"))


def test_what_superset_may_read_has_no_e_mail(on: World) -> None:
    url = (on.settings.home / "superset" / "secrets" / "usage_url").read_text()
    with psycopg.connect(url, autocommit=True) as connection:
        assert connection.execute("SELECT count(*) FROM usage_by_user").fetchone() != (0,)
        for query in (
            "SELECT email FROM user_metadata",
            "SELECT * FROM user_quota_limit",
            "SELECT * FROM bytes_agg_user_1h",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(query)


def test_what_was_loaded_is_written_back_as_the_files_of_the_project(on: World, tmp_path: Path) -> None:
    write_dashboards(on.settings, tmp_path)
    assert contents(tmp_path) == contents(ASSETS)


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text("utf-8") for path in folder.rglob("*.yaml")}


@pytest.mark.parametrize("key", ["CHANGE_ME_TO_A_COMPLEX_RANDOM_SECRET", "thisISaSECRET_1234"])
def test_a_well_known_or_short_key_is_refused(tmp_path: Path, key: str) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "secret_key").write_text(key)
    (secrets / "metadata_url").write_text("sqlite://")
    done = subprocess.run(
        (ENVIRONMENT / "bin" / "python", "-c", "import superset.config"),
        env=variables(tmp_path),
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "secret_key: expected 32 or more random characters" in done.stderr
