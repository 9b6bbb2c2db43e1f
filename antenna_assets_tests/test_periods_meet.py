"""proofs.md, row 43: days, months and quotas with a history meet what else there is: replays, rebuilt tables, runs at the same
time, backfills, forgetting and sweeps."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from threading import Thread
from types import ModuleType

import dagster as dg
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from psycopg import sql
from typer.testing import CliRunner

from antenna_assets.cli import app
from antenna_assets.clients.postgres import connect, snapshot
from antenna_assets.definitions import build_definitions
from antenna_assets.defs import local_runs
from antenna_assets.defs.period_sensor import ended_periods
from antenna_assets.domain.hours import hours_between
from antenna_assets.domain.lifetimes import VERSION_RETENTION
from antenna_assets.engines.duckdb import DuckDBEngine
from antenna_assets.errors import AntennaError
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.publications import require_nobody_forgotten
from antenna_assets.operations.alerts import watch as alerts_watch
from antenna_assets.operations.alerts.watch import look
from antenna_assets.operations.forget.places import places
from antenna_assets.operations.forget.run import forget
from antenna_assets.operations.quotas.changes import change_user
from antenna_assets.operations.quotas.quota import Quota
from antenna_assets.operations.quotas.rejudge import judge_by_quotas_of_now
from antenna_assets.operations.sweep.run import sweep
from antenna_assets.publishing import days, months
from antenna_assets.publishing.lake import Lake
from antenna_assets.settings import load_settings
from antenna_assets.verify.claims.periods import quota_periods_add_up
from antenna_assets.verify.run import verify
from antenna_assets_tests import guide
from antenna_assets_tests.certified import Land, World
from antenna_assets_tests.faults.in_process import Faults, Held
from antenna_assets_tests.local_runs import publish
from antenna_assets_tests.notices import add_channel
from antenna_assets_tests.period_world import (
    ANNA,
    BELA,
    KATHMANDU,
    STRANGER,
    Event,
    land,
    oracle_days,
    publish_hours,
    publish_periods,
    stored_days,
    use_zones,
)
from antenna_assets_tests.test_sweep import age

pytestmark = pytest.mark.services

ZONES = {BELA: KATHMANDU}
FIRST, END = "2026-10-30 12:00", "2026-11-01 00:00"
EVENTS = [
    Event("2026-10-30 12:00", STRANGER, 3),
    Event("2026-10-30 18:14:59.999999", BELA, 2),
    Event("2026-10-30 18:15:00", BELA, 20),
    Event("2026-10-30 20:00", ANNA, 100),
    Event("2026-10-31 10:00", ANNA, 1_000),
    Event("2026-10-31 10:30", STRANGER, 5),
    Event("2026-10-31 18:14:59.999999", BELA, 200),
    Event("2026-10-31 18:15:00", BELA, 2_000),
]
"""The ledger begins on the 30th, so the month of October is these two days."""

BEGINNING = datetime(2026, 10, 1, tzinfo=UTC)
ENDED = datetime(2026, 11, 1, 0, 5, tzinfo=UTC)
"""Five minutes after the last day and the month ended in UTC."""


def quota(
    connection: psycopg.Connection, user: str, period: str, bytes_: int, since: str = "-infinity"
) -> None:
    connection.execute(
        "INSERT INTO user_quota_change (id, period, valid_from, quota) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT (id, period, valid_from) DO UPDATE SET quota = excluded.quota",
        [user, period, since, bytes_],
    )


@pytest.fixture(scope="module")
def hours(new_database, migrated_template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two days of published hours, with users who are over each quota. Tests change only copies of it."""
    with new_database(migrated_template) as url:
        world = World(url, tmp_path_factory.mktemp("hours") / "lake")
        with connect(url) as connection:
            use_zones(connection, "UTC", ZONES)
            for period, bytes_ in (("hour", 900), ("day", 999), ("month", 1_000)):
                quota(connection, ANNA, period, bytes_)
            quota(connection, BELA, "day", 300)
        land(world, EVENTS, closes=END)
        publish_hours(world, FIRST, END)
        yield world


