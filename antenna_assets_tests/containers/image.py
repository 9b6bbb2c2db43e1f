"""What `docker/` says, as data: compose.yaml as Docker's own compose reads it, Dockerfiles, and what is sent to a build.

No engine is needed for any of it.
"""

import json
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from antenna_assets_tests.containers.secured import CHECKOUT, DOCKER
from antenna_assets_tests.installing import build_wheel, environment

IMAGES = ("antenna", "superset")
PROFILES = ("demo", "secure")


def compose(*arguments: str, files: tuple[str, ...] = ("compose.yaml",)) -> subprocess.CompletedProcess[str]:
    """Docker's own compose over files of docker/, with none of this environment's variables but the path."""
    program = str(Path(sys.executable).with_name("docker-compose"))
    named = [word for file in files for word in ("--file", str(DOCKER / file))]
    command = (program, *named, *arguments)
    return subprocess.run(command, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False)


def composed(profile: str, *more: str) -> dict[str, Any]:
    """compose.yaml as it is with a profile's variables and more files over it, in full."""
    variables = ("--env-file", str(DOCKER / f"{profile}.env"))
    run = compose(*variables, "config", "--format", "json", files=("compose.yaml", *more))
    assert (run.returncode, run.stderr) == (0, "")
    return json.loads(run.stdout)


def instructions(image: str) -> list[tuple[str, list[str]]]:
    """The instructions of an image's Dockerfile, each with its words."""
    text = re.sub(r"\\\n", " ", (DOCKER / image / "Dockerfile").read_text(encoding="utf-8"))
    lines = (line for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return [(words[0], words[1:]) for words in map(str.split, lines)]


def copies(image: str) -> list[tuple[list[str], str]]:
    """What the Dockerfile copies from the checkout: sources, and where to."""
    found = [words for name, words in instructions(image) if name == "COPY" and not words[0].startswith("--")]
    return [(words[:-1], words[-1]) for words in found]


def is_sent(path: str) -> bool:
    """Whether .dockerignore lets a file of the checkout be sent to a build: the last rule that fits decides."""
    sent = True
    parts = Path(path).parts
    ahead = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    for line in (CHECKOUT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        rule = line.removeprefix("!")
        if rule.startswith("**/"):
            fits = rule.removeprefix("**/") in parts
        else:
            fits = any(fnmatch(place, rule) for place in ahead)
        if fits:
            sent = line.startswith("!")
    return sent


def lay_out(folder: Path) -> Path:
    """The antenna image's files in a folder, as its Dockerfile puts them: packages of its lock, and the project's wheel.

    Returns its /opt/antenna. Only Python is that of this machine.
    """
    build, home = folder / "build", folder / "opt" / "antenna"
    for sources, target in copies("antenna"):
        if not target.startswith("/"):
            _copy(sources, build / target)
    environment(home, build / "docker" / "antenna" / "requirements.lock", build_wheel(build, folder))
    for sources, target in copies("antenna"):
        if target.startswith("/"):
            _copy(sources, folder / target.lstrip("/"))
    return home


def _copy(sources: list[str], target: Path) -> None:
    """Copy files into a folder, and of a folder what is in it, as a Dockerfile's COPY does."""
    for source in (CHECKOUT / name for name in sources):
        files = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
        for path in files:
            if is_sent(str(path.relative_to(CHECKOUT))):
                place = target / (path.name if path == source else path.relative_to(source))
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, place)
