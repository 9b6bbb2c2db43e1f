"""Where people look at alerts: `antenna status`, the metrics, the report, and the view of running periods."""

from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from pathlib import Path

import psycopg
import pytest
from rich.console import Console

from antenna_assets.clients.advisory_locks import ALERTS, try_lock
from antenna_assets.clients.clock import database_now
from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import HOUR, hour_of
from antenna_assets.ledger.alerts import level_of
from antenna_assets.operations.alerts.gauges import alert_metrics
from antenna_assets.operations.alerts.overview import alerts_table
from antenna_assets.operations.forget.identity import Identity
from antenna_assets.operations.forget.tables import live_windows, rename
from antenna_assets.operations.report.write import write_report
from antenna_assets.operations.sweep.notices import drop_alerts
from antenna_assets_tests.alerting import Alerting, well_within_an_hour
from antenna_assets_tests.notices import add_channel, write

pytestmark = pytest.mark.services


@pytest.fixture
def world(connection: psycopg.Connection, tmp_path: Path) -> Iterator[Alerting]:
    """`ann` and `bob` have 1,000 bytes an hour and a day, at PostgreSQL's clock."""
    made = Alerting(connection, tmp_path, well_within_an_hour(connection))
    for id_ in ("ann", "bob"):
        made.user(id_, 1000)
        made.quota(id_, "day", 1000)
    yield made
    made.engine.close()


def shown(connection: psycopg.Connection) -> dict[str, str] | None:
    """The lines of the table of alerts, by their first column."""
    table = alerts_table(connection)
    if table is None:
        return None
    console = Console(width=120, file=StringIO())
    console.print(table)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return {
        cells[0]: " ".join(cells[1:])
        for cells in ([word for word in line.split("  ") if word.strip()] for line in lines)
        if len(cells) > 1
    }


def metrics(connection: psycopg.Connection) -> dict[str, float]:
    return {
        "/".join([sample.name.removeprefix("antenna_"), *sample.labels.values()]): sample.value
        for metric in alert_metrics(connection)
        for sample in metric.samples
    }


def test_the_levels_of_sql_are_those_of_python(connection: psycopg.Connection) -> None:
    rows = connection.execute(
        "SELECT percent, ledger.alert_level(percent) FROM generate_series(1, 1000) AS percent"
    ).fetchall()
    assert dict(rows) == {percent: level_of(percent) for percent in range(1, 1001)}


def test_nothing_is_shown_where_nobody_uses_alerts(connection: psycopg.Connection) -> None:
    assert shown(connection) is None
    assert metrics(connection) == {}
    add_channel(connection, "ops")
    assert shown(connection) is not None
    connection.execute("UPDATE alert_channel SET removed_at = now()")
    assert shown(connection) is None


def test_status_and_metrics_name_the_watch_open_alerts_and_what_is_not_delivered(
    world: Alerting, postgres_url: str
) -> None:
    connection = world.connection
    add_channel(connection, "ops")
    add_channel(connection, "removed")
    world.land(("ann", world.now, 850), ("bob", world.now, 1200))
    world.look()
    world.land(("ann", world.now, 1))
    write(connection, "given-up", only_channel="ops")
    write(connection, "nobodys", only_channel="removed")
    connection.execute(
        "UPDATE delivery SET state = 'dead' FROM outbox WHERE number = outbox AND only_channel IS NOT NULL"
    )
    connection.execute("UPDATE alert_channel SET removed_at = now() WHERE name = 'removed'")
    connection.execute("UPDATE ledger.alert_head SET looked_at = clock_timestamp() - interval '10 minutes'")
    found = shown(connection)
    assert found is not None
    last_look = found.pop(" last look")
    assert last_look.strip().endswith("UTC, 600 s ago")
    assert {name.strip(): value.strip() for name, value in found.items()} == {
        "what": "value",
        "watch runs": "no",
        "behind the stream": "1 batch",
        "open, critical": "2 (day), 2 (hour)",
        "open, warning": "3 (day), 3 (hour)",
        "open, info": "2 (day), 2 (hour)",
        "notices waiting": "14",
        "notices given up": "1",
    }
    measured = metrics(connection)
    age = database_now(connection).timestamp() - measured.pop("alert_watch_looked_at_timestamp_seconds")
    assert 600 <= age < 900
    assert measured == {
        "alert_watch_behind_batches": 1,
        **{f"open_alerts/{period}/{level}": count for period in ("hour", "day", "month") for level, count in (
            ("critical", 0 if period == "month" else 2), ("warning", 0 if period == "month" else 3),
            ("info", 0 if period == "month" else 2))},
    }  # fmt: skip
    world.look()
    with connect(postgres_url) as watch:
        assert try_lock(watch, ALERTS)
        found = shown(connection)
        assert found is not None
        assert found[" watch runs"].strip() == "yes"
        assert found[" behind the stream"].strip() == "0 batches"
        assert "s ago" not in found[" last look"]