@pytest.fixture(scope="module")
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
        environment.setenv("ANTENNA_POSTGRES_URL", copied.url)
        environment.setenv("ANTENNA_LAKE", str(copied.lake))
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


def publish_days(world: World) -> None:
    publish_periods(world, "daily_usage", "2026-10-30", "2026-10-31")


def publish_month(world: World) -> None:
    publish_periods(world, "monthly_usage", "2026-10-01")


def october(events: Sequence[Event]) -> dict[tuple[date, str], int]:
    """What the oracle has of the month."""
    return {key: bytes_ for key, bytes_ in oracle_days(events, "UTC", ZONES).items() if key[0].month == 10}


@pytest.fixture
def opened(world: World) -> Iterator[psycopg.Connection]:
    with connect(world.url) as connection:
        yield connection


@pytest.fixture
def dagster() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def publish_hours_asked_for(on: dg.DagsterInstance) -> list[str]:
    """Tick and run until `closed_hours` asks for nothing; the hours of each run."""
    ran = []
    for hours, result in publish(on):
        assert result.success
        ran.append(hours)
    return ran


def publish_periods_asked_for(on: dg.DagsterInstance) -> list[str]:
    """Tick and run until `ended_periods` asks for nothing; the periods of each run."""
    definitions, ran = build_definitions(), []
    while requests := local_runs.tick(definitions, on, ended_periods):
        for request in requests:
            assert local_runs.execute(definitions, on, request).success
            ran.append(f"{request.job_name} {request.partition_key}")
    return ran


def generations(connection: psycopg.Connection) -> list[tuple]:
    return connection.execute(
        "SELECT period, day::text, generation, settled FROM ledger.period_state ORDER BY day, period"
    ).fetchall()


def verified(world: World, kept_since: datetime = BEGINNING) -> tuple[list[str], dict[str, str]]:
    """What differs, and what is pending."""
    with connect(world.url) as connection:
        found = verify(connection, Lake(str(world.lake)), kept_since=kept_since)
    return [f"{one.hour}: {one.what}" for one in found.differences], found.pending


def watch(world: World, now: datetime | None) -> None:
    with connect(world.url) as connection, closing(DuckDBEngine(threads=1)) as engine:
        look(connection, engine, str(world.lake), now)


def notices(connection: psycopg.Connection, after: int = 0) -> list[tuple]:
    return connection.execute(
        "SELECT kind, user_id, body::json ->> 'period', (body::json ->> 'percent')::int FROM outbox"
        " WHERE number > %s ORDER BY number",
        [after],
    ).fetchall()


def test_row_43_the_world_of_these_tests_is_as_certified(world: World, opened: psycopg.Connection) -> None:
    assert verified(world) == ([], {})
    assert stored_days(opened) == october(EVENTS)


