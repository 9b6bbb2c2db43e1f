"""proofs.md, row 23: each role tries each verb on each table and view, and may do what `docs/roles.md` says, no more and
no less; and with these rights alone the stream and Dagster's runs do their work.
"""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from antenna_assets.clients.clock import database_now
from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import HOUR, hour_of
from antenna_assets.operations.alerts.channels import LogChannel
from antenna_assets.operations.alerts.deliver import Deliverer
from antenna_assets.operations.alerts.headroom import Headroom
from antenna_assets.operations.alerts.review import listed, retry, try_channel
from antenna_assets.operations.alerts.senders import senders
from antenna_assets.operations.alerts.watch import fill, look
from antenna_assets.operations.metrics import LedgerCollector
from antenna_assets.operations.status import tables
from antenna_assets.operations.sweep.run import sweep
from antenna_assets.settings import Settings
from antenna_assets.storage.project_files import docker_folder
from antenna_assets.streaming.job import Stream
from antenna_assets_tests.alerting import Alerting
from antenna_assets_tests.certified import FIRST, KNOWN, Land, World
from antenna_assets_tests.end_to_end.runs import instance, publish_what_the_sensor_asks_for
from antenna_assets_tests.end_to_end.test_pipeline import scenario, send, wrong
from antenna_assets_tests.notices import add_channel, owed, write
from antenna_assets_tests.period_world import Event, land, publish_hours, publish_periods
from antenna_assets_tests.test_metrics import no_broker

pytestmark = pytest.mark.services

ROLES = (
    "antenna_stream",
    "antenna_publisher",
    "antenna_dashboards",
    "antenna_administrator",
    "antenna_metrics",
    "antenna_alerts",
    "antenna_watch",
)
SCHEMAS = ["public", "ledger"]


def documented() -> dict[str, dict[str, str]]:
    """Of each table and view of `docs/roles.md`, what each role may do."""
    text = (docker_folder().parent / "docs" / "roles.md").read_text(encoding="utf-8")
    cells = r"([SIUuDT ]*)\|" * len(ROLES)
    rows = re.findall(rf"^\| `([a-z_.0-9]+)` \|{cells}$", text, re.MULTILINE)
    return {name: dict(zip(ROLES, map(str.strip, cells), strict=True)) for name, *cells in rows}


def may(connection: psycopg.Connection, statement: sql.Composable) -> bool:
    """Try a statement and take it back. Whatever fails only after the rights were looked at was allowed."""
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(statement)
    except (
        psycopg.errors.InsufficientPrivilege,
        # A view that cannot be written at all, and the trigger that keeps certificates.
        psycopg.errors.ObjectNotInPrerequisiteState,
        psycopg.errors.WrongObjectType,
        psycopg.errors.RaiseException,
    ):
        return False
    except psycopg.errors.IntegrityError:
        return True
    return True


def tried(connection: psycopg.Connection, name: str, columns: list[str]) -> str:
    """S, I, U, D and T for what succeeds; u where only some columns may be changed."""
    table = sql.Identifier(*name.split("."))
    changes = [
        may(
            connection,
            sql.SQL("UPDATE {} SET {} = DEFAULT WHERE false").format(table, sql.Identifier(column)),
        )
        for column in columns
    ]
    found = {
        "S": may(connection, sql.SQL("SELECT * FROM {} LIMIT 0").format(table)),
        "I": may(connection, sql.SQL("INSERT INTO {} DEFAULT VALUES").format(table)),
        "U": all(changes),
        "u": any(changes) and not all(changes),
        "D": may(connection, sql.SQL("DELETE FROM {} WHERE false").format(table)),
        "T": may(connection, sql.SQL("TRUNCATE {} CASCADE").format(table)),
    }
    return "".join(verb for verb, allowed in found.items() if allowed)


def relations(connection: psycopg.Connection) -> dict[str, list[str]]:
    """All tables and views, with their columns."""
    rows = connection.execute(
        "SELECT CASE table_schema WHEN 'public' THEN '' ELSE table_schema || '.' END || table_name,"
        " array_agg(column_name::text ORDER BY ordinal_position) FROM information_schema.columns"
        " WHERE table_schema = ANY(%s) GROUP BY 1 ORDER BY 1",
        [SCHEMAS],
    ).fetchall()
    return dict(rows)


def test_row_23_each_role_may_do_what_the_docs_say_by_attempt(connection: psycopg.Connection) -> None:
    found: dict[str, dict[str, str]] = {}
    for name, columns in relations(connection).items():
        for role in ROLES:
            connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
            found.setdefault(name, {})[role] = tried(connection, name, columns)
            connection.execute("RESET ROLE")
    assert found == documented()


