"""The project's files are found in a checkout and in a wheel."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from antenna_assets.storage import project_files
from antenna_assets.storage.project_files import docker_folder, sql_folder

CHECKOUT = Path(__file__).resolve().parent.parent


def test_a_checkout_reads_the_folders_beside_the_package():
    assert sql_folder() == CHECKOUT / "sql"
    assert docker_folder() == CHECKOUT / "docker"


def test_a_wheel_carries_its_own_copy(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=CHECKOUT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    unpacked = tmp_path / "unpacked"
    zipfile.ZipFile(wheel).extractall(unpacked)

    # The interpreter's own path holds this checkout (editable install); the wheel comes before it.
    script = (
        f"import sys; sys.path.insert(0, {str(unpacked)!r});"
        "from antenna_assets.storage.project_files import docker_folder, sql_folder, workspace_file;"
        "from antenna_assets.engines.transforms import INPUTS, transform;"
        "print(sql_folder(), docker_folder() / 'dagster.yaml', workspace_file(), len([transform(name) for name in INPUTS]), sep='\\n')"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-c", script], cwd=tmp_path, check=True, capture_output=True, text=True
    )

    sql, dagster, workspace, transforms = run.stdout.splitlines()
    assert sql == str(unpacked / "antenna_assets/_project/sql")
    assert sorted(path.name for path in Path(sql).iterdir()) == sorted(
        path.name for path in (CHECKOUT / "sql").iterdir()
    )
    assert Path(dagster).read_text() == (CHECKOUT / "docker/dagster.yaml").read_text()
    assert Path(workspace).read_text() == (CHECKOUT / "workspace.yaml").read_text()
    assert transforms == "7"


def test_a_broken_installation_says_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.setattr(project_files, "_PACKAGE", tmp_path / "antenna_assets")
    with pytest.raises(FileNotFoundError, match=r"sql at .*_project/sql or .*install the wheel again"):
        sql_folder()