def test_row_43_a_replay_into_a_published_day_publishes_hour_day_and_month_and_raises_nothing_of_the_past(
    world: World, opened: psycopg.Connection, dagster: dg.DagsterInstance, tmp_path: Path
) -> None:
    Land.on(opened, world.lake)({}, rejected=["not_json"] * 3, newest=ENDED)
    watch(world, ENDED)
    raised = len(notices(opened))
    assert ("quota.raised", ANNA, "month", 100) in notices(opened)
    assert BELA not in {user for _, user, _, _ in notices(opened)}
    late = [
        Event("2026-10-31 10:59:59.999999", ANNA, 10_000),
        Event("2026-10-30 19:00", BELA, 10_000),
        Event("2026-10-30 18:14:59", BELA, 7),
    ]
    mend = tmp_path / "mend.py"
    rows = [
        {"bytes": one.bytes, "timestamp": f"{one.at}Z", "id": one.id, "app": "A", "antenna_id": "a"}
        for one in late
    ]
    mend.write_text(
        f"rows = iter({[json.dumps(row) for row in rows]!r})\n"
        "def transform(value: bytes) -> bytes | None:\n    return next(rows).encode()\n"
    )
    said = CliRunner().invoke(app, ["quarantine", "replay", "--all", "--transform", str(mend)])
    assert said.exit_code == 0, said.output
    assert "replayed 3 messages" in said.output
    watch(world, ENDED + timedelta(minutes=1))
    assert publish_hours_asked_for(dagster) == ["2026-10-30-18:00 to 2026-10-30-19:00", "2026-10-31-10:00"]
    watch(world, ENDED + timedelta(minutes=2))
    assert publish_periods_asked_for(dagster) == [
        "daily_usage None",
        "monthly_usage 2026-10-01",
    ]
    watch(world, ENDED + timedelta(minutes=3))
    assert generations(opened) == [
        ("month", "2026-10-01", 2, True),
        ("day", "2026-10-30", 2, True),
        ("day", "2026-10-31", 2, True),
    ]
    assert stored_days(opened) == october([*EVENTS, *late])
    assert verified(world) == ([], {})
    # What was raised is corrected, and nothing is raised.
    assert {kind for kind, *_ in notices(opened)[raised:]} == {"quota.corrected"}
    assert {user for _, user, _, _ in notices(opened)[raised:]} == {ANNA}


def certificates(connection: psycopg.Connection) -> int:
    """How many certificates of days and months there are."""
    return connection.execute("SELECT count(*) FROM ledger.period_certificate").fetchall()[0][0]


@pytest.mark.parametrize("table", ["raw_parquet", "enriched_usage"])
def test_row_43_days_are_as_certified_over_a_lake_table_that_was_rebuilt(
    world: World, opened: psycopg.Connection, dagster: dg.DagsterInstance, table: str
) -> None:
    before, issued = generations(opened), certificates(opened)
    log = world.lake / table / "_delta_log" / f"{0:020}.json"
    log.write_bytes(bytes(log.stat().st_size))
    said = CliRunner().invoke(app, ["rebuild-table", table])
    assert said.exit_code == 0, said.output
    assert verified(world) == ([], {})
    publish_days(world)
    assert publish_periods_asked_for(dagster) == []
    assert (generations(opened), certificates(opened)) == (before, issued)
    # And it goes on.
    late = [Event("2026-10-31 18:14:30", BELA, 5)]
    land(world, late, closes=END)
    publish_hours_asked_for(dagster)
    publish_periods_asked_for(dagster)
    assert stored_days(opened) == october([*EVENTS, *late])
    assert [generation for _, _, generation, _ in generations(opened)] == [2, 1, 2]
    assert verified(world) == ([], {})


def test_row_43_tables_that_lost_their_rows_are_published_again_and_are_what_was_certified(
    world: World, opened: psycopg.Connection, dagster: dg.DagsterInstance
) -> None:
    stored, issued = stored_days(opened), certificates(opened)
    over = "SELECT * FROM users_over_quota_1d ORDER BY day, id"
    months = "SELECT * FROM users_over_quota_1mo"
    before = opened.execute(over).fetchall(), opened.execute(months).fetchall()
    assert all(before)
    for table in ("bytes_agg_user_1d", "users_over_quota_1d", "users_over_quota_1mo"):
        opened.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))
    assert {line.partition(":")[0] for line in verified(world)[0]} == {
        "day 2026-10-30", "day 2026-10-31", "month 2026-10-01"
    }  # fmt: skip
    for name in ("bytes_agg_user_1d", "users_over_quota_1mo"):
        said = CliRunner().invoke(app, ["rebuild-table", name])
        assert said.exit_code == 2
        assert "dagster job execute" in " ".join(said.output.replace("│", " ").split())
    # A month is computed from the rows of its days, so these come first.
    publish_days(world)
    publish_month(world)
    assert stored_days(opened) == stored
    assert (opened.execute(over).fetchall(), opened.execute(months).fetchall()) == before
    assert certificates(opened) == issued
    assert verified(world) == ([], {})
    # The hours of users as well: their new certificates are those of other files, so the days follow.
    opened.execute("DELETE FROM bytes_agg_user_1h")
    publish_hours(world, FIRST, END)
    publish_periods_asked_for(dagster)
    assert stored_days(opened) == stored
    assert verified(world) == ([], {})


