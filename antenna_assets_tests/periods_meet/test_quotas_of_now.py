"""proofs.md, row 43: hours that are judged by the quotas of now leave days and months as they are."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import dagster as dg
import psycopg
import pytest
from typer.testing import CliRunner

from antenna_assets.cli import app
from antenna_assets.definitions import build_definitions
from antenna_assets.defs import local_runs
from antenna_assets.domain.hours import hours_between
from antenna_assets.errors import AntennaError
from antenna_assets.operations.quotas.rejudge import judge_by_quotas_of_now
from antenna_assets_tests.certified import World
from antenna_assets_tests.period_world import (
    ANNA,
    BELA,
    publish_hours,
    publish_hours_asked_for,
    publish_periods_asked_for,
    stored_days,
)
from antenna_assets_tests.periods_meet.october import ENDED, EVENTS, notices, october, verified, watch

pytestmark = pytest.mark.services


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
