"""`antenna report`: literal tables in, one page out, on a real PostgreSQL."""

import re
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from antenna_assets.cli import app
from antenna_assets.domain.hours import HOUR, NotAnHour
from antenna_assets.operations.report.period import ReportError
from antenna_assets.operations.report.write import write_report
from antenna_assets_tests.serving_rows import FEDE, JUAN, certify, hour, insert, publish

pytestmark = pytest.mark.services

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
MINUTES = timedelta(minutes=5)
HOSTILE = "<script>alert('&')</script>"
TITLES = [
    "Bytes by hour, by antenna",
    "Where and when: the busiest antennas",
    "Users closest to their quota, or over it",
    "Users over quota by hour",
    "Apps",
    "Minutes from an hour's end to its certificate",
    "Late rows and rejected messages",
]


@pytest.fixture
def two_hours(connection: psycopg.Connection) -> psycopg.Connection:
    """One that is published, with late rows and rejected messages, and an open one."""
    hour(connection, TEN, 55_990, 56_000)
    publish(connection, "bytes_agg_antenna_1h", TEN, 2, ("a-1", 50_000), (HOSTILE, 6_000))
    publish(connection, "bytes_agg_app_1h", TEN, 2, ("web", 42_000), (HOSTILE, 14_000))
    users = [(FEDE, "fede@gmail.com", 6_000), (JUAN, "juan@gmail.com", 50_000)]
    publish(connection, "bytes_agg_user_1h", TEN, 2, *users)
    publish(connection, "users_over_quota_1h", TEN, 2, (FEDE, "fede@gmail.com", 5_000, 6_000))
    certify(connection, TEN, 1, 2, TEN + HOUR + 3 * MINUTES)
    hour(connection, TEN + HOUR, landed=700, closed=False)
    for table, key in (("bytes_agg_antenna", "a-2"), ("bytes_agg_app", "web"), ("bytes_agg_user", JUAN)):
        insert(connection, table, (TEN + HOUR, key, 300), (TEN + HOUR + MINUTES, key, 400))
    connection.execute(
        "INSERT INTO ledger.batch (batch, kind, committed_at, clock, rows, bytes, quarantined, late_rows)"
        " VALUES (1, 'stream', %(at)s, %(at)s, 0, 0, 12, 0)",
        {"at": TEN},
    )
    connection.execute("INSERT INTO ledger.rejection VALUES (1, 'not_json', 12)")
    connection.execute("UPDATE user_metadata SET name = %s WHERE id = %s", [HOSTILE, FEDE])
    return connection


def text_of(page: str) -> str:
    """What a person reads of the page's own text, without the pictures."""
    without_pictures = re.sub(r"<svg.*?</svg>|<style>.*?</style>", "", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", without_pictures).split())


def test_a_days_page_has_its_numbers_and_a_picture_of_each_kind(
    two_hours: psycopg.Connection, tmp_path: Path
) -> None:
    page = write_report(two_hours, day="2026-11-22", output=tmp_path / "page.html").read_text()
    text = text_of(page)
    assert "hours 2 1 published, 1 open" in text
    assert "bytes 56,700 rows 5,670 1 of them late rejected 12 12 not_json" in text
    assert "2026-11-22 10:00 published 2 1 5,600 56,000 1 12 15.0" in text
    assert "6,000 5,000 120 %" in text
    assert re.findall("<h2>(.*?)</h2>", page)[:-2] == [title.replace("'", "&#39;") for title in TITLES]
    assert page.count("<svg") == len(TITLES)


def test_a_page_needs_nothing_beside_it_and_shows_no_e_mail_and_no_markup_of_others(
    two_hours: psycopg.Connection, tmp_path: Path
) -> None:
    page = write_report(two_hours, output=tmp_path / "page.html").read_text()
    for foreign in ("<script", " src=", " href=", "@import", "url(http", "gmail.com"):
        assert foreign not in page
    assert "&lt;script&gt;" in page


def svg_texts(page: str) -> list[str]:
    return [unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", page)]


def test_names_that_share_their_ends_or_their_looks_are_shown_apart(
    two_hours: psycopg.Connection, tmp_path: Path
) -> None:
    first, last = "antenna-of-the-district-north-", "-on-the-roof-of-the-central-station"
    alike = [f"{first}{number}{last}" for number in (1, 2, 3)]
    names = [*alike, "Noël", "Noe\u0308l", "Zoe", "Zo\u200be", "u 1", "u 1 "]
    insert(two_hours, "bytes_agg_antenna", *((TEN + HOUR, name, 5_000) for name in names))
    insert(two_hours, "bytes_agg_app", *((TEN + HOUR, name, 5_000) for name in names[3:]))
    # Two users of one name.
    two_hours.execute("UPDATE user_metadata SET name = 'Fede' WHERE id = ANY(%s)", [[FEDE, JUAN]])
    page = write_report(two_hours, day="2026-11-22", output=tmp_path / "page.html").read_text()
    shown = svg_texts(page)
    labels = [
        *(f"ante…th-{number}-on-the-roof-o…" for number in (1, 2, 3)),
        r"Noe\u0308l",
        r"Zo\u200be",
        r"u 1\x20",
    ]
    assert set(labels) <= set(shown)
    assert {"Noël", "Zoe", "u 1", "Fede", "Fede (2)"} <= set(shown)


def test_an_hours_page_shows_its_windows(two_hours: psycopg.Connection, tmp_path: Path) -> None:
    page = write_report(two_hours, hour="2026-11-22-11:00", output=tmp_path / "page.html").read_text()
    assert "Bytes every 5 minutes, by antenna" in page
    assert {"11:00", "11:05"} <= set(re.findall(r">(\d\d:\d\d)<", page))
    assert "Nobody was." in page


def test_without_a_period_it_is_the_day_of_the_newest_published_hour(
    two_hours: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert write_report(two_hours) == Path("antenna-2026-11-22.html")
    assert [path.name for path in tmp_path.iterdir()] == ["antenna-2026-11-22.html"]


def test_the_dashboards_role_is_enough(two_hours: psycopg.Connection, tmp_path: Path) -> None:
    two_hours.execute("SET ROLE antenna_dashboards")
    assert write_report(two_hours, day="2026-11-22", output=tmp_path / "page.html").exists()


def test_what_cannot_be_reported_is_a_clear_error(connection: psycopg.Connection, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="no hour is published yet"):
        write_report(connection)
    with pytest.raises(ReportError, match="expected hours of 2026-11-22 in the ledger, found none"):
        write_report(connection, day="2026-11-22")
    with pytest.raises(ReportError, match="expected a day such as 2026-11-22, found '22.11.2026'"):
        write_report(connection, day="22.11.2026")
    with pytest.raises(ReportError, match="expected --hour or --day, found both"):
        write_report(connection, day="2026-11-22", hour="2026-11-22-10:00")
    with pytest.raises(NotAnHour):
        write_report(connection, hour="2026-11-22-10:30")
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_cannot_be_written_is_an_error_and_leaves_nothing(
    two_hours: psycopg.Connection, tmp_path: Path
) -> None:
    with pytest.raises(ReportError, match="cannot be written"):
        write_report(two_hours, output=tmp_path / "missing" / "page.html")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ReportError, match="cannot be written"):
        write_report(two_hours, output=tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.usefixtures("two_hours")
def test_the_command_writes_the_page_and_says_where(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTENNA_POSTGRES_URL", postgres_url)
    output = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["report", "--hour", "2026-11-22-10:00", "--output", str(output)])
    assert done.exit_code == 0, done.output
    assert done.output == f"wrote {output}\n"
    assert output.read_text().startswith("<!DOCTYPE html>")
