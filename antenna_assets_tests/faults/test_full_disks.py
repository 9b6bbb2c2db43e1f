"""proofs.md, row 9: a disk is full, the lake's or PostgreSQL's: no torn hour can be read, and all goes on with space.

Disks are filled to different amounts, so that data, fsync, Delta's log or PostgreSQL's own files find no space.
"""

import os
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from antenna_assets.clients.migrations import migrate
from antenna_assets.clients.postgres import DatabaseError, connect
from antenna_assets.domain.schema import HOURLY_TABLES
from antenna_assets.ledger.stream_lock import stream_runs
from antenna_assets.settings import Settings
from antenna_assets.stack import postgres
from antenna_assets.storage.attempt import LakeUnwritable
from antenna_assets.streaming.job import Stream
from antenna_assets_tests.exactness import assert_exact, assert_whole
from antenna_assets_tests.faults.plain_stream import read_everything
from antenna_assets_tests.faults.publish import (
    commit_rows,
    generation_and_rows,
    publish_what_is_asked_for,
    published_in_the_lake,
    write_rows,
)
from antenna_assets_tests.faults.runs import send
from antenna_assets_tests.faults.small_disk import SmallDisk, small_disk
from antenna_assets_tests.faults.test_outages import committed, running, wait_until
from antenna_assets_tests.stream_engines import EACH_ENGINE_IN_THE_LONG_FORM

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.services

Record = Callable[[str, object], None]
SECONDS = 300
"""How long something that must happen is waited for."""

Key = tuple[str, str]
"""A table and an hour."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk for a lake."""
    with small_disk(tmp_path / "disk", megabytes=16) as disk:
        yield disk


@pytest.fixture
def on_disk(settings: Settings, disk: SmallDisk) -> Settings:
    """The test's settings with the lake on the small disk, as they are outside."""
    return settings.model_copy(update={"lake": str(disk.outside / "lake")})


@pytest.fixture
def postgres_disk() -> Iterator[SmallDisk]:
    """A disk with a PostgreSQL of its own in the folder `home`."""
    # Not in pytest's folder, which each pytest that starts closes again to the OS user of the server.
    with (
        tempfile.TemporaryDirectory(prefix="antenna-disk-") as folder,
        small_disk(Path(folder) / "disk", megabytes=192) as disk,
    ):
        try:
            yield disk
        finally:
            disk.call(postgres.stop, disk.path / "home")


@pytest.fixture
def on_postgres_disk(settings: Settings, postgres_disk: SmallDisk) -> Settings:
    """The test's settings with that PostgreSQL."""
    url = postgres_disk.call(postgres.start, postgres_disk.path / "home")
    with connect(url) as connection:
        migrate(connection)
    return settings.model_copy(update={"postgres_url": url})


def waits_for(settings: Settings) -> str | None:
    with connect(settings.postgres_url or "") as connection:
        row = connection.execute("SELECT waiting_for FROM ledger.head").fetchone()
    return row[0] if row else None


