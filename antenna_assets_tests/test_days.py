"""Days of users: published by the real job from certified hours, in the billing zone or their own, exact to the microsecond."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from antenna_assets.clients.postgres import connect, snapshot
from antenna_assets.definitions import build_definitions
from antenna_assets.defs.checks import DAYS_ADD_UP
from antenna_assets.ledger.anchors import AnchorsError, append_anchor, read_anchors
from antenna_assets.ledger.certificate import newest_of_chain
from antenna_assets.ledger.chain import newest
from antenna_assets.ledger.period_publications import PeriodCertificate
from antenna_assets.ledger.user_hours import drop_user_days
from antenna_assets.operations.forget.places import places
from antenna_assets.operations.forget.run import forget
from antenna_assets.publishing.lake import Lake
from antenna_assets.verify.claims.periods import DayNotPublished, quota_periods_add_up
from antenna_assets.verify.claims.verdict import Verdict
from antenna_assets.verify.run import verify
from antenna_assets_tests.certified import World
from antenna_assets_tests.instances import instance_in_postgres
from antenna_assets_tests.period_world import (
    ANNA,
    BELA,
    BERLIN,
    CARO,
    DORA,
    KATHMANDU,
    LORD_HOWE,
    STRANGER,
    Event,
    first_instants,
    land,
    land_and_publish_hours,
    oracle_days,
    publish_hours,
    publish_periods,
    set_quota,
    stored_days,
    use_world,
    use_zones,
)

pytestmark = pytest.mark.services

ZONES = {BELA: KATHMANDU, CARO: LORD_HOWE}
FIRST, END = "2026-10-24 12:00", "2026-10-26 00:00"

# The 25th has 25 hours in Berlin, from 22:00 of the 24th in UTC.
EVENTS = [
    # The last microsecond of the 24th in Berlin, and the first of the 25th.
    Event("2026-10-24 21:59:59.999999", ANNA, 1),
    Event("2026-10-24 22:00:00", ANNA, 10),
    # 02:30 comes twice on the 25th.
    Event("2026-10-25 00:30:00", ANNA, 100),
    Event("2026-10-25 01:30:00", ANNA, 1_000),
    Event("2026-10-25 22:59:59.999999", ANNA, 10_000),
    Event("2026-10-25 23:00:00", ANNA, 100_000),
    # Midnight in Kathmandu is at 18:15, within an hour.
    Event("2026-10-24 18:14:59.999999", BELA, 2),
    Event("2026-10-24 18:15:00", BELA, 20),
    Event("2026-10-25 18:14:59.999999", BELA, 200),
    Event("2026-10-25 18:15:00", BELA, 2_000),
    # On Lord Howe Island, eleven hours ahead in summer, it is at 13:00.
    Event("2026-10-24 12:59:59.999999", CARO, 3),
    Event("2026-10-24 13:00:00", CARO, 30),
    Event("2026-10-25 12:59:59.999999", CARO, 300),
    Event("2026-10-25 13:00:00", CARO, 3_000),
    Event("2026-10-25 10:00:00", STRANGER, 5),
    Event("2026-10-25 10:00:00", STRANGER, 50),
]


@pytest.fixture(scope="module")
def published(
    new_database, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """36 published hours around a day of 25 hours. Tests change only copies of it."""
    with new_database(migrated_template) as url:
        world = World(url, tmp_path_factory.mktemp("days") / "lake")
        with connect(url) as connection:
            use_zones(connection, BERLIN, ZONES)
        land_and_publish_hours(world, EVENTS, FIRST, END)
        yield world


@pytest.fixture
def days(published: World, tmp_path: Path) -> Iterator[World]:
    with published.copy(tmp_path) as copied:
        yield copied


@pytest.fixture
def opened(days: World) -> Iterator[psycopg.Connection]:
    with connect(days.url) as connection:
        yield connection


def daily(world: World, day: str, **more) -> None:
    publish_periods(world, "daily_usage", day, zone=BERLIN, **more)


def test_each_user_has_the_bytes_of_its_own_day(days: World, opened: psycopg.Connection) -> None:
    daily(days, "2026-10-25")
    found = stored_days(opened)
    day = date(2026, 10, 25)
    assert found == {
        (day, ANNA): 11_110,
        (day, BELA): 220,
        (day, CARO): 330,
        (day, STRANGER): 55,
    }
    oracle = oracle_days(EVENTS, BERLIN, ZONES)
    assert found == {key: bytes_ for key, bytes_ in oracle.items() if key[0] == day}
    assert first_instants(opened, "2026-10-25") == {
        ANNA: "2026-10-24 22:00",
        BELA: "2026-10-24 18:15",
        CARO: "2026-10-24 13:00",
        STRANGER: "2026-10-24 22:00",
    }


def test_a_late_row_makes_the_next_generation_of_its_day(days: World, opened: psycopg.Connection) -> None:
    daily(days, "2026-10-25")
    late = [Event("2026-10-25 18:14:00", BELA, 7), Event("2026-10-25 23:30:00", ANNA, 9)]
    land(days, late, closes=END)
    state = "SELECT generation, dirty, settled FROM ledger.period_state WHERE period = 'day'"
    assert opened.execute(state).fetchall() == [(1, False, True)]
    publish_hours(days, "2026-10-25 18:00", "2026-10-25 19:00")
    assert opened.execute(state).fetchall() == [(1, True, False)]
    publish_hours(days, "2026-10-25 23:00", END)
    daily(days, "2026-10-25")
    assert opened.execute(state).fetchall() == [(2, False, True)]
    oracle = oracle_days([*EVENTS, *late], BERLIN, ZONES)
    assert stored_days(opened) == {
        key: bytes_ for key, bytes_ in oracle.items() if key[0] == date(2026, 10, 25)
    }


def test_the_same_day_again_changes_nothing_and_has_no_other_certificate(
    days: World, opened: psycopg.Connection
) -> None:
    for _ in range(2):
        daily(days, "2026-10-25")
    assert opened.execute("SELECT number, generation FROM ledger.period_certificate").fetchall() == [(1, 1)]
    assert opened.execute("SELECT count(*) FROM ledger.period_publication").fetchone() == (2,)


def test_a_day_is_refused_while_it_lasts_for_anybody(days: World, opened: psycopg.Connection) -> None:
    result = publish_periods(days, "daily_usage", "2026-10-26", zone=BERLIN, fails=True)
    assert "2026-10-26 ends by 2026-10-26-23:00 UTC in all time zones in use" in failure(result)
    # Its hours are closed, but one has rows that are not published.
    land(days, [Event("2026-10-25 20:00", DORA, 1)], closes=END)
    result = publish_periods(days, "daily_usage", "2026-10-25", zone=BERLIN, fails=True)
    assert "found 1 hour that is not, first 2026-10-25-20:00" in failure(result)
    assert opened.execute("SELECT count(*) FROM ledger.period_head").fetchone() == (0,)


def test_a_process_with_another_billing_zone_is_refused(days: World) -> None:
    result = publish_periods(days, "daily_usage", "2026-10-25", zone="UTC", fails=True)
    assert "ANTENNA_BILLING_ZONE: expected Europe/Berlin, the zone of the ledger, found UTC" in failure(
        result
    )


def failure(result) -> str:
    (event,) = [event for event in result.all_events if event.is_step_failure]
    error = event.step_failure_data.error
    return f"{error} {error.cause}"


def test_a_day_is_judged_by_the_quota_at_its_last_instant_in_the_users_zone(
    days: World, opened: psycopg.Connection
) -> None:
    set_quota(opened, ANNA, "day", 11_109)
    # Exactly the quota is not over it.
    set_quota(opened, CARO, "day", 330)
    # Kathmandu's day ends at 18:15: the change at its end is that of the next day, the one before it counts.
    set_quota(opened, BELA, "day", None)
    set_quota(opened, BELA, "day", 219, "2026-10-25 18:14:59.999999")
    set_quota(opened, BELA, "day", 1_000_000, "2026-10-25 18:15:00")
    # Of an hour, not of a day.
    set_quota(opened, STRANGER, "hour", 1)
    daily(days, "2026-10-25")
    assert opened.execute(
        "SELECT day, id, quota, sum_user_bytes FROM users_over_quota_1d ORDER BY id"
    ).fetchall() == [
        (date(2026, 10, 25), ANNA, 11_109, 11_110),
        (date(2026, 10, 25), BELA, 219, 220),
    ]


def test_a_month_is_the_sum_of_its_days_and_waits_for_them(days: World, opened: psycopg.Connection) -> None:
    # The ledger begins on the 24th.
    more = [Event("2026-10-31 23:30:00", ANNA, 4), Event("2026-10-31 22:59:59.999999", ANNA, 5)]
    land_and_publish_hours(days, more, END, "2026-11-01 00:00")
    set_quota(opened, ANNA, "month", 111_000)
    set_quota(opened, BELA, "month", 2_222)
    daily(days, "2026-10-24", last="2026-10-30")
    result = publish_periods(days, "monthly_usage", "2026-10-01", zone=BERLIN, fails=True)
    assert "found 1 day that is not, first 2026-10-31" in failure(result)
    daily(days, "2026-10-31")
    publish_periods(days, "monthly_usage", "2026-10-01", zone=BERLIN)
    oracle = oracle_days([*EVENTS, *more], BERLIN, ZONES)
    anna = sum(bytes_ for (day, user), bytes_ in oracle.items() if user == ANNA and day.month == 10)
    assert anna == 111_116
    assert opened.execute(
        "SELECT month, id, date, email IS NULL, quota, sum_user_bytes FROM users_over_quota_1mo"
    ).fetchall() == [
        (date(2026, 10, 1), ANNA, datetime(2026, 9, 30, 22, tzinfo=UTC), False, 111_000, 111_116)
    ]
    state = "SELECT generation, dirty FROM ledger.period_state WHERE period = 'month'"
    assert opened.execute(state).fetchall() == [(1, False)]
    # A late row of a day is one of its month.
    land(days, [Event("2026-10-25 12:00", BELA, 1)], closes="2026-11-01 00:00")
    publish_hours(days, "2026-10-25 12:00", "2026-10-25 13:00")
    daily(days, "2026-10-25")
    assert opened.execute(state).fetchall() == [(1, True)]
    publish_periods(days, "monthly_usage", "2026-10-01", zone=BERLIN)
    assert opened.execute(state).fetchall() == [(2, False)]
    assert opened.execute("SELECT id, sum_user_bytes FROM users_over_quota_1mo ORDER BY id").fetchall() == [
        (ANNA, 111_116),
        (BELA, 2_223),
    ]


def test_who_is_forgotten_is_in_no_day_or_month_and_its_bytes_and_its_zone_stay(
    days: World, opened: psycopg.Connection
) -> None:
    set_quota(opened, BELA, "day", 100)
    daily(days, "2026-10-25")
    lake = Lake(str(days.lake))
    pseudonym = forget(opened, lake, BELA, say=lambda _: None).pseudonym
    assert not places(opened, lake, BELA)
    day = date(2026, 10, 25)
    assert stored_days(opened)[day, pseudonym] == 220
    assert opened.execute("SELECT id, email, sum_user_bytes FROM users_over_quota_1d").fetchall() == [
        (pseudonym, "forgotten@invalid", 220)
    ]
    # The hours have new certificates.
    assert opened.execute("SELECT generation, dirty FROM ledger.period_state").fetchall() == [(1, True)]
    daily(days, "2026-10-25")
    assert opened.execute("SELECT generation, dirty FROM ledger.period_state").fetchall() == [(2, False)]
    assert stored_days(opened)[day, pseudonym] == 220
    assert first_instants(opened, "2026-10-25")[pseudonym] == "2026-10-24 18:15"
    texts = "SELECT count(*) FROM ledger.period_certificate WHERE strpos(text, %s) > 0"
    assert opened.execute(texts, [BELA]).fetchone() == (0,)


def add_up(world: World, day: str) -> Verdict:
    with connect(world.url) as connection, snapshot(connection):
        return quota_periods_add_up(connection, Lake(str(world.lake)), date.fromisoformat(day))


def test_a_day_whose_sums_are_not_those_of_its_hours_or_events_is_found(
    days: World, opened: psycopg.Connection
) -> None:
    with pytest.raises(DayNotPublished, match="bytes_agg_user_1d does not hold 2026-10-25 yet"):
        add_up(days, "2026-10-25")
    daily(days, "2026-10-25")
    verdict = add_up(days, "2026-10-25")
    assert verdict.passed
    # Those of Anna, Caro and the stranger by their hours; a boundary cuts Bela's.
    assert verdict.metrics == {"users_by_hours": 3, "users_by_events": 1, "users_wrong": 0}
    for user in (ANNA, BELA):
        opened.execute(
            "UPDATE bytes_agg_user_1d SET sum_user_bytes = sum_user_bytes + 1 WHERE id = %s", [user]
        )
    verdict = add_up(days, "2026-10-25")
    assert (verdict.passed, verdict.message) == (
        False,
        "2 users have other bytes on 2026-10-25 than in its hours",
    )
    opened.execute("DELETE FROM bytes_agg_user_1d WHERE id = %s", [CARO])
    assert add_up(days, "2026-10-25").metrics["users_wrong"] == 3


def test_a_day_is_compared_with_its_events_where_its_hours_are_dropped(
    days: World, opened: psycopg.Connection
) -> None:
    drop_user_days(opened, datetime(2026, 10, 26, tzinfo=UTC))
    daily(days, "2026-10-25")
    assert add_up(days, "2026-10-25").metrics == {"users_by_hours": 0, "users_by_events": 4, "users_wrong": 0}
    assert stored_days(opened) == {
        key: bytes_
        for key, bytes_ in oracle_days(EVENTS, BERLIN, ZONES).items()
        if key[0] == date(2026, 10, 25)
    }


def verified(world: World, connection: psycopg.Connection) -> tuple[int, list[str], dict[str, str]]:
    """How many periods were compared, what differs, and what is pending."""
    found = verify(connection, Lake(str(world.lake)), kept_since=datetime(2026, 10, 1, tzinfo=UTC))
    return found.periods, [f"{one.hour}: {one.what}" for one in found.differences], found.pending


def test_verify_computes_days_and_months_again(days: World, opened: psycopg.Connection) -> None:
    set_quota(opened, ANNA, "day", 100)
    daily(days, "2026-10-24", last="2026-10-25")
    assert verified(days, opened) == (2, [], {})
    opened.execute(
        "UPDATE bytes_agg_user_1d SET sum_user_bytes = 1 WHERE id = %s AND day = '2026-10-25'", [BELA]
    )
    opened.execute("DELETE FROM users_over_quota_1d")
    assert verified(days, opened)[1] == [
        "day 2026-10-25: bytes_agg_user_1d, bytes",
        "day 2026-10-25: bytes_agg_user_1d, csv_sha256",
        "day 2026-10-25: users_over_quota_1d, bytes",
        "day 2026-10-25: users_over_quota_1d, csv_sha256",
        "day 2026-10-25: users_over_quota_1d, rows",
        "day 2026-10-25: users_over_quota_1d, rows that are missing",
    ]
    land(days, [Event("2026-10-25 12:00", BELA, 1)], closes=END)
    publish_hours(days, "2026-10-25 12:00", "2026-10-25 13:00")
    assert verified(days, opened)[1:] == (
        [],
        {"day 2026-10-25": "an hour or a day of it was published again"},
    )
    daily(days, "2026-10-25")
    assert verified(days, opened) == (2, [], {})


def test_verify_finds_a_certificate_of_a_day_that_was_rewritten(
    days: World, opened: psycopg.Connection
) -> None:
    daily(days, "2026-10-24", last="2026-10-25")
    opened.execute("ALTER TABLE ledger.period_certificate DISABLE TRIGGER USER")
    opened.execute(
        "UPDATE ledger.period_certificate SET text = replace(text, '11110', '11111') WHERE number = 1"
    )
    opened.execute(
        "UPDATE ledger.period_certificate SET text = replace(text, '\"rows\":', '\"rows\": ') WHERE number = 2"
    )
    _, differences, _ = verified(days, opened)
    assert differences == [
        "day 2026-10-25: period certificate 2, its SHA-256",
        "day 2026-10-25: period certificate 2, its text in canonical form",
        "all periods: end of the chain of certificates",
    ]
    opened.execute("ALTER TABLE ledger.period_certificate ENABLE TRIGGER USER")
    with pytest.raises(psycopg.errors.RaiseException, match="a certificate is never changed or removed"):
        opened.execute("DELETE FROM ledger.period_certificate")


def test_row_21_a_chain_of_days_that_was_cut_short_or_belongs_to_another_is_found_by_an_anchor(
    days: World, opened: psycopg.Connection, tmp_path: Path
) -> None:
    file = tmp_path / "anchors"
    append_anchor(file, newest_of_chain(opened))
    daily(days, "2026-10-24", last="2026-10-25")
    second = newest(opened, PeriodCertificate)
    assert second is not None
    assert append_anchor(file, second) is not None
    assert append_anchor(file, second) is None
    assert append_anchor(file, newest_of_chain(opened)) is None
    assert f" period certificate 2 sha256 {second.sha256} after " in file.read_text()
    anchors, since = read_anchors(file), datetime(2026, 10, 1, tzinfo=UTC)
    lake = Lake(str(days.lake))
    assert verify(opened, lake, kept_since=since, anchors=anchors).differences == []
    opened.execute("ALTER TABLE ledger.period_certificate DISABLE TRIGGER USER")
    opened.execute("DELETE FROM ledger.period_certificate WHERE number = 2")
    opened.execute(
        "UPDATE ledger.period_certificate_head SET number = 1, sha256 = %s", [second.previous_sha256]
    )
    told = verify(opened, lake, kept_since=since, anchors=anchors).differences
    assert ("all periods", "period certificate 2, its anchored SHA-256", second.sha256, "nothing") in [
        (one.hour, one.what, one.expected, one.found) for one in told
    ]
    first = newest(opened, PeriodCertificate)
    assert first is not None
    with pytest.raises(AnchorsError, match="ends with period certificate 2"):
        append_anchor(file, first)


def test_the_check_of_a_day_runs_alone_and_one_table_brings_the_other(
    days: World, opened: psycopg.Connection
) -> None:
    def run(selection: dg.AssetSelection) -> dg.ExecuteInProcessResult:
        definitions = build_definitions()
        job = dg.define_asset_job("some", selection=selection)
        with dg.DagsterInstance.ephemeral() as instance:
            return (
                dg.Definitions(
                    assets=definitions.assets,
                    resources=definitions.resources,
                    jobs=[job],
                    executor=dg.in_process_executor,
                )
                .resolve_job_def("some")
                .execute_in_process(
                    instance=instance, tags={"dagster/partition": "2026-10-25"}, raise_on_error=False
                )
            )

    with pytest.MonkeyPatch.context() as environment:
        use_world(environment, days)
        environment.setenv("ANTENNA_BILLING_ZONE", BERLIN)
        assert run(dg.AssetSelection.assets("users_over_quota_1d").without_checks()).success
        assert len(stored_days(opened)) == 4
        check = dg.AssetSelection.checks(DAYS_ADD_UP.key)
        (found,) = run(check).get_asset_check_evaluations()
        assert (found.passed, found.metadata["day"].value) == (True, "2026-10-25")
        opened.execute("DELETE FROM bytes_agg_user_1d WHERE id = %s", [ANNA])
        (found,) = run(check).get_asset_check_evaluations()
        assert (found.passed, found.severity, found.description) == (
            False,
            dg.AssetCheckSeverity.ERROR,
            "1 user has other bytes on 2026-10-25 than in its hours",
        )


def test_a_day_of_a_range_that_fails_keeps_no_other(days: World, opened: psycopg.Connection) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = publish_periods(
            days, "daily_usage", "2026-10-25", "2026-10-26", zone=BERLIN, instance=instance, fails=True
        )
        assert "1 of 2 failed, and the others are published: 2026-10-26" in failure(result)
        recorded = instance.get_materialized_partitions(dg.AssetKey("bytes_agg_user_1d"))
    assert recorded == {"2026-10-25"}
    assert {day for day, _ in stored_days(opened)} == {date(2026, 10, 25)}


@pytest.mark.parametrize(
    "tags", [["2026-10-25"], ["2026-10-25", "2026-10-25"], ["2026-10-24", "2026-10-25"]], ids=len
)
def test_each_day_of_a_run_is_recorded_with_its_check_and_based_on_the_same_run(
    days: World, opened: psycopg.Connection, tmp_path: Path, tags: list[str]
) -> None:
    pointer = "dagster/input_event_pointer/bytes_agg_user_1d"
    with instance_in_postgres(days.url, tmp_path / "dagster") as dagster:
        runs = [
            publish_periods(days, "daily_usage", *tags, zone=BERLIN, instance=dagster).run_id
            for _ in range(2)
        ]
        users, over = (
            dagster.fetch_materializations(dg.AssetKey(asset), limit=10, ascending=True).records
            for asset in ("bytes_agg_user_1d", "users_over_quota_1d")
        )
        checks = opened.execute(
            "SELECT run_id, partition, execution_status FROM dagster.asset_check_executions ORDER BY id"
        ).fetchall()
    asked = [(run, day) for run in runs for day in sorted(set(tags))]
    assert [(one.run_id, one.partition_key) for one in users] == asked
    assert [(one.run_id, one.partition_key) for one in over] == asked
    assert {(run, day) for run, day, status in checks if status == "SUCCEEDED"} >= set(asked)
    assert "PLANNED" not in {status for _, _, status in checks}
    run_of = {str(one.storage_id): one.run_id for one in users}
    for one in over:
        assert one.asset_materialization is not None
        assert run_of[(one.asset_materialization.tags or {})[pointer]] == one.run_id
