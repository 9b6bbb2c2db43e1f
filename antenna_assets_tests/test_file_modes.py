"""proofs.md, row 38: what is written is its owner's alone, whoever writes it: Python, DuckDB, deltalake, Java, PostgreSQL."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

import antenna_assets
from antenna_assets import file_modes
from antenna_assets.settings import Settings, SettingsError, load_settings
from antenna_assets.stack.start import start, tighten
from antenna_assets.streaming.job import Stream
from antenna_assets_tests.certified import FIRST, World, publish
from antenna_assets_tests.end_to_end.test_pipeline import scenario, send


def open_to_others(folder: Path, denied: int = 0o077) -> dict[str, str]:
    """What below a folder gives others a right that they should not have, with its mode."""
    paths = [folder, *folder.rglob("*")]
    return {
        str(path.relative_to(folder)): stat.filemode(path.lstat().st_mode)
        for path in paths
        if not path.is_symlink() and path.lstat().st_mode & denied
    }


def test_row_38_every_process_of_the_package_writes_for_its_owner_alone(tmp_path: Path) -> None:
    for module in ("antenna_assets", "antenna_assets.defs.instance_storage", "antenna_assets.stack.ports"):
        name = module.rpartition(".")[2]
        script = f"import {module}, pathlib, os; pathlib.Path('{name}').mkdir(); pathlib.Path('{name}/file').touch()"
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(antenna_assets.__file__).parent.parent)},
            umask=0o022,
            check=True,
        )
    assert open_to_others(tmp_path) == {}
    assert len(list(tmp_path.rglob("file"))) == 3


@pytest.mark.services
def test_row_38_what_the_stream_and_the_runs_write_is_their_owners_alone(
    settings: Settings, new_stream: Callable[..., Stream], tmp_path: Path
) -> None:
    send(settings, scenario(3), tmp_path / "answers.json")
    new_stream().read_available()
    lake = Path(settings.lake_uri)
    assert any(lake.glob("landing/*/hour=*/*.parquet"))
    assert any(lake.glob("landing/*/rejected/*.parquet"))
    assert open_to_others(lake) == {}


@pytest.mark.services
def test_row_38_what_a_run_publishes_is_its_owners_alone(certified_world: World, tmp_path: Path) -> None:
    with certified_world.copy(tmp_path) as world:
        for path in (world.lake, *world.lake.rglob("*")):
            path.chmod(0o700 if path.is_dir() else 0o600)
        (tmp_path / "dagster").mkdir()
        with dg.instance_for_test(temp_dir=str(tmp_path / "dagster")) as on:
            publish(world, [FIRST], on=on)
        assert any(world.lake.glob("enriched_usage/**/*.parquet"))
        assert open_to_others(world.lake) == {}
    assert open_to_others(tmp_path / "dagster") == {}


@pytest.mark.services
def test_row_38_up_makes_a_state_directory_of_its_owner_alone_and_tightens_an_older_one(
    monkeypatch: pytest.MonkeyPatch, service_home: Path, kafka: str, topic: str
) -> None:
    # Not of pytest, which closes the folder of its own that PostgreSQL's user passes.
    home = service_home / "older"
    monkeypatch.setenv("ANTENNA_HOME", str(home))
    monkeypatch.setenv("ANTENNA_KAFKA_BOOTSTRAP", kafka)
    monkeypatch.setenv("ANTENNA_TOPIC", topic)
    from antenna_assets.stack import postgres

    older = [home / "lake" / "landing" / "1-a" / "hour=2026112210", home / "dagster" / "storage"]
    for folder in older:
        folder.mkdir(parents=True)
        (folder / "file").write_text("someone@example.org")
    theirs = home / "notes"
    theirs.mkdir()
    for path in (home, *home.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    try:
        start(load_settings(), lambda _line: None)
        found = open_to_others(home)
        # Root runs PostgreSQL as another user, who passes and may list nothing.
        passed = {".": "drwx-----x", "postgres": "drwx-----x"} if os.geteuid() == 0 else {}
        assert found == {**passed, "notes": "drwxr-xr-x"}
        assert tighten(load_settings()) == 0
        # And it starts again.
        postgres.stop(home)
        start(load_settings(), lambda _line: None)
    finally:
        postgres.stop(home)


def test_row_38_a_lake_is_shared_with_a_group_on_purpose(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ANTENNA_UMASK", "027")
    monkeypatch.setenv("ANTENNA_LAKE", str(tmp_path / "lake"))
    monkeypatch.setenv("ANTENNA_HOME", str(tmp_path / "home"))
    before = os.umask(0o077)
    try:
        file_modes.apply()
        (tmp_path / "lake").mkdir(0o775)
        (tmp_path / "lake" / "file").write_text("x")
    finally:
        os.umask(before)
    assert open_to_others(tmp_path / "lake") == {".": "drwxr-x---", "file": "-rw-r-----"}
    (tmp_path / "lake").chmod(0o755)
    (tmp_path / "lake" / "file").chmod(0o644)
    assert tighten(load_settings()) == 2
    assert open_to_others(tmp_path / "lake") == {".": "drwxr-x---", "file": "-rw-r-----"}
    monkeypatch.setenv("ANTENNA_UMASK", load_settings().exports()["ANTENNA_UMASK"])
    assert load_settings().umask == 0o027


@pytest.mark.parametrize("text", ["0o77", "77", "700", "rwx", "0777", "-077", "078"])
def test_row_38_a_umask_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("ANTENNA_UMASK", text)
    assert file_modes.umask() == 0o077
    with pytest.raises(SettingsError, match="ANTENNA_UMASK: expected a umask in octal"):
        load_settings()


def test_row_38_links_and_what_is_another_users_are_left_as_they_are(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("x")
    outside.chmod(0o755)
    (outside / "file").chmod(0o644)
    lake = tmp_path / "lake"
    lake.mkdir()
    (lake / "folder").symlink_to(outside)
    (lake / "file").symlink_to(outside / "file")
    lake.chmod(0o755)
    assert file_modes.tighten(lake) == 1
    assert open_to_others(outside) == {".": "drwxr-xr-x", "file": "-rw-r--r--"}