class Log:
    """What a process said, by line and without the times."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[str]:
        return (line.partition(" ")[2] for line in self._path.read_text().splitlines())


def lives(settings: Settings) -> bool:
    with connect(settings.postgres_url or "") as connection:
        return stream_runs(connection)


def lines(said: Iterable[str], beginning: str) -> int:
    return sum(line.startswith(beginning) for line in said)


def wait_for_lines(said: Iterable[str], beginning: str, count: int) -> None:
    wait_until(lambda: lines(said, beginning) == count, SECONDS)


def wait_for_rows(settings: Settings, count: int) -> None:
    wait_until(lambda: committed(settings) == count, SECONDS)


def attempts_left_over(settings: Settings) -> set[str]:
    """Folders of attempts that no batch names."""
    with connect(settings.postgres_url or "") as connection:
        paths = connection.execute("SELECT path FROM ledger.file").fetchall()
    named = {path.split("/")[1] for (path,) in paths}
    return {folder.name for folder in (Path(settings.lake_uri) / "landing").iterdir()} - named


@EACH_ENGINE_IN_THE_LONG_FORM
def test_row_9_the_lake_is_full_and_the_running_stream_waits_commits_nothing_half_and_goes_on(
    on_disk: Settings, disk: SmallDisk, tmp_path: Path, proving: bool, record_property: Record
) -> None:
    answers, log = tmp_path / "answers.json", tmp_path / "stream.log"
    inside = {**on_disk.exports(), "ANTENNA_LAKE": str(disk.path / "lake")}
    said = Log(log)
    sent, episodes = 500, 0
    send(on_disk, answers, seed=0, events=500)
    with disk.running(("antenna_assets.cli", "stream"), inside, log):
        wait_for_rows(on_disk, sent)
        # In pages of 4 KiB, of which each file takes one at least; 500 events fit into ten of Spark, and need
        # three files of the embedded reader.
        most = 2 if on_disk.stream_engine == "duckdb" else 6
        for pages in (number * most // 9 for number in range(10)) if proving else (0, min(most, 4)):
            disk.fill(leaving=pages * 4096)
            send(on_disk, answers, seed=sent, events=500)
            sent += 500
            wait_for_lines(said, "waiting: ", episodes + 1)
            wait_until(
                lambda: "no space left on" in (waits_for(on_disk) or "").lower(),
                SECONDS,
            )
            # Between two attempts the lock changes hands.
            wait_until(lambda: lives(on_disk), SECONDS)
            assert assert_whole(on_disk) < sent
            # That of the next attempt may be there for a moment.
            wait_until(lambda: attempts_left_over(on_disk) == set(), SECONDS)
            disk.give_back()
            wait_for_rows(on_disk, sent)
            episodes += 1
            wait_for_lines(said, "resuming from the ledger", episodes)
            assert waits_for(on_disk) is None
    assert lines(said, "waiting: ") == episodes
    assert_exact(on_disk, answers)
    record_property("full-disk episodes, lake, stream", episodes)
    record_property("wrong rows, lake full, stream", 0)


@EACH_ENGINE_IN_THE_LONG_FORM
def test_row_9_a_stream_that_is_started_on_a_full_lake_says_so_at_once(
    on_disk: Settings, disk: SmallDisk
) -> None:
    disk.fill()
    stream = Stream(
        on_disk,
        postgres_url=on_disk.postgres_url or "",
        kafka_bootstrap=on_disk.kafka_bootstrap or "",
        say=lambda _line: None,
        stop=threading.Event(),
    )
    with pytest.raises(LakeUnwritable, match=r"No space left on device \(0.0 MiB free\); free space"):
        stream.run()


def tables(settings: Settings) -> dict[Key, object]:
    """The rows of each hour of the hourly tables, by table and hour."""
    found: dict[Key, list[tuple]] = defaultdict(list)
    with connect(settings.postgres_url or "") as connection:
        for name in HOURLY_TABLES:
            for row in connection.execute(f"SELECT * FROM {name} ORDER BY 1, 2".encode()).fetchall():  # noqa: S608
                found[name, str(row[0])].append(row)
    return dict(found)


def torn(before: Mapping[Key, object], full: Mapping[Key, object], after: Mapping[Key, object]) -> int:
    """Hours that, while the disk was full, were neither as before nor as the publication that succeeded later has them."""
    assert before.keys() <= full.keys() <= after.keys()
    return sum(found not in (before.get(key), after[key]) for key, found in full.items())


def test_row_9_the_lake_is_full_and_an_hours_publication_fails_and_leaves_the_old_generation_readable(
    on_disk: Settings, disk: SmallDisk, tmp_path: Path, proving: bool, record_property: Record
) -> None:
    answers, dagster = tmp_path / "answers.json", str(tmp_path / "dagster")
    inside = {**on_disk.exports(), "ANTENNA_LAKE": str(disk.path / "lake")}

    def publish() -> list[str]:
        return disk.call(publish_what_is_asked_for, inside, dagster)

    def read() -> dict[Key, object]:
        return {**disk.call(published_in_the_lake, inside), **tables(on_disk)}

    send(on_disk, answers, seed=0, hours=1)
    read_everything(on_disk)
    space = free(disk)
    assert publish() == []
    needed = space - free(disk)
    failed = torn_hours = 0
    # From nothing at all, over room for data and none for Delta's log, to room for all but the last asset of the lake.
    amounts = [share / 10 for share in range(10)] if proving else [0.0, 0.5]
    for seed, share in enumerate(amounts, start=1):
        send(on_disk, answers, seed=seed, hours=1, events=200)
        read_everything(on_disk)
        before, files = read(), files_of_the_lake(disk)
        disk.fill(leaving=int(needed * share))
        errors = publish()
        full, files_then = read(), files_of_the_lake(disk)
        if errors:
            failed += 1
            assert all("No space left on device" in error for error in errors), errors
            assert any("free space on that disk" in error for error in errors), errors
            # Nothing is left of what failed.
            assert files_then == files or full != before
        disk.give_back()
        assert publish() == []
        torn_hours += torn(before, full, read())
        assert_exact(on_disk, answers, published=True)
    assert torn_hours == 0
    assert failed >= len(amounts) // 2
    record_property("full-disk episodes, lake, publication", failed)
    record_property("torn hours, lake full", torn_hours)
    record_property("wrong rows, lake full, publication", 0)


def test_row_9_deltas_log_finds_no_space_and_the_hour_stays_as_it_was_without_litter(disk: SmallDisk) -> None:
    root, hour = str(disk.path / "lake"), datetime(2026, 11, 22, 10, tzinfo=UTC)
    assert disk.call(commit_rows, root, hour, 1, disk.call(write_rows, root, hour, 1, 10)) is None
    files = set((disk.outside / "lake").rglob("*"))
    written = disk.call(write_rows, root, hour, 2, 20)
    disk.fill()
    error = disk.call(commit_rows, root, hour, 2, written)
    assert "raw_parquet cannot be written" in error
    assert "No space left on device" in error
    assert "free space on that disk" in error
    assert disk.call(generation_and_rows, root, hour) == (1, 10)
    assert set((disk.outside / "lake").rglob("*")) == files
    disk.give_back()
    assert disk.call(commit_rows, root, hour, 2, disk.call(write_rows, root, hour, 2, 20)) is None
    assert disk.call(generation_and_rows, root, hour) == (2, 20)


def free(disk: SmallDisk) -> int:
    found = os.statvfs(disk.outside)
    return found.f_bavail * found.f_frsize


def files_of_the_lake(disk: SmallDisk) -> set[str]:
    return {
        str(path)
        for table in ("raw_parquet", "enriched_usage")
        for path in (disk.outside / "lake" / table).rglob("*.parquet")
    }


def test_row_9_postgresql_is_full_and_the_stream_waits_and_goes_on(
    on_postgres_disk: Settings,
    postgres_disk: SmallDisk,
    spark: "SparkSession",
    tmp_path: Path,
    proving: bool,
    record_property: Record,
) -> None:
    settings, disk = on_postgres_disk, postgres_disk
    answers = tmp_path / "answers.json"
    sent, episodes = 500, 0
    send(settings, answers, seed=0, events=500)
    with running(settings, spark) as said:
        wait_for_rows(settings, sent)
        # The last time its write-ahead log finds no space either, at which PostgreSQL ends itself.
        for pages, log_too in (
            ((0, False), (1, False), (3, False), (6, False), (0, True))
            if proving
            else ((0, False), (0, True))
        ):
            disk.fill(leaving=pages * 8192)
            send(settings, answers, seed=sent, events=500)
            sent += 500
            wait_for_lines(said, "waiting: PostgreSQL", episodes + 1)
            assert committed(settings) < sent
            if log_too:
                end_for_want_of_log(settings)
            disk.give_back()
            disk.call(postgres.start, disk.path / "home")
            wait_for_rows(settings, sent)
            episodes += 1
            wait_for_lines(said, "resuming from the ledger", episodes)
    assert lines(said, "waiting: ") == episodes
    assert_exact(settings, answers)
    assert attempts_left_over(settings) == set()
    record_property("full-disk episodes, PostgreSQL, stream", episodes)
    record_property("wrong rows, PostgreSQL full, stream", 0)


def end_for_want_of_log(settings: Settings) -> None:
    """Let PostgreSQL need a new file of its write-ahead log until it breaks its connections."""
    message = "SELECT pg_logical_emit_message(true, 'test', 'message'), pg_switch_wal()"
    with connect(settings.postgres_url or "") as connection, pytest.raises(psycopg.OperationalError):
        write_until_it_breaks(connection, message)


def write_until_it_breaks(connection: psycopg.Connection, statement: str) -> None:
    for _ in range(5):
        connection.execute(statement.encode())


def test_row_9_postgresql_is_full_and_a_publication_that_fails_leaves_the_old_hour_readable(
    on_postgres_disk: Settings,
    postgres_disk: SmallDisk,
    tmp_path: Path,
    proving: bool,
    record_property: Record,
) -> None:
    settings, disk = on_postgres_disk, postgres_disk
    answers, dagster = tmp_path / "answers.json", str(tmp_path / "dagster")

    def publish() -> list[str]:
        return disk.call(publish_what_is_asked_for, settings.exports(), dagster)

    def read() -> dict[Key, object]:
        return {**tables(settings), **disk.call(published_in_the_lake, settings.exports())}

    send(settings, answers, seed=0, hours=1)
    read_everything(settings)
    assert publish() == []
    failed = torn_hours = readable = 0
    # Tables grow by pages of 8 KiB; 2,000 new users an hour need about 40 of them.
    amounts = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24) if proving else (0,)
    for seed, pages in enumerate(amounts, start=1):
        send(settings, answers, seed=seed, hours=1, events=2_000, users=100_000)
        read_everything(settings)
        before = read()
        disk.fill(leaving=pages * 8192)
        errors = publish()
        failed += bool(errors)
        full = None
        # It may have ended for want of space for its log.
        with suppress(psycopg.OperationalError, DatabaseError):
            full = read()
            readable += 1
        disk.give_back()
        disk.call(postgres.start, disk.path / "home")
        full = full or read()
        assert publish() == []
        torn_hours += torn(before, full, read())
        assert_exact(settings, answers, published=True)
    assert torn_hours == 0
    assert failed >= 1
    assert readable >= 1
    record_property("full-disk episodes, PostgreSQL, publication", failed)
    record_property("torn hours, PostgreSQL full", torn_hours)
    record_property("wrong rows, PostgreSQL full, publication", 0)
