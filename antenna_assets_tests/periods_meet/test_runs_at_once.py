"""proofs.md, row 43: runs of days and months beside each other, runs of hours and corrections of quotas."""

from datetime import UTC, datetime
from threading import Thread

import dagster as dg
import psycopg
import pytest

from antenna_assets.clients.postgres import connect
from antenna_assets.operations.quotas.changes import change_user
from antenna_assets.operations.quotas.quota import Quota
from antenna_assets_tests.certified import World
from antenna_assets_tests.faults.in_process import Faults, Held
from antenna_assets_tests.period_world import (
    ANNA,
    BELA,
    Event,
    certificates,
    generations,
    land,
    publish_hours_asked_for,
    publish_periods,
    publish_periods_asked_for,
    stored_days,
)
from antenna_assets_tests.periods_meet.october import (
    END,
    EVENTS,
    october,
    publish_days,
    publish_month,
    verified,
)

pytestmark = pytest.mark.services


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