def test_the_roles_of_the_stream_and_of_the_metrics_see_what_the_owner_sees(world: Alerting) -> None:
    connection = world.connection
    add_channel(connection, "ops")
    world.land(("ann", world.now, 850))
    world.look()
    table, measured = shown(connection), metrics(connection)
    connection.execute("SET ROLE antenna_stream")
    assert shown(connection) == table
    connection.execute("SET ROLE antenna_metrics")
    assert metrics(connection) == measured
    connection.execute("RESET ROLE")


def running(connection: psycopg.Connection) -> list[tuple]:
    rows = connection.execute(
        "SELECT period, id, name, bytes::int, quota, remaining::int, percent, exact FROM running_against_quota"
        " ORDER BY period, percent DESC NULLS FIRST, id"
    )
    return rows.fetchall()


def test_running_periods_are_shown_beside_their_quotas_to_the_dashboards(world: Alerting) -> None:
    connection = world.connection
    world.user("cid", 0)
    world.user("dan", 1000)
    world.land(
        ("ann", world.now, 850), ("bob", world.now, 1200), ("cid", world.now, 3), ("dan", world.now, 100)
    )
    world.look()
    # What came since the newest notice counts.
    world.land(("ann", world.now, 20))
    connection.execute("SET ROLE antenna_dashboards")
    found = running(connection)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("SELECT FROM alert")
    connection.execute("RESET ROLE")
    assert found == [
        ("day", "bob", "bob", 1200, 1000, 0, 120.0, True),
        ("day", "ann", "ann", 870, 1000, 130, 87.0, True),
        ("hour", "cid", "cid", 3, 0, 0, None, True),
        ("hour", "bob", "bob", 1200, 1000, 0, 120.0, True),
        ("hour", "ann", "ann", 870, 1000, 130, 87.0, True),
    ]


def test_a_period_that_is_over_or_whose_alert_was_taken_back_does_not_run(world: Alerting) -> None:
    connection = world.connection
    world.land(("ann", world.now, 850), ("bob", world.now, 1200))
    world.look()
    connection.execute("UPDATE alert SET figure = 'taken back' WHERE id = 'bob' AND period = 'day'")
    connection.execute(
        "UPDATE alert SET starts = starts - interval '1 hour', ends = ends - interval '1 hour' WHERE period = 'hour'"
    )
    assert [row[:2] for row in running(connection)] == [("day", "ann")]


def test_only_the_furthest_are_summed_up(world: Alerting) -> None:
    connection = world.connection
    users = [f"user-{number:03}" for number in range(170)]
    for id_ in users:
        world.user(id_, 1000)
    world.land(
        *((id_, world.now, 500 + number) for number, id_ in enumerate(users)), ("ann", world.now, 2000)
    )
    world.look()
    # `ann` has an alert for each of five percentages.
    assert [id_ for period, id_, *_ in running(connection) if period == "hour"] == ["ann", *users[:24:-1]]


def test_what_was_swept_is_history_and_no_backfill_or_late_row_brings_it_back(world: Alerting) -> None:
    connection, hour = world.connection, hour_of(world.now)
    world.land(("ann", world.now, 850))
    world.look()
    world.now = hour + HOUR + timedelta(minutes=2)
    world.publish(hour)
    world.look()
    world.now += timedelta(days=92)
    world.look()
    keep = timedelta(days=90)
    assert drop_alerts(connection, keep=keep, now=world.now).count == 4
    before = len(world.notices())
    world.land(("ann", hour, 5000))
    world.look()
    world.publish(hour)
    world.look()
    assert (world.alerts(), len(world.notices())) == ([], before)


def test_a_forgotten_user_runs_on_under_its_pseudonym(world: Alerting) -> None:
    connection = world.connection
    world.land(("ann", world.now, 850))
    world.look()
    rename(connection, Identity("ann", "forgotten-1"), live_windows(connection, "ann"))
    assert {row[1:3] for row in running(connection)} == {("forgotten-1", "forgotten")}


def test_a_report_has_the_alerts_of_its_day_and_the_running_days(world: Alerting, tmp_path: Path) -> None:
    connection = world.connection
    world.land(("ann", world.now, 850), ("bob", world.now, 1200))
    world.look()
    hour = hour_of(world.now)
    connection.execute("SET ROLE antenna_dashboards")
    page = write_report(connection, day=f"{hour:%Y-%m-%d}", output=tmp_path / "page.html").read_text()
    text = " ".join(page.replace("\n", " ").split())
    assert '<tr><td>80 %</td><td class="text">day</td><td>2</td> <td>0</td><td>0</td></tr>' in text
    assert '<tr><td>day</td><td class="text">bob</td><td>1,200</td> <td>1,000</td><td>120 %</td>' in text
    assert "example.com" not in page
