"""Superset's environment is made of its lock: here of one tiny package that no registry has."""

import hashlib
import stat
import subprocess
import zipfile
from pathlib import Path

import pytest

from antenna_assets.stack import superset

NAME = "antenna_example-1.0-py3-none-any.whl"


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The lock of a docker folder; pip finds its package in a folder of wheels and nowhere else."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / NAME, "w") as wheel:
        information = "antenna_example-1.0.dist-info"
        wheel.writestr("antenna_example.py", "")
        wheel.writestr(
            f"{information}/METADATA", "Metadata-Version: 2.1\nName: antenna-example\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{information}/RECORD", "")
    sha256 = hashlib.sha256((wheels / NAME).read_bytes()).hexdigest()
    lock = tmp_path / "docker" / "superset" / "requirements.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text(f"antenna-example==1.0 --hash=sha256:{sha256}\n")
    monkeypatch.setattr(superset, "docker_folder", lambda: tmp_path / "docker")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return lock


def test_it_is_installed_once_and_again_when_the_lock_changes(lock: Path, tmp_path: Path) -> None:
    environment, said = tmp_path / "share" / "superset", []
    for _ in range(2):
        superset.install(said.append, environment=environment)
    assert said == [f"installing Superset into {environment} (0.8 GB, once)"]
    subprocess.run((environment / "bin" / "python", "-c", "import antenna_example"), check=True)
    assert stat.S_IMODE((environment / "ready").stat().st_mode) == 0o644
    lock.write_text("# nothing\n")
    superset.install(said.append, environment=environment)
    assert len(said) == 2
    gone = subprocess.run(
        (environment / "bin" / "python", "-c", "import antenna_example"), capture_output=True
    )
    assert b"No module named 'antenna_example'" in gone.stderr


def test_a_package_that_is_not_what_was_locked_is_a_clear_error_and_not_kept_as_installed(
    lock: Path, tmp_path: Path
) -> None:
    lock.write_text(f"antenna-example==1.0 --hash=sha256:{'0' * 64}\n")
    environment = tmp_path / "share" / "superset"
    with pytest.raises(
        superset.SupersetError,
        match=r"(?s)could not be installed into .*Expected sha256 0{64}.*then run `antenna dashboards` again",
    ):
        superset.install(print, environment=environment)
    assert not (environment / "ready").exists()


@pytest.mark.usefixtures("lock")
def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "share").write_text("a file in the folder's place")
    with pytest.raises(superset.SupersetError, match=r"could not be installed into .*Not a directory"):
        superset.install(print, environment=tmp_path / "share" / "superset")
