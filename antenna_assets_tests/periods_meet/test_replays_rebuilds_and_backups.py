"""proofs.md, row 43: days and months after a replay, over rebuilt tables and in a restored backup."""

import json
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from psycopg import sql
from typer.testing import CliRunner

from antenna_assets.cli import app
from antenna_assets.clients.postgres import connect
from antenna_assets.settings import load_settings
from antenna_assets_tests import guide
from antenna_assets_tests.certified import Land, World
from antenna_assets_tests.period_world import (
    ANNA,
    BELA,
    KATHMANDU,
    Event,
    certificates,
    generations,
    land,
    publish_hours,
    publish_hours_asked_for,
    publish_periods_asked_for,
    stored_days,
    use_world,
)
from antenna_assets_tests.periods_meet.october import (
    END,
    ENDED,
    EVENTS,
    FIRST,
    notices,
    october,
    publish_days,
    publish_month,
    verified,
    watch,
)

pytestmark = pytest.mark.services


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
            use_world(environment, restored)
            with dg.DagsterInstance.ephemeral() as other:
                publish_hours_asked_for(other)
                publish_periods_asked_for(other)
            assert stored_days(connection) == october([*EVENTS, *late])
            assert verified(restored) == ([], {})
            # Published days stay as they are, as the restored triggers know.
            connection.execute("UPDATE user_metadata SET zone = %s WHERE id = %s", [KATHMANDU, ANNA])
            moved = "SELECT from_day FROM user_zone_change WHERE id = %s"
            assert connection.execute(moved, [ANNA]).fetchall() == [(date(2026, 11, 2),)]
