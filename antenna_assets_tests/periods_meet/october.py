"""The last two days of an October, where days, months and quotas with a history meet what else there is."""

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, date, datetime

import psycopg

from antenna_assets.clients.postgres import connect
from antenna_assets.engines.duckdb import DuckDBEngine
from antenna_assets.operations.alerts.headroom import Headroom
from antenna_assets.operations.alerts.watch import look
from antenna_assets.publishing.lake import Lake
from antenna_assets.verify.run import verify
from antenna_assets_tests.certified import World
from antenna_assets_tests.period_world import (
    ANNA,
    BELA,
    KATHMANDU,
    STRANGER,
    Event,
    oracle_days,
    publish_periods,
)

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


def publish_days(world: World) -> None:
    publish_periods(world, "daily_usage", "2026-10-30", "2026-10-31")


def publish_month(world: World) -> None:
    publish_periods(world, "monthly_usage", "2026-10-01")


def october(events: Sequence[Event]) -> dict[tuple[date, str], int]:
    """What the oracle has of the month."""
    return {key: bytes_ for key, bytes_ in oracle_days(events, "UTC", ZONES).items() if key[0].month == 10}


def verified(world: World, kept_since: datetime = BEGINNING) -> tuple[list[str], dict[str, str]]:
    """What differs, and what is pending."""
    with connect(world.url) as connection:
        found = verify(connection, Lake(str(world.lake)), kept_since=kept_since)
    return [f"{one.hour}: {one.what}" for one in found.differences], found.pending


def watch(world: World, now: datetime | None) -> None:
    with connect(world.url) as connection, closing(DuckDBEngine(threads=1)) as engine:
        look(connection, engine, str(world.lake), Headroom(), now)


def notices(connection: psycopg.Connection, after: int = 0) -> list[tuple]:
    return connection.execute(
        "SELECT kind, user_id, body::json ->> 'period', (body::json ->> 'percent')::int FROM outbox"
        " WHERE number > %s ORDER BY number",
        [after],
    ).fetchall()
