"""PostgreSQL's clock: read, carried on between two readings, and held against the host's own."""

import platform
import time
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from antenna_assets.clients import clock
from antenna_assets.clients.clock import Clock, database_now, wrong_host
from antenna_assets.clients.postgres import connect

pytestmark = pytest.mark.services

SECOND = timedelta(seconds=1)


def test_the_clock_goes_on_inside_a_transaction_and_between_two_readings(
    connection: psycopg.Connection,
) -> None:
    one = Clock(connection)
    with connection.transaction():
        first = database_now(connection)
        time.sleep(0.02)
        assert timedelta(milliseconds=20) <= database_now(connection) - first < 5 * SECOND
    assert first.tzinfo == UTC
    assert abs(one.now() - database_now(connection)) < SECOND


def test_an_instant_is_right_whatever_time_zone_a_session_has(postgres_url: str) -> None:
    with connect(postgres_url) as connection:
        connection.execute("SET timezone = 'Asia/Kolkata'")
        assert database_now(connection).utcoffset() == timedelta(0)


def test_the_hosts_own_clock_moves_nothing_and_is_named(
    connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = database_now(connection)
    monkeypatch.setattr(clock, "host_now", lambda: datetime.now(UTC) + timedelta(days=365))
    one = Clock(connection)
    assert before <= one.now() < before + 5 * SECOND
    assert one.wrong_host is not None
    assert one.wrong_host.startswith(f"the clock of {platform.node()} is 365 days, 0:00:0")
    assert one.wrong_host.endswith(" ahead of PostgreSQL's")


def test_a_step_of_postgresqls_clock_is_taken_and_told(
    connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Clock(connection)
    assert abs(one.read(connection) - one.now()) < SECOND
    assert abs(one.step) < SECOND
    ahead = database_now(connection) + timedelta(hours=2)
    monkeypatch.setattr(clock, "database_now", lambda _connection: ahead)
    assert one.read(connection) == ahead
    assert timedelta(0) <= one.now() - ahead < SECOND
    assert abs(one.step - timedelta(hours=2)) < 5 * SECOND


def test_a_host_that_is_half_a_minute_off_is_right() -> None:
    assert wrong_host(30 * SECOND) is None
    assert wrong_host(-30 * SECOND) is None
    found = wrong_host(-31 * SECOND)
    assert found is not None
    assert found.endswith("is 0:00:31 behind PostgreSQL's")