def test_row_43_a_day_that_two_runs_publish_at_once_has_one_certificate(
    unpublished: World, environment: pytest.MonkeyPatch
) -> None:
    faults = Faults(environment)
    with connect(unpublished.url) as opened:
        for point in ("period.computed", "period.fenced", "period.certified"):
            held = Held(faults, point, 1, lambda: publish_days(unpublished))
            other = Thread(target=publish_days, args=[unpublished])
            other.start()
            other.join(2)
            assert held.let_go() is None
            other.join(60)
            assert not other.is_alive()
            assert (certificates(opened), stored_days(opened)) == (2, october(EVENTS))
        assert verified(unpublished) == ([], {})


def test_row_43_an_hour_that_is_published_while_its_day_is_computed_has_the_day_asked_for_again(
    world: World, opened: psycopg.Connection, dagster: dg.DagsterInstance, environment: pytest.MonkeyPatch
) -> None:
    faults, events = Faults(environment), [*EVENTS]
    for number, point in enumerate(("period.computed", "period.fenced", "period.certified"), start=1):
        held = Held(faults, point, 1, lambda: publish_periods(world, "daily_usage", "2026-10-31"))
        late = Event("2026-10-31 10:00", ANNA, number)
        events.append(late)
        land(world, [late], closes=END)
        publish_hours_asked_for(dagster)
        assert held.let_go() is None
        # It has published what it had read.
        assert stored_days(opened) == october(events[:-1])
        assert ("day", "2026-10-31", number, False) in generations(opened)
        assert publish_periods_asked_for(dagster) == [
            "daily_usage 2026-10-31",
            "monthly_usage 2026-10-01",
        ]
        assert stored_days(opened) == october(events)
        assert verified(world) == ([], {})


def test_row_43_a_day_run_that_is_older_than_another_changes_nothing(
    world: World, opened: psycopg.Connection, dagster: dg.DagsterInstance, environment: pytest.MonkeyPatch
) -> None:
    held = Held(Faults(environment), "period.computed", 1, lambda: publish_days(world))
    late = [Event("2026-10-31 10:00", ANNA, 1)]
    land(world, late, closes=END)
    publish_hours_asked_for(dagster)
    publish_periods_asked_for(dagster)
    issued = certificates(opened)
    assert held.let_go() is None
    assert (stored_days(opened), certificates(opened)) == (october([*EVENTS, *late]), issued)
    assert verified(world) == ([], {})


def test_row_43_a_quota_that_is_corrected_while_its_day_is_published_for_the_first_time_is_applied(
    unpublished: World, dagster: dg.DagsterInstance, environment: pytest.MonkeyPatch
) -> None:
    """The run has judged by the quotas of before, and nobody else sees the row of the day's head yet."""
    since = datetime(2026, 10, 30, 12, tzinfo=UTC)

    def correct() -> None:
        with connect(unpublished.url) as connection:
            for period in ("day", "month"):
                change_user(connection, BELA, period, Quota(1), valid_from=since)

    faults = Faults(environment)
    for publish_first in (publish_days, publish_month):
        # Unless the quota is put back it would be the same one.
        with connect(unpublished.url) as connection:
            connection.execute(
                "DELETE FROM user_quota_change WHERE id = %s AND period <> 'hour' AND valid_from = %s",
                [BELA, since],
            )
        held = Held(faults, "period.certified", 1, lambda run=publish_first: run(unpublished))
        correcting = Thread(target=correct)
        correcting.start()
        correcting.join(1)
        assert held.let_go() is None
        correcting.join(60)
        assert not correcting.is_alive()
        publish_periods_asked_for(dagster)
        with connect(unpublished.url) as opened:
            over = opened.execute(
                "SELECT day::text FROM users_over_quota_1d WHERE id = %s ORDER BY 1", [BELA]
            )
            assert over.fetchall() == [("2026-10-30",), ("2026-10-31",)]
            over = opened.execute("SELECT quota FROM users_over_quota_1mo WHERE id = %s", [BELA])
            assert over.fetchall() == [(1,)]
        assert verified(unpublished) == ([], {})


