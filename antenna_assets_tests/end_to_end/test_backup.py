"""docs/backup.md, its commands as they stand there: backed up while events land, destroyed, restored into a new home."""

import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from antenna_assets.clients.kafka_broker import Broker
from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import HOUR
from antenna_assets.domain.lifetimes import GRACE_PERIOD, SAFE_AGE
from antenna_assets.errors import EngineError
from antenna_assets.ledger import merge
from antenna_assets.ledger.errors import LedgerError
from antenna_assets.ledger.files import files_of_hour
from antenna_assets.ledger.offsets import committed_offsets
from antenna_assets.operations.sweep.run import sweep
from antenna_assets.publishing.lake import Lake
from antenna_assets.settings import Settings, load_settings
from antenna_assets.simulator.run import AnswersFile, simulate
from antenna_assets.simulator.scenario import Scenario
from antenna_assets.simulator.send import Target
from antenna_assets.stack import postgres
from antenna_assets.storage.attempt import LandingError
from antenna_assets.streaming.job import Stream
from antenna_assets.streaming.merge_files import Merged, merge_some
from antenna_assets_tests import guide
from antenna_assets_tests.certified import FIRST, Land, World, publish
from antenna_assets_tests.end_to_end.runs import publish_what_the_sensor_asks_for
from antenna_assets_tests.end_to_end.test_pipeline import wrong
from antenna_assets_tests.exactness import assert_exact
from antenna_assets_tests.faults.live import committed, running, wait_until
from antenna_assets_tests.faults.runs import send
from antenna_assets_tests.instances import instance_in_postgres
from antenna_assets_tests.test_sweep import age

pytestmark = pytest.mark.services

PROGRAMS = "## Back up"
DUMP, COPY = "### 1. PostgreSQL", "### 2. The lake"
SERVICES, POSTGRES, LAKE = "### 3. Services and roles", "### 4. PostgreSQL", "### 5. The lake"
CUT, VERIFY = "### 6. Cut the lake's tables to the ledger", "### 7. Verify and resume"
STAYED = "## What the lake needs for an older dump"


@dataclass(frozen=True)
class Place:
    """Where the commands run: the settings, and the folder of the backup."""

    environment: dict[str, str]

    def run(self, *headings: str) -> str:
        """Run the page's commands, each of which must succeed; returns what they said."""
        code, said = self.attempt(*headings)
        assert code == 0, said
        return said

    def attempt(self, *headings: str) -> tuple[int, str]:
        """Run them; exit code and what they said."""
        script = guide.commands("backup.md", PROGRAMS, *headings)
        if headings[0] not in (DUMP, SERVICES):
            # As in the shell in which the steps before were taken.
            script = f'eval "$(antenna env)"\n{script}'
        return guide.run(script, self.environment)


@contextmanager
def new_home(settings: Settings, home: Path, backup: Path) -> Iterator[Place]:
    """A home without anything in it, on the same Kafka; its PostgreSQL is stopped at the end."""
    try:
        yield Place(
            {
                "BACKUP": str(backup),
                "ANTENNA_HOME": str(home),
                "ANTENNA_KAFKA_BOOTSTRAP": settings.kafka_bootstrap or "",
                "ANTENNA_TOPIC": settings.topic,
            }
        )
    finally:
        postgres.stop(home)


