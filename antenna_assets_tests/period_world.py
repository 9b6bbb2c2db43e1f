"""A small lakehouse of some days for the tests of periods, and an oracle of its days and months in plain Python.

The oracle shares no code with what it checks: it has the events as they were landed, and Python's own time zones.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from uuid import uuid4
from zoneinfo import ZoneInfo

import dagster as dg
import psycopg
import pyarrow as pa
import pytest

from antenna_assets.clients.postgres import connect
from antenna_assets.definitions import build_definitions
from antenna_assets.defs import local_runs
from antenna_assets.defs.period_sensor import ended_periods
from antenna_assets.domain.closing_rule import NO_BACKLOG
from antenna_assets.domain.hours import hour_of, hours_between
from antenna_assets.domain.schema import LANDED_SCHEMA
from antenna_assets.ledger.batch import BatchContent, BatchPlan
from antenna_assets.ledger.commit import Observation, commit_batch
from antenna_assets.ledger.offsets import OffsetRange
from antenna_assets_tests.certified import Land, World, publish

BERLIN, KATHMANDU, LORD_HOWE = "Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe"
ANNA, BELA, CARO, DORA = (f"00000000-0000-0000-0000-{number:012}" for number in (1, 2, 3, 4))
"""Known users, of which Bela lives in Kathmandu and Caro on Lord Howe Island."""
STRANGER = "a stranger"


class Event(NamedTuple):
    """Bytes of a user at an instant in UTC, given as text."""

    at: str
    id: str
    bytes: int

    @property
    def instant(self) -> datetime:
        return datetime.fromisoformat(self.at).replace(tzinfo=UTC)


def land(world: World, events: Sequence[Event], *, closes: str) -> None:
    """Commit a batch with these events; all hours before `closes` are closed by it."""
    with connect(world.url) as connection:
        known = connection.execute("SELECT count(*) FROM ledger.batch").fetchone() != (0,)
        lander = Land.on(connection, world.lake) if known else Land(connection, world.lake, seed=1)
        lander.batch += 1
        begin, folder = lander.offset, f"landing/{lander.batch}-{uuid4().hex[:12]}"
        files = []
        by_hour: dict[datetime, list[Event]] = defaultdict(list)
        for event in events:
            by_hour[hour_of(event.instant)].append(event)
        for hour, of_hour in sorted(by_hour.items()):
            rows = [
                {
                    "timestamp": event.instant,
                    "app": "SKYPE",
                    "id": event.id,
                    "antenna_id": "north",
                    "bytes": event.bytes,
                    "kafka_partition": 0,
                    "kafka_offset": lander._next_offset(),
                }
                for event in of_hour
            ]
            table = pa.Table.from_pylist(rows, LANDED_SCHEMA)
            files.append(
                lander._write(
                    f"{folder}/hour={hour:%Y%m%d%H}", table, hour, sum(event.bytes for event in of_hour)
                )
            )
        newest = datetime.fromisoformat(closes).replace(tzinfo=UTC) + timedelta(minutes=1)
        content = BatchContent(
            files=files,
            rejections={},
            event_times={0: newest},
            first_event_time=min((event.instant for event in events), default=newest),
        )
        commit_batch(
            connection,
            BatchPlan(
                "devices",
                lander.topic_id,
                lander.batch,
                datetime.now(UTC),
                [OffsetRange(0, begin, lander.offset)],
            ),
            content,
            Observation(datetime.now(UTC), dict.fromkeys([0], NO_BACKLOG)),
            lateness=timedelta(minutes=1),
        )


def publish_hours(world: World, first: str, end: str) -> None:
    """Publish the hours from the first to before the end with the real job, 24 at a time."""
    hours = hours_between(*(datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (first, end)))
    for number in range(0, len(hours), 24):
        publish(world, hours[number : number + 24])


def land_and_publish_hours(world: World, events: Sequence[Event], first: str, end: str) -> None:
    """Commit these events, and publish the hours from the first to before the end."""
    land(world, events, closes=end)
    publish_hours(world, first, end)


def publish_periods(
    world: World,
    job: str,
    first: str,
    last: str | None = None,
    *,
    zone: str = "UTC",
    instance: dg.DagsterInstance | None = None,
    fails: bool = False,
) -> dg.ExecuteInProcessResult:
    """Run `daily_usage` or `monthly_usage` for a partition, or for a range of them, in this process."""
    tags = (
        {"dagster/partition": first}
        if last is None
        else {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    )
    with pytest.MonkeyPatch.context() as environment, dg.DagsterInstance.ephemeral() as ephemeral:
        use_world(environment, world)
        environment.setenv("ANTENNA_BILLING_ZONE", zone)
        result = (
            build_definitions()
            .resolve_job_def(job)
            .execute_in_process(
                instance=instance or ephemeral,
                tags=tags,
                raise_on_error=False,
                run_config={
                    "loggers": {"console": {"config": {"log_level": "CRITICAL" if fails else "ERROR"}}}
                },
            )
        )
    assert result.success is not fails
    return result


def publish_hours_asked_for(on: dg.DagsterInstance) -> list[str]:
    """Tick and run until `closed_hours` asks for nothing; the hours of each run."""
    ran = []
    for hours, result in local_runs.publish(build_definitions(), on):
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


def use_world(environment: pytest.MonkeyPatch, world: World) -> None:
    """Point the settings in the environment to this world."""
    environment.setenv("ANTENNA_POSTGRES_URL", world.url)
    environment.setenv("ANTENNA_LAKE", str(world.lake))


def use_zones(connection: psycopg.Connection, billing: str, zones: Mapping[str, str]) -> None:
    """Set the billing zone, and the zones of users, before any day is published."""
    connection.execute("UPDATE ledger.billing_zone SET zone = %s", [billing])
    for user, zone in zones.items():
        connection.execute("UPDATE user_metadata SET zone = %s WHERE id = %s", [zone, user])


def set_quota(
    connection: psycopg.Connection, user: str, period: str, bytes_: int | None, since: str = "-infinity"
) -> None:
    """Give the user a quota of its own from an instant on, as text in UTC; without bytes it is unlimited."""
    connection.execute(
        "INSERT INTO user_quota_change (id, period, valid_from, quota) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT (id, period, valid_from) DO UPDATE SET quota = excluded.quota",
        [user, period, since if since == "-infinity" else f"{since}Z", bytes_],
    )


def oracle_days(
    events: Iterable[Event], billing: str, zones: Mapping[str, str]
) -> dict[tuple[date, str], int]:
    """The bytes of each user on each of its days, by the calendar of its zone."""
    days: dict[tuple[date, str], int] = defaultdict(int)
    for event in events:
        local = event.instant.astimezone(ZoneInfo(zones.get(event.id, billing)))
        days[local.date(), event.id] += event.bytes
    return dict(days)


def stored_days(connection: psycopg.Connection) -> dict[tuple[date, str], int]:
    """The same as it is published."""
    rows = connection.execute("SELECT day, id, sum_user_bytes FROM bytes_agg_user_1d")
    return {(day, user): int(bytes_) for day, user, bytes_ in rows}


def first_instants(connection: psycopg.Connection, day: str) -> dict[str, str]:
    """Where the day of each user begins in UTC."""
    rows = connection.execute("SELECT id, date FROM bytes_agg_user_1d WHERE day = %s", [day])
    return {user: f"{begins.astimezone(UTC):%Y-%m-%d %H:%M}" for user, begins in rows}


def generations(connection: psycopg.Connection) -> list[tuple]:
    """Each day and month with its generation, and whether it is settled."""
    return connection.execute(
        "SELECT period, day::text, generation, settled FROM ledger.period_state ORDER BY day, period"
    ).fetchall()


def certificates(connection: psycopg.Connection) -> int:
    """How many certificates of days and months there are."""
    return connection.execute("SELECT count(*) FROM ledger.period_certificate").fetchall()[0][0]
