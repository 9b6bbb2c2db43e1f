"""Environments of their own, installed by hash from a lock as make and the images do it."""

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
UV = CHECKOUT / "requirements" / "uv"
# As make builds it, so that uv finds what it built.
PYSPARK = ("--config-settings-package", "pyspark:--build-option=--compression=stored")


def uv(*arguments: str) -> None:
    """Run uv as make runs it, with files that others may read."""
    subprocess.run((UV, "--quiet", *arguments), cwd=CHECKOUT, check=True, umask=0o022)


def build_wheel(source: Path, folder: Path) -> Path:
    """The project's wheel, built from a checkout or a part of one into a folder."""
    build = (sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder))
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def environment(folder: Path, lock: Path, wheel: Path) -> Path:
    """A new environment with the packages of a lock and the wheel, and nothing else."""
    uv("venv", "--python", sys.executable, str(folder))
    _install(folder, "--require-hashes", *PYSPARK, "--requirement", str(lock))
    _install(folder, str(wheel))
    return folder


def _install(folder: Path, *packages: str) -> None:
    command = ("pip", "install", "--python", str(folder), "--no-deps", *packages)
    try:
        uv(*command, "--offline")
    except subprocess.CalledProcessError:  # uv's cache is not that of `make`
        uv(*command)
