"""Row 35: a lake and a ledger that do not belong together are refused by whatever writes or sweeps; who belongs to whom
survives two claims at once, a kill, a move and a restore."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from antenna_assets.cli import app
from antenna_assets.clients.postgres import connect
from antenna_assets.ledger.lake_identity import (
    Evidence,
    WrongLake,
    adopt,
    claimed_lake,
    evidence,
    id_of_lake,
    require_own_lake,
    require_same_lake,
)
from antenna_assets.settings import Settings
from antenna_assets.streaming.job import Stream
from antenna_assets_tests.certified import FIRST, Land, World, publish
from antenna_assets_tests.conftest import _new_database
from antenna_assets_tests.test_sweep import MINUTE, RECENT, SAFE_AGE, House, age

pytestmark = pytest.mark.services

CLAIM = ("claim.recorded", "claim.lake_written")
ADOPT = ("adopt.recorded", "adopt.lake_written")
POINTS = (*CLAIM, *ADOPT)


@pytest.fixture
def house(connection: psycopg.Connection, postgres_url: str, tmp_path: Path) -> House:
    """A lake with a batch that its ledger names."""
    house = House(connection, postgres_url, tmp_path / "lake")
    house.receive(RECENT)
    return house


@pytest.fixture
def another_ledger(postgres_server: str, migrated_template: str) -> Iterator[psycopg.Connection]:
    """A ledger that names nothing."""
    with _new_database(postgres_server, migrated_template) as url, connect(url) as opened:
        yield opened


def address(connection: psycopg.Connection) -> str:
    info = connection.info
    return f"postgresql://{info.user}:{info.password}@{info.host}:{info.port}/{info.dbname}"


@pytest.mark.parametrize("claimed", [True, False], ids=["claimed", "from before lakes were claimed"])
def test_row_35_a_sweep_with_another_ledger_removes_nothing(
    house: House, another_ledger: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, claimed: bool
) -> None:
    for _ in range(3):
        house.receive(RECENT)
    if claimed:
        require_own_lake(house.connection, str(house.root))
    age(house.root, SAFE_AGE + MINUTE)
    before = house.listing()
    monkeypatch.setenv("ANTENNA_LAKE", str(house.root))
    monkeypatch.setenv("ANTENNA_POSTGRES_URL", address(another_ledger))
    for arguments in (["sweep"], ["sweep", "--dry-run"]):
        run = CliRunner().invoke(app, arguments)
        assert isinstance(run.exception, WrongLake), run.output
        assert "ANTENNA_POSTGRES_URL" in str(run.exception)
    assert house.listing() == before
    monkeypatch.setenv("ANTENNA_POSTGRES_URL", house.url)
    assert CliRunner().invoke(app, ["sweep"]).exit_code == 0
    assert house.listing() == before


def test_row_35_a_stream_without_its_lake_lands_nothing_elsewhere(
    settings: Settings, another_ledger: psycopg.Connection
) -> None:
    house = House(another_ledger, address(another_ledger), settings.home / "the lake")
    house.receive(RECENT)
    require_own_lake(another_ledger, str(house.root))
    # ANTENNA_LAKE is not set: `lake` in the state directory.
    stream = Stream(
        settings,
        postgres_url=house.url,
        kafka_bootstrap=settings.kafka_bootstrap or "",
        say=lambda _line: None,
        stop=threading.Event(),
    )
    for start in (stream.read_available, stream.run):
        with pytest.raises(
            WrongLake, match=f"expected its lake .* claimed at {house.root}, but found .*home|lake"
        ):
            start()
    assert not Path(settings.lake_uri).exists()


def test_row_35_the_first_writer_claims_and_again_is_harmless(house: House) -> None:
    lake = str(house.root)
    assert (id_of_lake(lake), claimed_lake(house.connection)) == (None, None)
    require_own_lake(house.connection, lake)
    id_ = id_of_lake(lake)
    known = claimed_lake(house.connection)
    assert known is not None
    assert (known.id, known.place, known.confirmed) == (id_, lake, True)
    require_own_lake(house.connection, lake)
    require_same_lake(house.connection, lake)
    assert id_of_lake(lake) == id_
    # Nothing is left beside it.
    assert sorted(path.name for path in house.root.iterdir()) == ["lake-id", "landing"]


def test_row_35_what_does_not_belong_together_is_not_claimed(
    house: House, another_ledger: psycopg.Connection, tmp_path: Path
) -> None:
    with pytest.raises(WrongLake, match="has none of the ledger's files"):
        require_own_lake(house.connection, str(tmp_path / "empty"))
    with pytest.raises(WrongLake, match="holds data, such as .*landing.*, and the ledger names no file"):
        require_own_lake(another_ledger, str(house.root))
    assert not (tmp_path / "empty").exists()
    assert claimed_lake(another_ledger) is None
    require_own_lake(house.connection, str(house.root))
    with pytest.raises(WrongLake, match="the ledger has no lake yet and expected one that no other ledger"):
        require_own_lake(another_ledger, str(house.root))
    # An empty lake is anybody's.
    require_own_lake(another_ledger, str(tmp_path / "empty"))
    with pytest.raises(WrongLake, match="do not belong together"):
        require_own_lake(another_ledger, str(house.root))


def test_row_35_of_two_lakes_claimed_at_once_the_ledger_has_one(
    another_ledger: psycopg.Connection, tmp_path: Path
) -> None:
    url = address(another_ledger)

    def claim(number: int) -> bool:
        with connect(url) as connection:
            try:
                require_own_lake(connection, str(tmp_path / f"lake-{number % 2}"))
            except WrongLake:
                return False
            return True

    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(claim, range(8)))
    assert claimed in ([True, False] * 4, [False, True] * 4)
    assert sum((tmp_path / f"lake-{number}" / "lake-id").exists() for number in range(2)) == 1


def test_row_35_of_two_ledgers_that_claim_a_lake_at_once_one_has_it(
    connection: psycopg.Connection, another_ledger: psycopg.Connection, tmp_path: Path
) -> None:
    for number in range(8):
        lake = str(tmp_path / f"{number}")
        for one in (connection, another_ledger):
            one.execute("DELETE FROM ledger.lake")

        def claim(one: psycopg.Connection, lake: str = lake) -> str | None:
            try:
                require_own_lake(one, lake)
            except WrongLake:
                return None
            return id_of_lake(lake)

        with ThreadPoolExecutor(2) as pool:
            claimed = list(pool.map(claim, (connection, another_ledger)))
        assert sorted(claimed, key=str) == sorted([None, id_of_lake(lake)], key=str)


@pytest.mark.parametrize("point", CLAIM)
def test_row_35_a_claim_that_was_killed_is_finished_and_gives_no_id_twice(
    another_ledger: psycopg.Connection, tmp_path: Path, point: str
) -> None:
    one, other = str(tmp_path / "one"), str(tmp_path / "other")
    killed_at(point, "require_own_lake", address(another_ledger), one)
    require_own_lake(another_ledger, one)
    require_own_lake(another_ledger, one)
    another_ledger.execute("DELETE FROM ledger.lake")
    shutil.rmtree(one)
    # The next writer has another lake: an id that may be in the first is not used again.
    killed_at(point, "require_own_lake", address(another_ledger), one)
    require_own_lake(another_ledger, other)
    with pytest.raises(WrongLake, match="do not belong together"):
        require_own_lake(another_ledger, one)


@pytest.mark.parametrize("point", ADOPT)
def test_row_35_an_adoption_that_was_killed_is_done_again(house: House, point: str) -> None:
    lake = str(house.root)
    require_own_lake(house.connection, lake)
    before = id_of_lake(lake)
    killed_at(point, "adopt", house.url, lake)
    adopt(house.connection, lake)
    require_own_lake(house.connection, lake)
    assert id_of_lake(lake) not in (before, None)


def killed_at(point: str, function: str, url: str, lake: str) -> None:
    code = (
        "import sys; from antenna_assets.clients.postgres import connect; from antenna_assets.ledger import lake_identity as the\n"
        "with connect(sys.argv[2]) as connection: getattr(the, sys.argv[1])(connection, sys.argv[3])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, function, url, lake],
        env={**os.environ, "ANTENNA_CRASH_AT": point},
        check=False,
    )
    assert run.returncode == -signal.SIGKILL


def test_row_35_a_lake_that_was_moved_is_the_ledgers_and_an_adopted_copy_leaves_the_other_behind(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_own_lake(house.connection, str(house.root))
    moved = tmp_path / "moved"
    shutil.copytree(house.root, moved)
    require_own_lake(house.connection, str(moved))
    monkeypatch.setenv("ANTENNA_LAKE", str(moved))
    monkeypatch.setenv("ANTENNA_POSTGRES_URL", house.url)
    shown = CliRunner().invoke(app, ["adopt-lake"])
    assert (shown.exit_code, "2 of 2" in shown.output) == (0, True), shown.output
    assert id_of_lake(str(moved)) == id_of_lake(str(house.root))
    assert CliRunner().invoke(app, ["adopt-lake", "--yes"]).exit_code == 0
    require_own_lake(house.connection, str(moved))
    with pytest.raises(WrongLake, match=f"claimed at {moved}, but found {house.root} with the id"):
        require_own_lake(house.connection, str(house.root))


def test_row_35_a_lake_that_was_lost_is_refused_until_a_person_adopts_an_empty_one(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = str(house.root)
    require_own_lake(house.connection, lake)
    shutil.rmtree(lake)
    with pytest.raises(WrongLake, match="which has no id; .*antenna adopt-lake"):
        require_own_lake(house.connection, lake)
    monkeypatch.setenv("ANTENNA_LAKE", lake)
    monkeypatch.setenv("ANTENNA_POSTGRES_URL", house.url)
    assert "0 of 2" in CliRunner().invoke(app, ["adopt-lake", "--yes"]).output
    require_own_lake(house.connection, lake)


def test_row_35_a_ledger_restored_from_before_it_had_an_id_takes_that_of_its_lake(house: House) -> None:
    require_own_lake(house.connection, str(house.root))
    id_ = id_of_lake(str(house.root))
    house.connection.execute("DELETE FROM ledger.lake")
    require_own_lake(house.connection, str(house.root))
    known = claimed_lake(house.connection)
    assert (known and known.id, id_of_lake(str(house.root))) == (id_, id_)


def test_row_35_an_id_that_is_torn_is_named(house: House) -> None:
    require_own_lake(house.connection, str(house.root))
    for torn in (b"", b"3f0c", bytes(37)):
        (house.root / "lake-id").write_bytes(torn)
        with pytest.raises(WrongLake, match="lake-id holds no id: expected a line such as"):
            require_own_lake(house.connection, str(house.root))
    adopt(house.connection, str(house.root))
    require_own_lake(house.connection, str(house.root))


def test_row_35_a_run_with_another_lake_publishes_nothing(certified_world: World, tmp_path: Path) -> None:
    with certified_world.copy(tmp_path) as world, connect(world.url) as connection:
        Land.on(connection, world.lake)({FIRST: 5})
        elsewhere = World(world.url, tmp_path / "elsewhere")
        before = connection.execute("SELECT count(*) FROM ledger.publication").fetchall()
        with pytest.raises(WrongLake, match="do not belong together"):
            publish(elsewhere, [FIRST])
        assert not elsewhere.lake.exists()
        assert connection.execute("SELECT count(*) FROM ledger.publication").fetchall() == before
        # A copy of both is a whole of its own.
        publish(world, [FIRST])


def test_row_35_a_sample_shows_how_much_of_the_ledger_is_in_a_lake(house: House) -> None:
    assert evidence(house.connection, str(house.root)) == Evidence(named=2, found=2)
    (house.root / house.connection.execute("SELECT path FROM ledger.file").fetchall()[0][0]).unlink()
    assert evidence(house.connection, str(house.root)) == Evidence(named=2, found=1)
