"""Row 35: a sweep on a machine with another clock, with an older copy of the ledger, or beside a stream and runs, removes
nothing that is or will be committed; and nothing is committed without its files."""

import shutil
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import HOUR
from antenna_assets.domain.lifetimes import LONGEST_RUN, SAFE_AGE, AttemptTooOld
from antenna_assets.ledger.lake_identity import WrongLake, adopt, require_own_lake
from antenna_assets.operations.sweep import orphans
from antenna_assets.operations.sweep import run as sweep_module
from antenna_assets.operations.sweep.run import sweep
from antenna_assets.storage.attempt import FilesGone
from antenna_assets.storage.files import Entry, file_system_now
from antenna_assets_tests.test_sweep import HORIZON, MINUTE, OLD, RECENT, House, age

pytestmark = pytest.mark.services


@pytest.fixture
def house(connection: psycopg.Connection, postgres_url: str, tmp_path: Path) -> House:
    """A published hour."""
    house = House(connection, postgres_url, tmp_path / "lake")
    house.receive(RECENT)
    house.publish(RECENT)
    return house


@pytest.fixture
def clock_ahead(monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], None]:
    """Moves this machine's clock as every module of ours sees it."""

    def by(shift: timedelta) -> None:
        class Elsewhere(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
                return datetime.now(tz) + shift

        for name, module in list(sys.modules.items()):
            if name.startswith("antenna_assets.") and getattr(module, "datetime", None) is datetime:
                monkeypatch.setattr(module, "datetime", Elsewhere)

    return by


def run_sweep(house: House) -> None:
    sweep(house.url, str(house.root), dagster_home=house.root.parent / "dagster", horizon=HORIZON)


@pytest.mark.parametrize("hours", [-5, 5, 24 * 365])
def test_row_35_a_sweep_on_a_machine_with_another_clock_takes_no_attempt_that_will_be_committed(
    house: House, clock_ahead: Callable[[timedelta], None], hours: int
) -> None:
    under_way = house.land(RECENT)
    files = house.write("raw_parquet", RECENT, 2)
    orphan = house.root / "landing" / "1-abc"
    shutil.copytree(house.root / under_way.files[0].path.split("/hour")[0], orphan)
    age(orphan, SAFE_AGE + MINUTE, now=datetime.now(UTC))
    live = [("bytes_agg_user", datetime.now(UTC).replace(minute=0, second=0, microsecond=0))]
    house.connection.execute("INSERT INTO bytes_agg_user VALUES (%s, 'u1', 1)", [live[0][1]])
    clock_ahead(timedelta(hours=hours))
    run_sweep(house)
    # What is old by the file system's clock goes all the same.
    assert not orphan.exists()
    assert house.connection.execute("SELECT count(*) FROM bytes_agg_user").fetchone() == (1,)
    house.commit(replace(under_way, lake=str(house.root)), clock=RECENT + 3 * HOUR)
    house.lake.replace_hour("raw_parquet", RECENT, 2, files)
    assert all(Path(file.path).exists() for file in files)


@pytest.mark.parametrize("hours", [-5, 5])
def test_row_35_a_run_on_a_machine_with_another_clock_publishes(
    house: House, clock_ahead: Callable[[timedelta], None], hours: int
) -> None:
    clock_ahead(timedelta(hours=hours))
    files = house.write("raw_parquet", RECENT, 2)
    house.lake.replace_hour("raw_parquet", RECENT, 2, files)
    late = house.write("raw_parquet", RECENT, 3)
    age(Path(late[0].path), LONGEST_RUN + MINUTE, now=datetime.now(UTC))
    with pytest.raises(AttemptTooOld):
        house.lake.replace_hour("raw_parquet", RECENT, 3, late)


@pytest.mark.parametrize("harm", ["removed", "cut short", "a rejected one removed", "the folder removed"])
def test_row_35_a_batch_whose_files_are_gone_is_not_committed(house: House, harm: str) -> None:
    landed = replace(house.land(RECENT), lake=str(house.root))
    good, bad = (house.root / file.path for file in landed.files)
    if harm == "removed":
        good.unlink()
    elif harm == "cut short":
        good.write_bytes(good.read_bytes()[:-1])
    elif harm == "a rejected one removed":
        bad.unlink()
    else:
        shutil.rmtree(good.parents[1])
    with pytest.raises(FilesGone, match="nothing was committed, and its messages are read from Kafka again"):
        house.commit(landed, clock=RECENT + 3 * HOUR)
    assert house.connection.execute("SELECT max(batch) FROM ledger.batch").fetchone() == (1,)
    # The next attempt is another one.
    house.commit(replace(house.land(RECENT), lake=str(house.root)), clock=RECENT + 3 * HOUR)


def test_row_35_a_batch_is_not_committed_to_a_ledger_that_has_another_lake_by_now(
    house: House, tmp_path: Path
) -> None:
    lake = str(house.root)
    require_own_lake(house.connection, lake)
    landed = replace(house.land(RECENT), lake=lake)
    moved = tmp_path / "moved"
    shutil.copytree(house.root, moved)
    adopt(house.connection, str(moved))
    with pytest.raises(WrongLake, match="do not belong together"):
        house.commit(landed, clock=RECENT + 3 * HOUR)
    adopt(house.connection, lake)
    house.commit(landed, clock=RECENT + 3 * HOUR)


def test_row_35_a_commit_and_a_sweep_of_the_same_attempt_come_one_after_the_other(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the clocks say: a batch whose attempt looks old is committed with its files, or not at all."""
    landed = replace(house.land(RECENT), lake=str(house.root))
    monkeypatch.setattr(orphans, "SAFE_AGE", -HOUR)
    monkeypatch.setattr(orphans, "_last_ledger_write", lambda _connection, clock: clock + HOUR)
    remove, at_removal, go_on = sweep_module.remove, threading.Event(), threading.Event()

    def slow(found: list[Entry]) -> None:
        at_removal.set()
        assert go_on.wait(30)
        remove(found)

    monkeypatch.setattr(sweep_module, "remove", slow)
    sweeping = threading.Thread(target=run_sweep, args=[house])
    sweeping.start()
    assert at_removal.wait(30)
    outcome: list[BaseException | None] = []

    def commit() -> None:
        with connect(house.url) as stream:
            writer = House.__new__(House)
            writer.__dict__.update(house.__dict__, connection=stream)
            try:
                writer.commit(landed, clock=RECENT + 3 * HOUR)
                outcome.append(None)
            except FilesGone as error:
                outcome.append(error)

    committing = threading.Thread(target=commit)
    committing.start()
    committing.join(0.3)
    assert committing.is_alive(), "expected the commit to wait for the removal"
    go_on.set()
    committing.join(30)
    sweeping.join(30)
    assert [type(one) for one in outcome] == [FilesGone]
    named = house.connection.execute("SELECT path FROM ledger.file").fetchall()
    assert all((house.root / path).exists() for (path,) in named)


def test_row_35_an_older_copy_of_the_ledger_sweeps_nothing_of_what_landed_since(house: House) -> None:
    """As a dump from yesterday would that somebody restored beside the original and gave the same lake."""
    house.connection.execute("UPDATE ledger.batch SET committed_at = clock_timestamp() - interval '1 day'")
    for _ in range(3):
        house.commit(house.land(RECENT), clock=RECENT + 3 * HOUR)
    age(house.root / "landing", SAFE_AGE + HOUR, now=datetime.now(UTC))
    for table in ("file", "batch_offset", "rejection", "batch"):
        delete = sql.SQL("DELETE FROM {} WHERE batch > 1").format(sql.Identifier("ledger", table))
        house.connection.execute(delete)
    house.connection.execute("UPDATE ledger.head SET batch = 1, heartbeat_at = NULL")
    before = house.listing()
    run_sweep(house)
    assert house.listing() == before
    # Once it is alive again, what nobody names goes.
    house.connection.execute("UPDATE ledger.head SET heartbeat_at = clock_timestamp()")
    run_sweep(house)
    assert len(list((house.root / "landing").iterdir())) == 1


def test_row_35_ages_are_those_of_the_file_system(tmp_path: Path) -> None:
    before = file_system_now(tmp_path)
    (tmp_path / "a file").touch()
    changed = datetime.fromtimestamp((tmp_path / "a file").stat().st_mtime, UTC)
    assert before <= changed <= file_system_now(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a file"]


def test_row_35_what_expires_is_judged_by_postgresqls_clock(
    house: House, clock_ahead: Callable[[timedelta], None]
) -> None:
    house.receive(OLD)
    house.publish(OLD)
    clock_ahead(-timedelta(days=365))
    run_sweep(house)
    expired = house.connection.execute(
        "SELECT kind, abs(extract(epoch FROM clock_timestamp() - expired_at)) < 60 FROM ledger.expired_file"
    ).fetchall()
    assert sorted(expired) == [("landed", True), ("rejected", True)]
