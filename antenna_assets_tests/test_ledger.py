"""Generations, publications and what is left to publish, on a real PostgreSQL."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from antenna_assets.domain.schema import ASSETS
from antenna_assets.ledger.certificate import record_and_certify
from antenna_assets.ledger.closed_hours import require_closed
from antenna_assets.ledger.errors import HourNotClosed
from antenna_assets.ledger.files import generation_files
from antenna_assets.ledger.generations import Generation
from antenna_assets.ledger.hours_to_publish import HourToPublish, hours_to_publish, newest_closed_hour
from antenna_assets.ledger.seal import seal
from antenna_assets_tests.publications import publication

pytestmark = pytest.mark.services

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)


def land(
    connection: psycopg.Connection, batch: int, hour: datetime, rows: int, *, closed: bool = True
) -> None:
    """What the stream's transaction leaves for one file of one hour."""
    connection.execute(
        "INSERT INTO ledger.batch (batch, kind, clock, rows, bytes, quarantined, late_rows)"
        " VALUES (%s, 'stream', now(), %s, %s, 0, 0) ON CONFLICT DO NOTHING",
        [batch, rows, 10 * rows],
    )
    connection.execute(
        "INSERT INTO ledger.file (path, kind, hour, rows, bytes, size, batch) VALUES (%s, 'landed', %s, %s, %s, 1, %s)",
        [f"landing/{batch}-a/{hour:%Y%m%d%H}.parquet", hour, rows, 10 * rows, batch],
    )
    connection.execute(
        "INSERT INTO ledger.hour AS known (hour, rows, bytes, closed_at, closed_by) VALUES (%s, %s, %s, %s, %s)"
        " ON CONFLICT (hour) DO UPDATE SET rows = known.rows + excluded.rows, bytes = known.bytes + excluded.bytes",
        [hour, rows, 10 * rows, TEN if closed else None, "watermark" if closed else None],
    )


def publish(connection: psycopg.Connection, asset: str, generation: int, hour: datetime = TEN) -> None:
    record_and_certify(connection, [publication(asset, hour, generation)])


def test_the_first_generation_holds_the_files_of_all_batches_so_far(connection: psycopg.Connection) -> None:
    land(connection, 1, TEN, 2)
    land(connection, 2, TEN, 3)
    land(connection, 3, TEN + HOUR, 7)
    generation = seal(connection, TEN)
    assert generation == Generation(TEN, 1, 2, 5, 50)
    assert generation_files(connection, generation) == [
        "landing/1-a/2026112210.parquet",
        "landing/2-a/2026112210.parquet",
    ]


def test_many_late_batches_become_one_generation_and_the_old_one_stays_what_it_was(
    connection: psycopg.Connection,
) -> None:
    land(connection, 1, TEN, 2)
    first = seal(connection, TEN)
    assert seal(connection, TEN) == first
    land(connection, 2, TEN, 3)
    land(connection, 3, TEN, 4)
    assert seal(connection, TEN) == Generation(TEN, 2, 3, 9, 90)
    assert generation_files(connection, first) == ["landing/1-a/2026112210.parquet"]


def test_a_quiet_hour_has_an_empty_generation(connection: psycopg.Connection) -> None:
    connection.execute(
        "INSERT INTO ledger.hour (hour, closed_at, closed_by) VALUES (%s, now(), 'clock')", [TEN]
    )
    assert seal(connection, TEN) == seal(connection, TEN) == Generation(TEN, 1, 0, 0, 0)
    assert generation_files(connection, seal(connection, TEN)) == []


def test_open_and_unknown_hours_are_refused(connection: psycopg.Connection) -> None:
    land(connection, 1, TEN, 2, closed=False)
    land(connection, 2, TEN + HOUR, 2)
    require_closed(connection, [TEN + HOUR])
    with pytest.raises(HourNotClosed, match="2026-11-22-10:00 is still open"):
        require_closed(connection, [TEN + HOUR, TEN])
    with pytest.raises(HourNotClosed, match="2026-11-22-12:00 is not known to the ledger"):
        require_closed(connection, [TEN + 2 * HOUR])
    with pytest.raises(HourNotClosed):
        seal(connection, TEN)
    assert connection.execute("SELECT count(*) FROM ledger.hour_generation").fetchone() == (0,)


def test_an_older_generation_never_follows_a_newer_one(connection: psycopg.Connection) -> None:
    land(connection, 1, TEN, 2)
    seal(connection, TEN)
    land(connection, 2, TEN, 2)
    seal(connection, TEN)
    publish(connection, "raw_parquet", 2)
    publish(connection, "raw_parquet", 2)
    superseded = record_and_certify(connection, [publication("raw_parquet", TEN, 1)])
    assert "holds generation 2; the older generation 1 was not" in str(superseded[TEN])
    rows = connection.execute("SELECT generation FROM ledger.publication ORDER BY number").fetchall()
    assert rows == [(2,), (2,)]


def test_a_closed_hour_is_left_to_publish_until_all_six_assets_are_at_its_newest_generation(
    connection: psycopg.Connection,
) -> None:
    land(connection, 1, TEN, 2)
    land(connection, 1, TEN + HOUR, 2, closed=False)
    assert hours_to_publish(connection, limit=10) == [HourToPublish(TEN, 1, 0)]
    seal(connection, TEN)
    for asset in ASSETS:
        assert hours_to_publish(connection, limit=10) == [HourToPublish(TEN, 1, 1)]
        publish(connection, asset, 1)
    assert hours_to_publish(connection, limit=10) == []
    land(connection, 2, TEN, 1)
    assert hours_to_publish(connection, limit=10) == [HourToPublish(TEN, 2, 1)]
    seal(connection, TEN)
    for asset in ASSETS[:-1]:
        publish(connection, asset, 2)
    assert hours_to_publish(connection, limit=10) == [HourToPublish(TEN, 2, 2)]


def test_an_hour_whose_assets_looked_up_different_users_is_left_to_publish(
    connection: psycopg.Connection,
) -> None:
    land(connection, 1, TEN, 2)
    seal(connection, TEN)
    for asset in ASSETS:
        record_and_certify(connection, [publication(asset, TEN, users_version=1 + (asset == ASSETS[-1]))])
    assert hours_to_publish(connection, limit=10) == [HourToPublish(TEN, 1, 1)]
    for asset in ASSETS:
        record_and_certify(connection, [publication(asset, TEN, users_version=2)])
    assert hours_to_publish(connection, limit=10) == []


def test_the_oldest_hours_come_first_up_to_the_limit_and_then_the_newest(
    connection: psycopg.Connection,
) -> None:
    for number in (2, 0, 3, 1):
        land(connection, number + 1, TEN + number * HOUR, 1)
    assert [one.hour for one in hours_to_publish(connection, limit=2)] == [TEN, TEN + HOUR, TEN + 3 * HOUR]
    assert newest_closed_hour(connection, first=TEN, end=TEN + 9 * HOUR) == TEN + 3 * HOUR
    assert newest_closed_hour(connection, first=TEN, end=TEN + 3 * HOUR) == TEN + 2 * HOUR
    # The newest one is published: the others are no newest ones.
    seal(connection, TEN + 3 * HOUR)
    for asset in ASSETS:
        record_and_certify(connection, [publication(asset, TEN + 3 * HOUR)])
    assert [one.hour for one in hours_to_publish(connection, limit=2)] == [TEN, TEN + HOUR]
