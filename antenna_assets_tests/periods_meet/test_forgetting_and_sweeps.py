"""proofs.md, row 43: who is forgotten is in no day or month, and days outlive what sweeps remove."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from antenna_assets.domain.lifetimes import VERSION_RETENTION
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.publications import require_nobody_forgotten
from antenna_assets.operations.alerts import watch as alerts_watch
from antenna_assets.operations.forget.places import places
from antenna_assets.operations.forget.run import forget
from antenna_assets.operations.quotas.changes import change_user
from antenna_assets.operations.quotas.quota import Quota
from antenna_assets.operations.sweep.run import sweep
from antenna_assets.publishing import days, months
from antenna_assets.publishing.lake import Lake
from antenna_assets.verify.claims.periods import quota_periods_add_up
from antenna_assets_tests.certified import World
from antenna_assets_tests.faults.in_process import Faults, Held
from antenna_assets_tests.notices import add_channel
from antenna_assets_tests.period_world import (
    ANNA,
    BELA,
    KATHMANDU,
    Event,
    land,
    publish_hours_asked_for,
    publish_periods,
    publish_periods_asked_for,
    stored_days,
)
from antenna_assets_tests.periods_meet.october import (
    END,
    ENDED,
    EVENTS,
    notices,
    october,
    publish_days,
    publish_month,
    verified,
    watch,
)
from antenna_assets_tests.test_sweep import age

pytestmark = pytest.mark.services


USER = ANNA
EMAIL = "andres@gmail.com"


def rows_that_name(connection: psycopg.Connection, *texts: str) -> dict[str, int]:
    """The tables of which some row holds one of the texts in any column, with the number of such rows."""
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