USER = ANNA
EMAIL = "andres@gmail.com"


def rows_that_name(connection: psycopg.Connection, *texts: str) -> dict[str, int]:
    """The tables of which some row holds one of the texts in whatever column, with the number of such rows."""
    tables = connection.execute(
        "SELECT table_schema, table_name FROM information_schema.tables WHERE table_type = 'BASE TABLE'"
        " AND table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2"
    ).fetchall()
    assert ("public", "users_over_quota_1mo") in tables
    found = {}
    for schema, table in tables:
        query = sql.SQL("SELECT count(*) FROM {} AS one WHERE one::text LIKE ANY (%s)")
        ((rows,),) = connection.execute(
            query.format(sql.Identifier(schema, table)), [[f"%{text}%" for text in texts]]
        ).fetchall()
        if rows:
            found[f"{schema}.{table}"] = rows
    return found


def sums(connection: psycopg.Connection) -> list[list[tuple]]:
    """Everything that has no user, and the bytes of what has."""
    queries = (
        "SELECT date, app, sum_app_bytes FROM bytes_agg_app_1h ORDER BY 1, 2",
        "SELECT date, antenna_id, sum_antenna_bytes FROM bytes_agg_antenna_1h ORDER BY 1, 2",
        "SELECT date, sum(sum_user_bytes) FROM bytes_agg_user_1h GROUP BY 1 ORDER BY 1",
        "SELECT day, sum(sum_user_bytes), count(*) FROM bytes_agg_user_1d GROUP BY 1 ORDER BY 1",
        "SELECT day, quota, sum_user_bytes FROM users_over_quota_1d ORDER BY 1, 2, 3",
        "SELECT month, quota, sum_user_bytes FROM users_over_quota_1mo ORDER BY 1, 2, 3",
        "SELECT date, sum(sum_user_bytes) FROM bytes_agg_user GROUP BY 1 ORDER BY 1",
    )
    return [connection.execute(query).fetchall() for query in queries]