def test_a_role_makes_no_tables_of_its_own_but_dagsters(connection: psycopg.Connection) -> None:
    for role in ROLES:
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
        makes = [
            schema
            for schema in (*SCHEMAS, "dagster")
            if may(
                connection,
                sql.SQL("CREATE TABLE {} ()").format(sql.Identifier(schema, "of_a_stranger")),
            )
        ]
        connection.execute("RESET ROLE")
        assert makes == (["dagster"] if role == "antenna_publisher" else [])


def test_roles_cannot_log_in_and_are_no_superusers(connection: psycopg.Connection) -> None:
    rows = connection.execute(
        "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s) AND NOT rolcanlogin AND NOT rolsuper AND NOT rolcreaterole"
        " AND NOT rolcreatedb AND NOT rolreplication AND NOT rolbypassrls",
        [list(ROLES)],
    ).fetchall()
    assert {name for (name,) in rows} == set(ROLES)


@pytest.fixture
def login(postgres_url: str) -> Iterator[Callable[[str], AbstractContextManager[str]]]:
    """Makes the address of the test's database for a new login that is a member of a role alone."""
    made: list[str] = []

    @contextmanager
    def of(role: str) -> Iterator[str]:
        name = f"{role}_{uuid4().hex[:8]}"
        with connect(postgres_url) as connection:
            connection.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} IN ROLE {}").format(
                    sql.Identifier(name), sql.Literal("only-of-this-test"), sql.Identifier(role)
                )
            )
        made.append(name)
        parts = urlsplit(postgres_url)
        place = parts.netloc.rpartition("@")[2]
        yield urlunsplit(parts._replace(netloc=f"{name}:only-of-this-test@{place}"))

    yield of
    with connect(postgres_url) as connection:
        for name in made:
            connection.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def test_the_stream_and_the_runs_work_with_their_roles_and_dashboards_see_no_e_mail(
    settings: Settings,
    new_stream: Callable[..., Stream],
    login: Callable[[str], AbstractContextManager[str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    answers = tmp_path / "answers.json"
    send(settings, scenario(7), answers)
    with login("antenna_stream") as url:
        new_stream(settings.model_copy(update={"postgres_url": url})).read_available()
    with login("antenna_publisher") as url, instance() as dagster:
        monkeypatch.setenv("ANTENNA_POSTGRES_URL", url)
        assert publish_what_the_sensor_asks_for(dagster) >= 1
    assert wrong(settings, answers) == []
    with connect(settings.postgres_url or "") as owner:
        add_channel(owner, "ops")
        write(owner, "a-notice", body={"to": "someone@example.com"}, user="someone@example.com")
        owner.execute(
            "INSERT INTO alert VALUES ('someone@example.com', 'hour', now(), 80, now() + interval '1 hour', 'live', 8, 10, 1,"
            " false, false, now(), now())"
        )
        # One who has used a part of the running hour.
        owner.execute(
            "INSERT INTO user_metadata (id, name, email, quota) VALUES ('r', 'r', 'r@example.com', 10)"
        )
        owner.execute("INSERT INTO bytes_agg_user VALUES (date_trunc('hour', now()), 'r', 9)")
        owner.execute(
            "INSERT INTO alert SELECT 'r', 'hour', begins, 80, begins + interval '1 hour', 'live', 8, 10, 1, false, false,"
            " now(), now() FROM date_trunc('hour', now()) AS begins"
        )
    with login("antenna_dashboards") as url, connect(url) as dashboards:
        shown = {name: cells["antenna_dashboards"] for name, cells in documented().items()}
        for name in (name for name, cell in shown.items() if cell):
            rows = dashboards.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(name))).fetchall()
            assert rows or name == "quarantine_by_hour"
            assert "@" not in str(rows)
    with login("antenna_administrator") as url:
        with connect(url) as administrator:
            administrator.execute("UPDATE user_metadata SET quota = quota + 1")
        long_after = datetime.now(UTC) + timedelta(days=60)
        amounts = sweep(
            url, settings.lake_uri, dagster_home=tmp_path, horizon=settings.horizon, now=long_after
        )
        assert amounts["landed files past the horizon, removed after a grace period"].count > 0
        assert amounts["rows of bytes_agg_user past their retention"].count > 0


def test_alerts_are_watched_with_the_right_to_read_no_e_mail(
    connection: psycopg.Connection,
    login: Callable[[str], AbstractContextManager[str]],
    tmp_path: Path,
) -> None:
    world = Alerting(connection, tmp_path, database_now(connection))
    world.user("ann", 1000, plan=None)
    for period in ("day", "month"):
        world.quota("ann", period, 1000)
    earlier = hour_of(world.now) - HOUR
    world.land(("ann", earlier, 700), ("ann", world.now, 900))
    world.publish(earlier)
    with login("antenna_watch") as url, connect(url) as watcher:
        headroom = Headroom()
        fill(watcher, headroom)
        assert look(watcher, world.engine, str(tmp_path), headroom).notices > 0
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            watcher.execute("SELECT email FROM user_metadata")
    with (
        login("antenna_alerts") as url,
        connect(url) as deliverer,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        deliverer.execute("SELECT FROM alert")
    world.engine.close()


def test_row_38_a_scrape_tells_the_metrics_role_all_that_it_tells_the_owner(
    connection: psycopg.Connection,
    postgres_url: str,
    login: Callable[[str], AbstractContextManager[str]],
    tmp_path: Path,
) -> None:
    Land(connection, tmp_path, seed=3)({FIRST: 4}, rejected=["blank"])
    connection.execute("UPDATE ledger.hour SET closed_at = now(), closed_by = 'clock'")

    def told(url: str) -> list[tuple[str, object]]:
        samples = [
            sample for metric in LedgerCollector(url, no_broker).collect() for sample in metric.samples
        ]
        return [(sample.name, sample.value) for sample in samples]

    with login("antenna_metrics") as url:
        found = told(url)
    # What passes with the clock differs between two scrapes.
    assert [name for name, _ in found] == [name for name, _ in told(postgres_url)]
    assert ("antenna_source_up", 1) in found
    assert ("antenna_landed_rows_total", 4) in told(postgres_url)
    assert ("antenna_hours_to_publish", 1) in told(postgres_url)


def test_notices_are_sent_by_the_role_for_it_and_tested_and_retried_by_the_administrator(
    connection: psycopg.Connection, login: Callable[[str], AbstractContextManager[str]]
) -> None:
    channels = {"ops": LogChannel(kind="log")}
    with login("antenna_alerts") as url, login("antenna_administrator") as administrators:
        job = Deliverer(url, channels, senders(channels), say=print, stop=threading.Event())
        assert job.once() == 0
        write(connection, "a")
        assert job.once() == 0
        assert owed(connection, "delivered") == [("a", "ops")]
        write(connection, "b")
        with connect(administrators) as administrator:
            assert retry(administrator, id="b") == 1
            assert retry(administrator, channel="ops") == 1
            assert try_channel(administrator, "ops", patience=0).attempts == 0
            assert [one.id for one in listed(administrator, limit=9)] == ["b", "a"]


def test_the_state_of_the_line_is_shown_to_the_streams_role_too(
    login: Callable[[str], AbstractContextManager[str]],
) -> None:
    with login("antenna_stream") as url, connect(url) as stream:
        assert list(tables(stream, "devices", None, "Kafka is not asked"))


def test_days_and_months_are_published_with_the_publishers_role_alone(
    postgres_url: str, login: Callable[[str], AbstractContextManager[str]], tmp_path: Path
) -> None:
    world = World(postgres_url, tmp_path / "lake")
    land(world, [Event("2026-10-31 05:00", KNOWN[0], 7)], closes="2026-11-01 00:00")
    with connect(postgres_url) as connection:
        connection.execute(
            "INSERT INTO user_quota_change (id, period, valid_from, quota)"
            " SELECT %s, period, '-infinity', 6 FROM unnest(ARRAY['day', 'month']) AS period",
            [KNOWN[0]],
        )
    with login("antenna_publisher") as url:
        publisher = World(url, world.lake)
        publish_hours(publisher, "2026-10-31 05:00", "2026-11-01 00:00")
        for _ in range(2):
            publish_periods(publisher, "daily_usage", "2026-10-31")
            publish_periods(publisher, "monthly_usage", "2026-10-01")
    with connect(postgres_url) as connection:
        assert connection.execute(
            "SELECT sum_user_bytes FROM users_over_quota_1d UNION ALL SELECT sum_user_bytes FROM users_over_quota_1mo"
        ).fetchall() == [(7,), (7,)]
    with login("antenna_administrator") as url, connect(url) as administrator:
        administrator.execute("UPDATE user_metadata SET zone = 'Asia/Kathmandu' WHERE id = %s", [KNOWN[0]])
        # Published days, and the one that begins where the newest of them ends, stay as they are.
        assert administrator.execute("SELECT from_day::text, zone FROM user_zone_change").fetchall() == [
            ("2026-11-02", "Asia/Kathmandu")
        ]