def restored_settings(home: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The new home's settings, which the environment has from now on."""
    monkeypatch.setenv("ANTENNA_HOME", str(home))
    monkeypatch.setenv("ANTENNA_POSTGRES_URL", postgres.running(home) or "")
    return load_settings()


def wait_until_read(settings: Settings) -> None:
    """Whatever Kafka holds at this moment is committed."""
    broker = Broker(settings.kafka_bootstrap or "", settings.topic)
    topic = broker.describe()
    target = broker.next_offsets(topic)
    with connect(settings.postgres_url or "") as connection:

        def read() -> bool:
            known = committed_offsets(connection, topic.id, topic.partitions)
            return all(known.get(partition, 0) >= end for partition, end in target.items())

        wait_until(read)


def two_hours_are_closed(settings: Settings) -> bool:
    with connect(settings.postgres_url or "") as connection:
        return connection.execute(
            "SELECT count(*) FROM ledger.hour WHERE rows > 0 AND closed_at IS NOT NULL"
        ).fetchall() == [(2,)]


def generations(settings: Settings) -> dict[datetime, int]:
    """The ledger's generation of each hour with rows."""
    with connect(settings.postgres_url or "") as connection:
        return dict(connection.execute("SELECT hour, generation FROM ledger.hour WHERE rows > 0").fetchall())


def in_the_lake(settings: Settings, table: str, hours: Iterable[datetime]) -> dict[datetime, int | None]:
    """The generation of each hour that a table of the lake holds."""
    lake = Lake(settings.lake_uri)
    return {hour: lake.hour(table, hour).generation for hour in hours}


def test_what_was_backed_up_while_events_landed_is_whole_and_the_rest_is_read_from_kafka(
    settings: Settings,
    new_stream: Callable[..., Stream],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers, backup, home = tmp_path / "answers.json", tmp_path / "backup", tmp_path / "new"
    old = Place({**settings.exports(), "BACKUP": str(backup)})

    with (
        running(settings, None),
        instance_in_postgres(settings.postgres_url or "", tmp_path / "dagster") as dagster,
    ):
        start = send(settings, answers, events=2_000)
        wait_until_read(settings)
        wait_until(lambda: two_hours_are_closed(settings))
        assert publish_what_the_sensor_asks_for(dagster) >= 1
        # Two senders cannot add to one file of answers at the same time: this one's are written where it is alone.
        meanwhile = Scenario(events=4_000, seed=2, start=start, hours=2, late=0.02, malformed=0.02)
        sent = threading.Event()

        def keep_sending() -> None:
            simulate(
                settings,
                meanwhile,
                Target(settings.kafka_bootstrap or "", settings.topic),
                answers=AnswersFile(answers, append=True),
                rate=400,
            )
            sent.set()

        landing = threading.Thread(target=keep_sending)
        landing.start()
        old.run(DUMP)
        landing.join()
        assert sent.is_set()
        # Two generations of each hour that the dump does not know.
        for seed in (3, 4):
            send(settings, answers, seed=seed, events=1_000, start=start)
            wait_until_read(settings)
            assert publish_what_the_sensor_asks_for(dagster) >= 1
        last = threading.Thread(
            target=send,
            args=(settings, answers),
            kwargs={"seed": 5, "events": 1_000, "start": start, "rate": 400},
        )
        last.start()
        old.run(COPY)
        last.join()

    shutil.rmtree(settings.lake_uri)
    with connect(settings.postgres_url or "") as connection:
        connection.execute("DROP SCHEMA public, ledger, dagster CASCADE")

    with new_home(settings, home, backup) as new:
        new.run(SERVICES, POSTGRES, LAKE)
        restored = restored_settings(home, monkeypatch)
        assert Path(restored.lake_uri).parent == home
        assert 2_000 <= committed(restored) <= 6_000, "expected a dump from the middle of 9,000 messages"
        known = generations(restored)
        copied = in_the_lake(restored, "raw_parquet", known)
        assert all((copied[hour] or 0) >= known[hour] + 2 for hour in known), "expected a copy ahead"

        new.run(CUT)
        for table in ("raw_parquet", "enriched_usage"):
            assert in_the_lake(restored, table, known) == known
        assert "everything is as certified" in new.run(VERIFY)

        new_stream(restored).read_available()
        with instance_in_postgres(restored.postgres_url or "", tmp_path / "new-dagster") as dagster:
            assert publish_what_the_sensor_asks_for(dagster) >= 1
        assert_exact(restored)
        assert wrong(restored, answers) == []
        said = new.run(VERIFY)
        assert "everything is as certified" in said
        assert "pending" not in said


@pytest.fixture
def old_world(certified_world: World, tmp_path: Path) -> Iterator[World]:
    with certified_world.copy(tmp_path / "old") as world:
        yield world


def place_of(world: World, settings: Settings, backup: Path) -> Place:
    return Place(
        {
            **settings.exports(),
            "ANTENNA_POSTGRES_URL": world.url,
            "ANTENNA_LAKE": str(world.lake),
            "BACKUP": str(backup),
        }
    )


def late_rows_come(world: World) -> None:
    """A batch of the first hour lands and is published."""
    with connect(world.url) as connection:
        Land.on(connection, world.lake)({FIRST: 5})
    publish(world, [FIRST])


def test_an_hour_of_a_lake_that_is_ahead_is_published_only_after_the_cut(
    settings: Settings, old_world: World, tmp_path: Path
) -> None:
    old, home = place_of(old_world, settings, tmp_path / "backup"), tmp_path / "new"
    old.run(DUMP)
    for _ in range(2):
        late_rows_come(old_world)
    old.run(COPY)
    with new_home(settings, home, tmp_path / "backup") as new:
        new.run(SERVICES, POSTGRES, LAKE)
        world = World(postgres.running(home) or "", home / "lake")
        with (
            world.copy(tmp_path / "uncut") as uncut,
            pytest.raises(LedgerError, match="in ledger.hour_generation, found none"),
        ):
            late_rows_come(uncut)
        new.run(CUT)
        late_rows_come(world)
        assert "verified 3 hours and 4 certificates\neverything is as certified" in new.run(VERIFY)


def test_a_lake_that_was_copied_before_the_dump_lacks_what_the_dump_names(
    settings: Settings, old_world: World, tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    backup.mkdir()
    old = place_of(old_world, settings, backup)
    old.run(COPY)
    late_rows_come(old_world)
    old.run(DUMP)
    with new_home(settings, tmp_path / "new", backup) as new:
        new.run(SERVICES, POSTGRES, LAKE, CUT)
        code, said = new.attempt(VERIFY)
    assert code == 1
    assert "no file" in said


def test_a_lake_that_stayed_gets_back_what_was_merged_and_swept_since_an_older_dump(
    old_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "FILES_PER_MERGE", (3, 2, 2))
    lake, now = str(old_world.lake), datetime.now(UTC)

    def run(heading: str) -> None:
        code, said = guide.run(
            guide.commands("backup.md", heading), {"ANTENNA_LAKE": lake, "BACKUP": str(tmp_path)}
        )
        assert code == 0, said

    with connect(old_world.url) as connection:
        land = Land.on(connection, old_world.lake)
        for _ in range(3):
            land({FIRST: 1})
        named = [file.path for file in files_of_hour(connection, FIRST)][-3:]
    # The database as a dump has it, and the copy that is made after it.
    with old_world.copy(tmp_path / "dump") as dumped:
        run(COPY)
        with connect(old_world.url) as connection:
            assert merge_some(connection, lake, FIRST) == Merged(3, 3)
            Land.on(connection, old_world.lake)({FIRST: 1})
        age(old_world.lake / "landing", SAFE_AGE + HOUR, now=now)
        later = now + GRACE_PERIOD + timedelta(minutes=1)
        sweep(old_world.url, lake, dagster_home=tmp_path, horizon=timedelta(days=35), now=later)

        with connect(dumped.url) as connection:
            assert missing(connection, old_world.lake) == named
            with pytest.raises(LandingError, match="no such file: nothing was merged"):
                merge_some(connection, lake, FIRST)
            with pytest.raises(EngineError, match=f"No files found.*{named[0]}"):
                publish(World(dumped.url, old_world.lake), [FIRST])
            run(STAYED)
            assert missing(connection, old_world.lake) == []


def missing(connection: psycopg.Connection, lake: Path) -> list[str]:
    """The files that the ledger names and the lake does not have."""
    paths = connection.execute("SELECT path FROM ledger.file ORDER BY batch, path")
    return [path for (path,) in paths if not (lake / path).exists()]