def test_row_43_a_user_with_days_months_quotas_zone_plan_rules_alerts_and_notices_is_forgotten_everywhere(
    world: World, opened: psycopg.Connection, dagster: dg.DagsterInstance
) -> None:
    opened.execute("INSERT INTO plan VALUES ('gold')")
    opened.execute(
        "UPDATE user_metadata SET plan = 'gold', quota = 7, zone = %s WHERE id = %s", [KATHMANDU, USER]
    )
    opened.execute("INSERT INTO alert_rule (user_id, period, percents) VALUES (%s, 'month', '{10}')", [USER])
    opened.execute(
        "INSERT INTO bytes_agg_user (date, id, sum_user_bytes) VALUES ('2026-10-31 10:00Z', %s, 1000)", [USER]
    )
    add_channel(opened, "ops")
    watch(world, ENDED)
    assert notices(opened)
    change_user(opened, USER, "day", Quota(999), valid_from=datetime(2026, 10, 30, 12, tzinfo=UTC))
    publish_periods_asked_for(dagster)
    # Left by the run of a day that was killed.
    left = world.lake / "scratch" / "0" / "own_windows.parquet"
    left.parent.mkdir(parents=True)
    pq.write_table(pa.table({"id": [USER]}), left)
    held = rows_that_name(opened, USER, EMAIL)
    assert {
        *(
            "public.user_metadata",
            "public.user_quota_change",
            "public.user_plan_change",
            "public.user_zone_change",
        ),
        *("public.bytes_agg_user", "public.bytes_agg_user_1d", "public.users_over_quota_1d"),
        *("public.users_over_quota_1mo", "public.alert", "public.alert_rule", "public.outbox"),
    } <= held.keys()
    before, (allowed,) = sums(opened), opened.execute("SELECT answer FROM allowance(%s)", [USER]).fetchall()
    assert allowed != ("unknown user",)

    said = CliRunner().invoke(app, ["forget-user", USER, "--yes"])
    assert said.exit_code == 0, said.output
    assert rows_that_name(opened, USER, EMAIL) == {}
    assert not places(opened, Lake(str(world.lake)), USER)
    assert not left.exists()
    assert sums(opened) == before
    for period in ("hour", "day", "month"):
        assert opened.execute("SELECT answer, used FROM allowance(%s, 1, %s)", [USER, period]).fetchall() == [
            ("unknown user", 0)
        ]
    differences, pending = verified(world)
    assert differences == []
    assert {"day 2026-10-30", "day 2026-10-31", "month 2026-10-01"} <= pending.keys()
    publish_periods_asked_for(dagster)
    assert verified(world) == ([], {})
    watch(world, ENDED + timedelta(minutes=1))
    assert rows_that_name(opened, USER, EMAIL) == {}
    assert sums(opened) == before


@contextmanager
def held_before_its_commit(
    environment: pytest.MonkeyPatch, module: ModuleType, what: Callable[[], None]
) -> Iterator[Held]:
    """Something that has passed the fence of forgetting and has not committed yet."""
    faults = Faults(environment)

    def pass_the_fence(connection: psycopg.Connection) -> None:
        require_nobody_forgotten(connection)
        commit_point("forget.fenced")

    environment.setattr(module, "require_nobody_forgotten", pass_the_fence)
    yield Held(faults, "forget.fenced", 1, what)


