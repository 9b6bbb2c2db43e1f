"""proofs.md, row 39: a process that stands still within a transaction keeps its locks for a bounded time; whoever waits says
what for and goes on, and the one that wakes up is told.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from antenna_assets.clients import advisory_locks, migrations
from antenna_assets.clients.migrations import migrate
from antenna_assets.clients.postgres import connect, snapshot
from antenna_assets.clients.postgres_errors import DatabaseError
from antenna_assets.clients.postgres_session import PERSON, RUN, STREAM, Limits
from antenna_assets.defs import resources
from antenna_assets.domain.hours import HOUR, hour_key
from antenna_assets.ledger import blocked
from antenna_assets.ledger.blocked import blocked_by, lock_waits_reported
from antenna_assets.ledger.certificate import newest_certificate
from antenna_assets.ledger.stream_lock import require_only_stream
from antenna_assets.operations.status import tables
from antenna_assets.publishing.lake import Lake
from antenna_assets.settings import Settings
from antenna_assets.verify.run import verify
from antenna_assets_tests.certified import FIRST, Land, World, publish
from antenna_assets_tests.faults.publish import publish_hour
from antenna_assets_tests.faults.workers import Worker

pytestmark = pytest.mark.services

LATE = FIRST + HOUR
SHORT = timedelta(seconds=6)
PATIENCE = 15
"""Seconds that a busy machine may take beyond a limit; the limits of users are longer than both together."""


@pytest.fixture
def limit(proving: bool) -> timedelta:
    """How long a frozen run may hold up others: as it is in the long form, shorter in the suite."""
    return RUN.idle_in_transaction if proving else SHORT


@pytest.fixture
def world(world: World) -> World:
    """A copy in which an hour has late rows, so that a run seals a generation of it."""
    with connect(world.url) as connection:
        Land.on(connection, world.lake)({LATE: 40})
    return world


def settings_of(world: World, home: Path) -> Settings:
    return Settings(home=home, postgres_url=world.url, lake=str(world.lake))


def publish_with(limit: timedelta, key: str) -> None:
    """Publish an hour in sessions with another limit."""
    resources.RUN = Limits(idle_in_transaction=limit)  # type: ignore[attr-defined]
    publish_hour(key)


def land_with(limit: timedelta, url: str, lake: Path, hour: datetime) -> None:
    """Commit a batch as the stream, with another limit."""
    with connect(url, limits=Limits(idle_in_transaction=limit)) as connection:
        require_only_stream(connection)
        Land.on(connection, lake)({hour: 7})


def migrate_with(limit: timedelta, url: str) -> None:
    """Migrate with another limit."""
    with connect(url, limits=Limits(idle_in_transaction=limit)) as connection:
        migrate(connection)


@contextmanager
def frozen(
    world: World, folder: Path, crash_at: str, what: Callable[..., None], *arguments: object
) -> Iterator[Worker]:
    with Worker(
        settings_of(world, folder), folder / "said", what, *arguments, crash_at=f"{crash_at}:pause"
    ) as worker:
        worker.wait_until_paused()
        yield worker


def must_have_been_told(worker: Worker) -> None:
    """Wait until a thawed process has ended: with an error that says what happened to it."""
    worker.wake()
    end = time.monotonic() + 60
    while worker.running:
        assert time.monotonic() < end, "expected a thawed process to end"
        time.sleep(0.05)
    said = worker.said.read_text()
    assert "was idle in a transaction" in said or "idle-in-transaction timeout" in said, said


def test_row_39_a_frozen_run_that_holds_an_hour_lets_the_stream_go_on_and_is_told_when_it_wakes(
    world: World, tmp_path: Path, limit: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocked, "_SECONDS_BETWEEN_LOOKS", 0.1)
    monkeypatch.setattr(blocked, "_SECONDS_TO_BE_SURE", 0.1)
    said: list[str] = []
    with frozen(
        world, tmp_path, "publish.seal.last_statement", publish_with, limit, hour_key(LATE)
    ) as worker:
        with connect(world.url, application="antenna stream", limits=STREAM) as connection:
            require_only_stream(connection)
            began = time.monotonic()
            with lock_waits_reported(world.url, lambda _name, text: said.append(text)):
                Land.on(connection, world.lake)({LATE: 5})
            assert time.monotonic() - began < limit.total_seconds() + PATIENCE
        assert said, "expected the stream to say what it waited for"
        assert "a lock that session" in said[0]
        assert "(antenna dagster)" in said[0]
        must_have_been_told(worker)
        assert "was idle in a transaction" in worker.said.read_text()
    # The sensor asks for it again, since its newest generation has no certificate.
    publish(world, [LATE])
    with connect(world.url) as connection:
        assert newest_certificate(connection, LATE).generation == 2  # type: ignore[union-attr]
        assert verify(connection, Lake(str(world.lake)), kept_since=FIRST).differences == []


def test_row_39_status_shows_whose_lock_the_stream_waits_for(world: World) -> None:
    with (
        connect(world.url, limits=STREAM) as stream,
        connect(world.url, application="somebody") as holder,
        connect(world.url) as reader,
        ThreadPoolExecutor(1) as pool,
    ):
        require_only_stream(stream)
        assert blocked_by(reader) is None
        number = holder.info.backend_pid
        with holder.transaction():
            holder.execute("SELECT FROM ledger.head FOR UPDATE")
            waiting = pool.submit(stream.execute, "SELECT FROM ledger.head FOR UPDATE")
            end = time.monotonic() + PATIENCE
            while (found := blocked_by(reader)) is None:
                assert time.monotonic() < end
                time.sleep(0.02)
            _, shown, *_ = tables(reader, "devices", None, "not asked")
        waiting.result()
    assert found == f"a lock that session {number} of postgres holds (somebody)"
    assert found in [str(cell) for column in shown.columns for cell in column.cells]


def test_row_39_a_frozen_run_within_a_table_lets_another_run_publish_the_hour(
    world: World, tmp_path: Path, limit: timedelta
) -> None:
    with frozen(world, tmp_path, "publish.table.deleted", publish_with, limit, hour_key(LATE)) as worker:
        began = time.monotonic()
        publish(world, [LATE])
        assert time.monotonic() - began < limit.total_seconds() + 40
        must_have_been_told(worker)
    with connect(world.url) as connection:
        assert verify(connection, Lake(str(world.lake)), kept_since=FIRST).differences == []


def test_row_39_a_frozen_stream_within_a_batch_lets_another_take_its_place_and_nothing_is_doubled(
    world: World, tmp_path: Path
) -> None:
    with frozen(
        world, tmp_path, "stream.commit.offsets", land_with, SHORT, world.url, world.lake, LATE
    ) as worker:
        began = time.monotonic()
        with connect(world.url, limits=STREAM) as connection:
            Land.on(connection, world.lake)({LATE: 5})
            # With its session the lock of the one stream has gone.
            require_only_stream(connection)
        assert time.monotonic() - began < SHORT.total_seconds() + PATIENCE
        must_have_been_told(worker)
    with connect(world.url) as connection:
        # 80 rows of the world's own hour, 40 late ones, and these 5: what the frozen one had written is gone.
        assert connection.execute("SELECT rows FROM ledger.hour WHERE hour = %s", [LATE]).fetchone() == (125,)
        assert verify(connection, Lake(str(world.lake)), kept_since=FIRST).differences == []


def test_row_39_a_frozen_migration_lets_the_next_one_go_on(
    world: World, empty_database: str, tmp_path: Path
) -> None:
    with frozen(
        world, tmp_path, "up.migration.last_statement:3", migrate_with, SHORT, empty_database
    ) as worker:
        with connect(empty_database) as connection:
            applied = migrate(connection)
            assert applied[0] == "migrations/0003_views.sql"
        must_have_been_told(worker)


def test_row_39_who_waits_for_a_migration_for_too_long_is_told(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "_LONGEST_MIGRATION", "100ms")
    with connect(postgres_url) as one, connect(postgres_url) as other:
        one.execute("SELECT pg_advisory_lock(%s)", [advisory_locks.MIGRATIONS])
        with pytest.raises(DatabaseError, match="another `antenna up` has been migrating this database"):
            migrate(other)


def test_row_39_limits_end_no_statement_and_no_reader(postgres_url: str) -> None:
    with connect(postgres_url, limits=Limits(idle_in_transaction=timedelta(seconds=1))) as connection:
        connection.execute("SELECT pg_sleep(1.5)")
        with snapshot(connection):
            assert connection.execute("SELECT 1").fetchone() == (1,)
            time.sleep(1.5)
            assert connection.execute("SELECT 2").fetchone() == (2,)
        connection.execute("BEGIN")
        # Its pipeline ends with a message after which PostgreSQL would not measure how long nothing comes.
        connection.cursor().executemany("SELECT %s", [(1,), (2,)])
        time.sleep(1.5)
        with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
            connection.execute("SELECT 3")


def test_row_39_who_is_waited_for_gives_up_before_the_one_who_waits() -> None:
    assert timedelta(0) < RUN.idle_in_transaction < STREAM.lock < timedelta(minutes=1)
    assert RUN.idle_in_transaction < PERSON.idle_in_transaction
