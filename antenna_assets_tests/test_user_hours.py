"""The hours of users: a partition for each day, dropped as a whole, and what that means to everything else."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from antenna_assets.clients.migrations import migrate
from antenna_assets.clients.postgres import DatabaseError, connect
from antenna_assets.definitions import build_definitions
from antenna_assets.domain.hours import HOUR, hour_key
from antenna_assets.ledger.certificate import require_certificate
from antenna_assets.ledger.live_tables import note_live_tables
from antenna_assets.ledger.user_hours import drop_user_days, hours_without_users, make_user_days
from antenna_assets.operations.forget.run import forget
from antenna_assets.operations.sweep.retention import UserHoursInUse
from antenna_assets.operations.sweep.run import sweep
from antenna_assets.operations.usage import hours_not_known
from antenna_assets.publishing.lake import Lake
from antenna_assets.verify.run import verify
from antenna_assets_tests.certified import FIRST, HOURS, KNOWN, World, publish
from antenna_assets_tests.commands import antenna, refused
from antenna_assets_tests.test_checks import checked
from antenna_assets_tests.test_upgrade import program_of_level

pytestmark = pytest.mark.services

DAY = timedelta(days=1)
KEPT = timedelta(days=7)


def partitions(connection: psycopg.Connection) -> list[str]:
    rows = connection.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'bytes_agg_user_1h'::regclass ORDER BY 1"
    ).fetchall()
    return [name for (name,) in rows]


def days_of(*hours: datetime) -> list[str]:
    return sorted({f"bytes_agg_user_1h_{hour:%Y%m%d}" for hour in hours})


@pytest.fixture
def opened(world: World) -> Iterator[psycopg.Connection]:
    with connect(world.url) as connection:
        yield connection


def swept(world: World, *, dry_run: bool = False) -> int:
    """Sweep when the days of the hours are no longer kept; how many days went."""
    now = FIRST.replace(hour=0) + 2 * DAY + KEPT
    home = world.lake.parent / "dagster"
    amounts = sweep(
        world.url,
        str(world.lake),
        dagster_home=home,
        horizon=timedelta(days=35),
        keep_user_hours=KEPT,
        now=now,
        dry_run=dry_run,
    )
    return amounts["days of users' hours that are not kept any more"].count


def users(connection: psycopg.Connection) -> list[tuple]:
    return connection.execute(
        "SELECT date, id, email, sum_user_bytes FROM bytes_agg_user_1h ORDER BY 1, 2"
    ).fetchall()


def differences(world: World, connection: psycopg.Connection) -> list:
    return verify(connection, Lake(str(world.lake)), kept_since=FIRST).differences


def test_a_publication_makes_the_partitions_of_its_days(opened: psycopg.Connection) -> None:
    assert partitions(opened) == days_of(*HOURS)


def test_days_are_made_once_and_refused_to_overlap_by_nobody(
    connection: psycopg.Connection, postgres_url: str
) -> None:
    late, midnight = datetime(2026, 2, 28, 23, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)
    with ThreadPoolExecutor(4) as pool:

        def make(_: int) -> None:
            with connect(postgres_url) as own:
                make_user_days(own, [midnight, late, midnight + HOUR, late])

        list(pool.map(make, range(8)))
    assert partitions(connection) == ["bytes_agg_user_1h_20260228", "bytes_agg_user_1h_20260301"]
    connection.execute("INSERT INTO bytes_agg_user_1h VALUES (%s, 'a', NULL, 1)", [late])
    in_partition = connection.execute("SELECT tableoid::regclass::text FROM bytes_agg_user_1h").fetchone()
    assert in_partition == ("bytes_agg_user_1h_20260228",)


def test_a_day_is_made_while_others_read_and_publish(
    connection: psycopg.Connection, postgres_url: str
) -> None:
    day = datetime(2026, 2, 28, tzinfo=UTC)
    make_user_days(connection, [day])
    with connect(postgres_url) as other, other.transaction():
        other.execute("INSERT INTO bytes_agg_user_1h VALUES (%s, 'a', NULL, 1)", [day])
        other.execute("SELECT count(*) FROM bytes_agg_user_1h")
        connection.execute("SET lock_timeout = '5s'")
        make_user_days(connection, [day + DAY])
    assert len(partitions(connection)) == 2


def test_days_that_are_not_kept_go_and_the_hours_stay_in_the_lake_and_certified(
    world: World, opened: psycopg.Connection
) -> None:
    before, certificate = users(opened), require_certificate(opened, FIRST)
    assert swept(world, dry_run=True) == len(days_of(*HOURS))
    assert users(opened) == before
    assert swept(world) == len(days_of(*HOURS))
    assert (users(opened), partitions(opened)) == ([], [])
    assert hours_without_users(opened, HOURS) == set(HOURS)
    assert differences(world, opened) == []
    assert swept(world) == 0
    # A late row or a correction of users publishes the hour again, with its users.
    publish(world, HOURS)
    assert users(opened) == before
    assert hours_without_users(opened, HOURS) == {HOURS[2]}
    assert differences(world, opened) == []
    again = require_certificate(opened, FIRST).content["published"]["bytes_agg_user_1h"]
    assert again["csv_sha256"] == certificate.content["published"]["bytes_agg_user_1h"]["csv_sha256"]


# A sweep waits for other locks for a minute. Here everybody else would wait with it.
@pytest.mark.timeout(40)
def test_days_that_somebody_reads_are_left_for_the_next_sweep(
    world: World, opened: psycopg.Connection
) -> None:
    with connect(world.url) as reader, reader.transaction():
        reader.execute("SELECT count(*) FROM bytes_agg_user_1h")
        with pytest.raises(UserHoursInUse, match="the next sweep tries again"):
            swept(world)
    assert len(users(opened)) > 0
    assert hours_without_users(opened, HOURS) == set()
    assert swept(world) == len(days_of(*HOURS))


def test_the_checks_of_an_hour_without_users_say_that_they_did_not_compare(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept(world)
    monkeypatch.setenv("ANTENNA_POSTGRES_URL", world.url)
    monkeypatch.setenv("ANTENNA_LAKE", str(world.lake))
    with dg.DagsterInstance.ephemeral() as instance:
        result = checked(instance, {"dagster/partition": hour_key(FIRST)})
        found = {
            (one.asset_key.to_user_string(), one.check_name): one.description
            for one in result.get_asset_check_evaluations()
            if one.asset_key.to_user_string().startswith("bytes_agg_user")
            or one.check_name == "over_quota_is_exact"
        }
    assert set(found.values()) == {"not compared: the hour's users are in the lake alone"}
    assert len(found) == 6


def test_another_table_that_is_published_again_leaves_what_is_certified_of_the_users(
    world: World, opened: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = require_certificate(opened, FIRST)
    assert certificate.content["unknown_users"]["users"] == 2
    swept(world)
    monkeypatch.setenv("ANTENNA_POSTGRES_URL", world.url)
    monkeypatch.setenv("ANTENNA_LAKE", str(world.lake))
    with dg.DagsterInstance.ephemeral() as instance:
        job = build_definitions().resolve_job_def("hourly_usage")
        only = [dg.AssetKey("bytes_agg_antenna_1h")]
        tags = {"dagster/partition": hour_key(FIRST)}
        assert job.execute_in_process(instance=instance, tags=tags, asset_selection=only).success
    assert require_certificate(opened, FIRST) == certificate
    assert differences(world, opened) == []


def test_who_is_forgotten_after_the_users_of_an_hour_were_dropped_is_nowhere(
    world: World, opened: psycopg.Connection
) -> None:
    before = require_certificate(opened, FIRST)
    swept(world)
    forget(opened, Lake(str(world.lake)), KNOWN[0], say=print)
    assert differences(world, opened) == []
    certificate = require_certificate(opened, FIRST)
    assert certificate.number > before.number
    published = [one.content["published"]["bytes_agg_user_1h"] for one in (before, certificate)]
    assert published[0] == published[1], "expected the digest of the rows that were dropped"
    publish(world, HOURS)
    assert KNOWN[0] not in {row[1] for row in users(opened)}
    assert differences(world, opened) == []


def test_the_usage_of_a_user_is_the_same_from_tables_and_from_the_lake(
    world: World, opened: psycopg.Connection
) -> None:
    def shown(*options: str) -> str:
        hours = ("--from", hour_key(FIRST), "--to", hour_key(FIRST + 3 * HOUR))
        run = antenna(
            "usage", KNOWN[2], *hours, *options, ANTENNA_POSTGRES_URL=world.url, ANTENNA_LAKE=str(world.lake)
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    published = {date: bytes_ for date, id_, _, bytes_ in users(opened) if id_ == KNOWN[2]}
    assert len(published) == 2
    before = [json.loads(line) for line in shown("--json").splitlines()]
    assert before == [
        {"hour": hour_key(hour), "bytes": bytes_, "source": "hourly"} for hour, bytes_ in published.items()
    ]
    swept(world)
    after = [json.loads(line) for line in shown("--json").splitlines()]
    assert after == [{**row, "source": "lake"} for row in before]
    assert f"{sum(published.values()):,} bytes in 2 hours" in shown()


def test_rows_from_before_there_were_days_stay_where_they_are_until_all_of_them_may_go(
    empty_database: str, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    with connect(empty_database) as connection:
        with program_of_level(25, tmp_path / "sql"):
            migrate(connection)
        connection.execute("INSERT INTO bytes_agg_user_1h VALUES (%s, 'a', NULL, 1)", [today - 90 * DAY])
        connection.execute(
            "CREATE VIEW of_somebody WITH (security_barrier = true) AS SELECT id, sum_user_bytes FROM bytes_agg_user_1h"
        )
        at = connection.execute(
            "SELECT relfilenode FROM pg_class WHERE relname = 'bytes_agg_user_1h'"
        ).fetchone()
        migrate(connection)
        assert partitions(connection) == ["bytes_agg_user_1h_before_days"]
        kept = connection.execute(
            "SELECT relfilenode FROM pg_class WHERE relname = 'bytes_agg_user_1h_before_days'"
        ).fetchone()
        assert kept == at, "expected that no row was copied"
        make_user_days(connection, [today, today + DAY, today + 2 * DAY])
        assert partitions(connection)[:-1] == days_of(today + 2 * DAY)
        insert = "INSERT INTO bytes_agg_user_1h VALUES (%s, 'b', NULL, 2)"
        for day in (today, today + 2 * DAY):
            connection.execute(insert, [day])
        of_somebody = connection.execute("SELECT id FROM of_somebody ORDER BY 1").fetchall()
        assert of_somebody == [("a",), ("b",), ("b",)], "expected a view on all partitions"
        options = connection.execute(
            "SELECT reloptions FROM pg_class WHERE relname = 'of_somebody'"
        ).fetchone()
        assert options == (["security_barrier=true"],)
        # What ended is still in use by its newest day.
        drop_user_days(connection, today + DAY)
        assert len(users(connection)) == 3
        drop_user_days(connection, today + 2 * DAY)
        assert [row[0] for row in users(connection)] == [today + 2 * DAY]
        # From now on each day has a partition.
        make_user_days(connection, [today])
        connection.execute(insert, [today])
        assert len(partitions(connection)) == 2


def test_an_upgrade_is_refused_while_something_reads_the_users_that_it_cannot_make_anew(
    empty_database: str, tmp_path: Path
) -> None:
    with connect(empty_database) as connection:
        with program_of_level(25, tmp_path / "sql"):
            migrate(connection)
        connection.execute("CREATE MATERIALIZED VIEW of_somebody AS SELECT id FROM bytes_agg_user_1h")
        with pytest.raises(
            DatabaseError, match="of_somebody reads bytes_agg_user_1h, which gets partitions: drop it"
        ):
            migrate(connection)
        assert connection.execute("SELECT to_regclass('ledger.user_hours')").fetchone() == (None,)
        connection.execute("DROP MATERIALIZED VIEW of_somebody")
        assert migrate(connection)[0] == "migrations/0028_user_days.sql"


def test_an_upgrade_that_broke_off_for_days_leaves_no_day_that_takes_no_rows(
    empty_database: str, tmp_path: Path
) -> None:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    with connect(empty_database) as connection:
        with program_of_level(27, tmp_path / "sql"):
            migrate(connection)
        connection.execute("INSERT INTO bytes_agg_user_1h VALUES (%s, 'a', NULL, 1)", [today - 90 * DAY])
        # As it is three days later.
        connection.execute("ALTER TABLE bytes_agg_user_1h DROP CONSTRAINT before_days")
        long_ago = "ALTER TABLE bytes_agg_user_1h ADD CONSTRAINT before_days CHECK (date < '{}')"
        connection.execute(long_ago.format(today - DAY).encode())
        migrate(connection)
        make_user_days(connection, [today])
        connection.execute("INSERT INTO bytes_agg_user_1h VALUES (%s, 'b', NULL, 2)", [today])
        assert len(users(connection)) == 2


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("antenna_stream", "SELECT ledger.make_user_days('{}')"),
        ("antenna_dashboards", "SELECT ledger.make_user_days('{}')"),
        ("antenna_publisher", "SELECT ledger.drop_user_days(now())"),
        ("antenna_dashboards", "SELECT ledger.drop_user_days(now())"),
    ],
)
def test_who_may_not_change_tables_may_not_by_these_functions_either(
    connection: psycopg.Connection, role: str, statement: str
) -> None:
    connection.execute(f"SET ROLE {role}".encode())
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement.encode())


def test_a_time_that_is_too_short_is_refused(world: World) -> None:
    said = refused("sweep", ANTENNA_POSTGRES_URL=world.url, ANTENNA_KEEP_USER_HOURS="6 days")
    assert "ANTENNA_KEEP_USER_HOURS: expected at least 7 days, found 6 days" in said


def test_hours_of_which_not_all_is_known_of_users_are_counted(connection: psycopg.Connection) -> None:
    """Two of three hours have events that are not published; without live sums these are nowhere."""
    hours = [FIRST + number * HOUR for number in range(3)]
    for hour, rows in zip(hours, (5, 0, 7), strict=True):
        connection.execute("INSERT INTO ledger.hour (hour, rows, bytes) VALUES (%s, %s, 10)", [hour, rows])
    assert hours_not_known(connection, hours) == 2
    for hour in hours:
        connection.execute("INSERT INTO bytes_agg_user VALUES (%s, 'a', 10)", [hour + HOUR / 2])
    assert hours_not_known(connection, hours) == 0
    # Left out for a time, during which some events of the first hour came.
    note_live_tables(connection, {"bytes_agg_app": HOUR})
    note_live_tables(connection, {"bytes_agg_app": HOUR, "bytes_agg_user": HOUR})
    connection.execute(
        "UPDATE ledger.live_table SET kept_from = %s WHERE name = 'bytes_agg_user'", [hours[2]]
    )
    assert hours_not_known(connection, hours) == 1
    connection.execute("DELETE FROM bytes_agg_user")
    assert hours_not_known(connection, hours) == 2
    connection.execute(
        "INSERT INTO ledger.hour_generation (hour, generation, up_to_batch, rows, bytes) VALUES (%s, 1, 0, 5, 10)",
        [hours[0]],
    )
    connection.execute(
        "INSERT INTO ledger.publication_head (asset, hour, generation) VALUES ('bytes_agg_user_1h', %s, 1)",
        [hours[0]],
    )
    assert hours_not_known(connection, hours) == 1
    assert hours_not_known(connection, hours[:2]) == 0