WRITERS: dict[str, tuple[ModuleType, Callable[[World], None]]] = {
    "day": (days, lambda world: publish_periods(world, "daily_usage", "2026-10-31")),
    "month": (months, publish_month),
    "watch": (alerts_watch, lambda world: watch(world, ENDED)),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_row_43_forgetting_waits_for_who_has_read_the_user_and_passed_the_fence(
    unpublished: World, environment: pytest.MonkeyPatch, writer: str
) -> None:
    if writer != "day":
        publish_days(unpublished)
    module, write = WRITERS[writer]
    forgotten: list[object] = []

    def forget_the_user() -> None:
        with connect(unpublished.url) as connection:
            forgotten.append(forget(connection, Lake(str(unpublished.lake)), USER, say=lambda _: None))

    with held_before_its_commit(environment, module, lambda: write(unpublished)) as held:
        forgetting = Thread(target=forget_the_user)
        forgetting.start()
        forgetting.join(8)
        assert held.let_go() is None
        forgetting.join(60)
    assert len(forgotten) == 1
    with connect(unpublished.url) as opened:
        assert rows_that_name(opened, USER, EMAIL) == {}


def test_row_43_a_day_that_was_computed_before_a_user_was_forgotten_is_not_published(
    unpublished: World, environment: pytest.MonkeyPatch
) -> None:
    faults = Faults(environment)
    held = Held(
        faults,
        "period.computed",
        1,
        lambda: publish_periods(unpublished, "daily_usage", "2026-10-30", "2026-10-31", fails=True),
    )
    with connect(unpublished.url) as opened:
        forget(opened, Lake(str(unpublished.lake)), USER, say=lambda _: None)
        assert held.let_go() is None
        assert rows_that_name(opened, USER, EMAIL) == {}
        # The other day of the run was not begun.
        assert stored_days(opened) == {}


def over_quota(connection: psycopg.Connection, hour: str) -> list[tuple]:
    return connection.execute(
        "SELECT id, quota FROM users_over_quota_1h WHERE date = %s ORDER BY id", [f"{hour}Z"]
    ).fetchall()


def test_row_43_hours_judged_by_the_quotas_of_now_around_a_tick_change_once_and_raise_nothing(
    world: World, opened: psycopg.Connection, dagster: dg.DagsterInstance
) -> None:
    watch(world, ENDED)
    raised = len(notices(opened))
    opened.execute("UPDATE user_metadata SET quota = 5000 WHERE id = %s", [ANNA])
    opened.execute("UPDATE user_metadata SET quota = 100 WHERE id = %s", [BELA])
    ten, six = "2026-10-31 10:00", "2026-10-31 18:00"
    assert (over_quota(opened, ten), over_quota(opened, six)) == ([(ANNA, 900)], [])
    over = opened.execute("SELECT * FROM users_over_quota_1d ORDER BY day, id").fetchall()
    range_ = hours_between(*(datetime.fromisoformat(f"{text}Z") for text in (ten, "2026-10-31 19:00")))
    changed = judge_by_quotas_of_now(opened, range_)
    assert (changed.changes, changed.verdicts.over, changed.verdicts.no_longer) == (2, 1, 1)
    # A tick before Dagster has the backfill: it asks for the same hours, and runs after it.
    definitions = build_definitions()
    requests = local_runs.tick(definitions, dagster)
    assert [one.partition_key for one in requests] == ["2026-10-31-10:00", "2026-10-31-18:00"]
    publish_hours(world, ten, "2026-10-31 19:00")
    assert publish_hours_asked_for(dagster) == []
    for request in requests:
        assert local_runs.execute(definitions, dagster, request).success
    assert publish_hours_asked_for(dagster) == []
    assert (over_quota(opened, ten), over_quota(opened, six)) == ([], [(BELA, 100)])
    assert publish_periods_asked_for(dagster) == ["daily_usage 2026-10-31", "monthly_usage 2026-10-01"]
    assert publish_periods_asked_for(dagster) == []
    # Days have quotas of their own.
    assert opened.execute("SELECT * FROM users_over_quota_1d ORDER BY day, id").fetchall() == over
    assert stored_days(opened) == october(EVENTS)
    assert verified(world) == ([], {})
    again = judge_by_quotas_of_now(opened, range_)
    assert (again.changes, again.verdicts.hours) == (0, [])
    for now in (ENDED + timedelta(minutes=1), None):
        watch(world, now)
    assert notices(opened)[raised:] == []


def test_row_43_a_backfill_by_the_quotas_of_now_changes_nothing_if_dagster_cannot_be_asked(
    opened: psycopg.Connection, environment: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def away() -> Iterator[dg.DagsterInstance]:
        raise AntennaError("Dagster's storage is away")
        yield

    environment.setenv("ANTENNA_KAFKA_BOOTSTRAP", "127.0.0.1:9")
    environment.setattr("antenna_assets.defs.instance.open_instance", away)
    opened.execute("UPDATE user_metadata SET quota = 5000 WHERE id = %s", [ANNA])
    query = "SELECT change::text FROM user_quota_change AS change ORDER BY 1"
    history = opened.execute(query).fetchall()
    said = CliRunner().invoke(app, ["backfill", "--from", "2026-10-31-10:00", "--quota-of", "now"])
    assert (said.exit_code, "is away" in f"{said.output}{said.exception}") == (1, True)
    assert opened.execute(query).fetchall() == history


def test_row_43_days_outlive_the_files_and_hours_that_sweeps_remove(
    world: World, opened: psycopg.Connection, dagster: dg.DagsterInstance, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    late = [Event("2026-10-31 18:14:30", BELA, 5)]
    land(world, late, closes=END)
    publish_hours_asked_for(dagster)

    def sweep_after(later: timedelta) -> None:
        age(world.lake, VERSION_RETENTION + timedelta(days=1), now=now)
        horizon, keep = timedelta(days=35), timedelta(days=1)
        lake = str(world.lake)
        for moment in (now + later, now + later + timedelta(hours=9)):
            sweep(world.url, lake, dagster_home=tmp_path, horizon=horizon, keep_user_hours=keep, now=moment)

    # What the day was published from is gone: landed files, the hour's older files, the hours of users.
    before = len(list(world.lake.rglob("*.parquet")))
    sweep_after(timedelta(days=60))
    assert opened.execute("SELECT count(*) FROM ledger.file").fetchone() == (0,)
    assert opened.execute("SELECT count(*) FROM bytes_agg_user_1h").fetchone() == (0,)
    assert len(list(world.lake.rglob("*.parquet"))) < before
    kept = now + timedelta(days=365)
    differences, pending = verified(world, kept)
    assert differences == []
    assert pending.keys() == {"day 2026-10-31", "month 2026-10-01"}
    assert publish_periods_asked_for(dagster) == ["daily_usage 2026-10-31", "monthly_usage 2026-10-01"]
    assert stored_days(opened) == october([*EVENTS, *late])
    with snapshot(opened):
        verdict = quota_periods_add_up(opened, Lake(str(world.lake)), date(2026, 10, 31))
    assert (verdict.passed, verdict.metrics["users_by_hours"]) == (True, 0)
    sweep_after(timedelta(days=61))
    assert verified(world, kept) == ([], {})


def test_row_43_a_backup_from_before_a_late_row_is_restored_with_its_days_and_goes_on(
    world: World,
    opened: psycopg.Connection,
    dagster: dg.DagsterInstance,
    new_database,
    environment: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    environment.setenv("ANTENNA_KAFKA_BOOTSTRAP", "127.0.0.1:9")
    backup = tmp_path / "backup"

    def run(on: World, *headings: str, more: str = "") -> None:
        values = {"ANTENNA_POSTGRES_URL": on.url, "ANTENNA_LAKE": str(on.lake), "BACKUP": str(backup)}
        script = guide.commands("backup.md", "## Back up", *headings) + more
        code, said = guide.run(script, {**load_settings().exports(), **values})
        assert code == 0, said

    run(world, "### 1. PostgreSQL")
    late = [Event("2026-10-31 18:14:30", BELA, 5)]
    land(world, late, closes=END)
    publish_hours_asked_for(dagster)
    publish_periods_asked_for(dagster)
    assert stored_days(opened) == october([*EVENTS, *late])
    run(world, "### 2. The lake")

    with new_database("template0") as url:
        restored = World(url, tmp_path / "restored")
        restore = (
            '\npg_restore --dbname "$ANTENNA_POSTGRES_URL" --jobs 2 --exit-on-error "$BACKUP/postgresql"\n'
        )
        run(restored, "### 5. The lake", more=restore)
        run(restored, "### 6. Cut the lake's tables to the ledger")
        with connect(url) as connection:
            assert verified(restored) == ([], {})
            assert stored_days(connection) == october(EVENTS)
            assert [generation for *_, generation, settled in generations(connection) if settled] == [1, 1, 1]
            # The row is read from Kafka again.
            land(restored, late, closes=END)
            environment.setenv("ANTENNA_POSTGRES_URL", url)
            environment.setenv("ANTENNA_LAKE", str(restored.lake))
            with dg.DagsterInstance.ephemeral() as other:
                publish_hours_asked_for(other)
                publish_periods_asked_for(other)
            assert stored_days(connection) == october([*EVENTS, *late])
            assert verified(restored) == ([], {})
            # Published days stay as they are, as the restored triggers know.
            connection.execute("UPDATE user_metadata SET zone = %s WHERE id = %s", [KATHMANDU, ANNA])
            moved = "SELECT from_day FROM user_zone_change WHERE id = %s"
            assert connection.execute(moved, [ANNA]).fetchall() == [(date(2026, 11, 2),)]
