"""Row 36: a torn log of a lake table is named, and the table is built anew from what is left of the log and the ledger."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from antenna_assets.cli import app
from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import HOUR, hour_key
from antenna_assets.domain.lifetimes import VERSION_RETENTION
from antenna_assets.operations.doctor import findings
from antenna_assets.operations.rebuild import Rebuilt, rebuild
from antenna_assets.publishing import delta
from antenna_assets.publishing.delta_files import TornLog
from antenna_assets.publishing.delta_log import torn_files, wrong_commit
from antenna_assets.publishing.lake import HourSnapshot, Lake, LakeError
from antenna_assets.settings import load_settings
from antenna_assets.verify.run import verify
from antenna_assets_tests.certified import FIRST, Land, World, publish
from antenna_assets_tests.test_sweep import MINUTE, RECENT, SAFE_AGE, House, age

pytestmark = pytest.mark.services

TABLE = "raw_parquet"
POINTS = ("rebuild.set_aside", "publish.lake.created", "rebuild.counted_on")


class Published(House):
    """A house whose publications say what is in the files, as the assets do."""

    def publish_all(self, hours: int) -> None:
        for number in range(hours):
            hour = RECENT - number * HOUR
            self.receive(hour)
            self.publish_again(hour)

    def publish_again(self, hour: datetime) -> None:
        """Publish what landed, at the same generation if that is no more than before."""
        from antenna_assets.ledger.certificate import record_and_certify
        from antenna_assets.ledger.publications import Publication
        from antenna_assets.ledger.seal import seal
        from antenna_assets.publishing.digests import files_manifest

        sealed = seal(self.connection, hour)
        files = self.write(TABLE, hour, sealed.generation)
        version = self.lake.replace_hour(TABLE, hour, sealed.generation, files)
        content = {"files": files_manifest(self.lake.location(TABLE), files)}
        record_and_certify(
            self.connection,
            [
                Publication(
                    TABLE, hour, sealed.generation, sealed.rows, sealed.bytes, None, "run", version, content
                )
            ],
        )

    @property
    def log(self) -> Path:
        return self.root / TABLE / "_delta_log"

    def state(self) -> dict[str, tuple[int | None, tuple[str, ...]]]:
        """Generation and files of each hour, as a process reads them that has seen nothing before."""
        lake = Lake(str(self.root))
        found: dict[str, HourSnapshot] = {
            hour_key(RECENT - number * HOUR): lake.hour(TABLE, RECENT - number * HOUR) for number in range(8)
        }
        return {key: (of.generation, tuple(sorted(of.files))) for key, of in found.items()}

    def rebuild(self, *, dry_run: bool = False) -> Rebuilt:
        return rebuild(self.connection, Lake(str(self.root)), TABLE, dry_run=dry_run)

    def version(self) -> int:
        return Lake(str(self.root)).hour(TABLE, RECENT).version


@pytest.fixture
def house(
    connection: psycopg.Connection, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Published:
    """Seven hours, of which one was restated, in a table with a checkpoint at version 5: versions 0 to 8."""
    monkeypatch.setattr(delta, "CHECKPOINT_EVERY", 5)
    house = Published(connection, postgres_url, tmp_path / "lake")
    house.publish_all(7)
    house.publish_all(1)
    assert house.version() == 8
    checkpoints = {f"{5:020}.checkpoint.parquet", "_last_checkpoint"}
    assert {path.name for path in house.log.iterdir()} == checkpoints | {f"{n:020}.json" for n in range(9)}
    return house


def cut(share: float) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(path.read_bytes()[: int(len(path.read_bytes()) * share)])


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def zeroed_from_the_middle(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))


def without_its_last_line(path: Path) -> None:
    path.write_bytes(b"\n".join(path.read_bytes().splitlines()[:-1]))


HARMS: dict[str, Callable[[Path], None]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut early": cut(0.1),
    "cut in the middle": cut(0.5),
    "cut late": cut(0.97),
    "zeroed": zeroed,
    "zeroed from the middle": zeroed_from_the_middle,
    "cut between lines": without_its_last_line,
    "gone": Path.unlink,
}
FILES = {
    "creation": f"{0:020}.json",
    "an old commit": f"{3:020}.json",
    "a commit after the checkpoint": f"{6:020}.json",
    "the newest commit": f"{8:020}.json",
    "checkpoint": f"{5:020}.checkpoint.parquet",
    "hint at the checkpoint": "_last_checkpoint",
}


@pytest.mark.parametrize("file", FILES)
def test_row_36_a_torn_log_is_named_and_the_table_is_as_the_ledger_knows_it(
    house: Published, file: str, tmp_path: Path
) -> None:
    path, before = house.log / FILES[file], house.state()
    shutil.copytree(house.root / TABLE, tmp_path / "whole")
    for harm, tear in HARMS.items():
        if path.suffix != ".json" and harm == "cut between lines":
            continue
        shutil.rmtree(house.root / TABLE)
        shutil.copytree(tmp_path / "whole", house.root / TABLE)
        tear(path)
        torn = torn_files(house.root / TABLE)
        if harm != "gone" or file in ("checkpoint", "a commit after the checkpoint"):
            # Of a checkpoint that is gone the hint tells.
            assert {path.name, "_last_checkpoint"} & {one.path.name for one in torn}, harm
        done = house.rebuild()
        assert [one.path.name for one in done.torn] == [one.path.name for one in torn], harm
        assert (done.to_run, done.lost) == ([], []), harm
        assert house.state() == before, harm
        assert house.version() >= 8, harm
        assert torn_files(house.root / TABLE) == [], harm
        assert not house.rebuild(), harm
    # And it goes on. A process that had read the old log would fail once, and then read the new one.
    house.lake = Lake(str(house.root))
    house.publish_all(1)
    assert house.version() >= 9
    house.sweep()
    assert torn_files(house.root / TABLE) == []


@pytest.mark.parametrize(
    "file", ["creation", "a commit after the checkpoint", "the newest commit", "checkpoint"]
)
def test_row_36_whoever_meets_a_torn_log_is_told_the_file_and_the_way_back(
    house: Published, file: str
) -> None:
    if file == "creation":
        for name in ("checkpoint", "hint at the checkpoint"):
            (house.log / FILES[name]).unlink()
    zeroed(house.log / FILES[file])
    with pytest.raises(LakeError, match=f"log is torn: .*{FILES[file]}.*`antenna rebuild-table raw_parquet`"):
        Lake(str(house.root)).hour(TABLE, RECENT)


@pytest.mark.parametrize("harm", [harm for harm in HARMS if harm != "gone"])
def test_row_36_no_harm_to_the_newest_commit_is_read_as_if_nothing_had_happened(
    house: Published, harm: str
) -> None:
    """deltalake takes an empty commit, and one cut between two lines, for no change."""
    HARMS[harm](house.log / FILES["the newest commit"])
    with pytest.raises(LakeError, match="log is torn: .*`antenna rebuild-table raw_parquet`"):
        Lake(str(house.root)).hour(TABLE, RECENT)
    house.lake = Lake(str(house.root))
    with pytest.raises(LakeError, match="log is torn"):
        house.lake.replace_hour(TABLE, RECENT - 9 * HOUR, 1, [])


@pytest.mark.parametrize("harm", [zeroed, cut(0.5), cut(0)], ids=["zeroed", "cut", "empty"])
def test_row_36_a_sweep_removes_nothing_that_a_torn_commit_may_have_named(
    house: Published, harm: Callable[[Path], None]
) -> None:
    """One below the checkpoint: the table itself can be read."""
    harm(house.log / FILES["an old commit"])
    assert Lake(str(house.root)).hour(TABLE, RECENT).generation == 2
    with pytest.raises(TornLog, match=f"{FILES['an old commit']} is .*`antenna rebuild-table raw_parquet`"):
        house.sweep()
    house.rebuild()
    house.sweep()


def test_row_36_the_doctor_names_the_file_the_version_and_the_command(
    house: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTENNA_LAKE", str(house.root))
    monkeypatch.setenv("ANTENNA_POSTGRES_URL", house.url)

    def lake(name: str = "lake") -> tuple[bool, str, str]:
        (found,) = [one for one in findings(load_settings()) if one.name == name]
        return found.ok, found.found, found.fix

    assert lake()[0]
    cut(0.5)(house.log / FILES["the newest commit"])
    ok, found, fix = lake()
    assert (ok, fix) == (False, "run `antenna rebuild-table raw_parquet`")
    assert f"{8:020}.json is torn in line" in found
    run = CliRunner().invoke(app, ["rebuild-table", TABLE])
    assert run.exit_code == 0, run.output
    assert "1 hour was committed again" in run.output
    assert lake()[0]
    shutil.rmtree(house.root / TABLE / "_delta_log")
    assert "lacks 7 hours that the ledger has published" in lake("lake and ledger")[1]
    monkeypatch.setenv("ANTENNA_LAKE", str(house.root.parent / "another"))
    assert "has no id" in lake("lake and ledger")[1]
    assert CliRunner().invoke(app, ["rebuild-table", "users"]).exit_code == 2


def test_row_36_a_table_that_was_lost_is_built_anew_with_its_versions(house: Published) -> None:
    before = house.state()
    shutil.rmtree(house.log)
    assert house.rebuild(dry_run=True).restored == sorted(RECENT - number * HOUR for number in range(7))
    assert not house.log.exists()
    assert len(house.rebuild().restored) == 7
    assert house.state() == before
    assert house.version() >= 8
    assert len(house.files_of(TABLE)) == 7


def test_row_36_an_hour_that_the_ledger_does_not_know_goes_and_comes_back_with_its_run(
    house: Published,
) -> None:
    """A run died between its commit to the lake and the ledger, and the commit is torn."""
    before = house.state()
    house.lake.replace_hour(TABLE, RECENT, 3, house.write(TABLE, RECENT, 3))
    cut(0.5)(house.log / f"{9:020}.json")
    house.rebuild()
    assert house.state() == before


def test_row_36_a_sweep_of_a_table_that_lost_its_log_spares_what_is_published(house: Published) -> None:
    shutil.rmtree(house.log)
    # The next publication begins the table anew.
    house.lake = Lake(str(house.root))
    house.publish_all(1)
    age(house.root / TABLE, SAFE_AGE + HOUR)
    house.sweep()
    done = house.rebuild()
    assert (len(done.restored), done.lost, done.to_run) == (6, [], [])
    assert len(house.files_of(TABLE)) == 7


def test_row_36_files_that_a_publication_of_the_same_generation_replaced_go_with_their_version(
    house: Published,
) -> None:
    before = set(house.files_of(TABLE))
    house.publish_again(RECENT)
    (replaced,) = before - set(house.files_of(TABLE))
    age(house.root, VERSION_RETENTION - MINUTE)
    house.sweep()
    assert Path(replaced).exists()
    age(house.root, VERSION_RETENTION + MINUTE)
    house.sweep()
    assert not Path(replaced).exists()
    assert len([path for path in house.files_of(TABLE) if Path(path).exists()]) == len(before)
    assert not house.rebuild()


def test_row_36_hours_without_files_are_named_by_what_can_be_done(house: Published) -> None:
    for hour in (RECENT, RECENT - HOUR):
        for path in house.lake.hour(TABLE, hour).files:
            Path(path).unlink()
    house.connection.execute("DELETE FROM ledger.file WHERE hour = %s", [RECENT - HOUR])
    shutil.rmtree(house.log)
    done = house.rebuild()
    assert (len(done.restored), done.to_run, done.lost) == (5, [RECENT], [RECENT - HOUR])
    again = house.rebuild()
    assert (again.restored, again.to_run, again.lost) == ([], [RECENT], [RECENT - HOUR])


@pytest.mark.parametrize("point", POINTS)
def test_row_36_a_rebuilding_that_was_killed_is_finished_by_the_next(house: Published, point: str) -> None:
    before = house.state()
    zeroed(house.log / FILES["a commit after the checkpoint"])
    code = (
        "import sys; from antenna_assets.publishing import delta; from antenna_assets.operations import rebuild; from antenna_assets.clients.postgres import connect\n"
        "from antenna_assets.publishing.lake import Lake\n"
        "delta.CHECKPOINT_EVERY = 5\n"
        "with connect(sys.argv[1]) as one: rebuild.rebuild(one, Lake(sys.argv[2]), 'raw_parquet')"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, house.url, str(house.root)],
        env={**os.environ, "ANTENNA_CRASH_AT": point},
        check=False,
    )
    assert run.returncode == -signal.SIGKILL
    age(house.root / TABLE, SAFE_AGE + HOUR)
    house.sweep()
    house.rebuild()
    assert house.state() == before
    assert house.version() >= 8
    assert torn_files(house.root / TABLE) == []


def test_row_36_a_rebuilt_table_is_as_certified_and_goes_on(certified_world: World, tmp_path: Path) -> None:
    with certified_world.copy(tmp_path) as world, connect(world.url) as connection:
        lake = Lake(str(world.lake))
        Land.on(connection, world.lake)({FIRST: 5})
        publish(world, [FIRST])
        for table in ("raw_parquet", "enriched_usage"):
            log = world.lake / table / "_delta_log"
            zeroed(log / f"{0:020}.json")
            assert rebuild(connection, lake, table).anew
        found = verify(connection, Lake(str(world.lake)), kept_since=FIRST)
        assert (found.hours, found.differences, found.pending) == (3, [], {})
        Land.on(connection, world.lake)({FIRST: 5})
        publish(world, [FIRST])
        found = verify(connection, Lake(str(world.lake)), kept_since=FIRST)
        assert (found.hours, found.differences, found.pending) == (3, [], {})


def test_row_36_a_commit_cut_anywhere_is_told_from_a_whole_one(house: Published) -> None:
    for version in (1, 5, 8):
        whole = (house.log / f"{version:020}.json").read_bytes()
        assert wrong_commit(whole) is None
        # The line break at the end says nothing.
        assert [end for end in range(len(whole.rstrip())) if wrong_commit(whole[:end]) is None] == []
