"""What `docker/` says, as data: compose.yaml as Docker's own compose reads it, Dockerfiles, and what is sent to a build.

No engine is needed for any of it.
"""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from antenna_assets_tests.containers.secured import CHECKOUT, DOCKER

IMAGES = ("antenna", "superset")
PROFILES = ("demo", "secure")


def compose(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Docker's own compose over docker/compose.yaml, with none of this environment's variables but the path."""
    program = str(Path(sys.executable).with_name("docker-compose"))
    command = (program, "--file", str(DOCKER / "compose.yaml"), *arguments)
    return subprocess.run(command, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False)


def composed(profile: str) -> dict[str, Any]:
    """compose.yaml as it is with a profile's variables, in full."""
    run = compose("--env-file", str(DOCKER / f"{profile}.env"), "config", "--format", "json")
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
    """The antenna image's files in a folder, as its Dockerfile puts them, with the project's wheel unpacked; its /opt/antenna.

    The packages of the lock are those of this environment.
    """
    build, home = folder / "build", folder / "opt" / "antenna"
    for sources, target in copies("antenna"):
        place = folder / target.lstrip("/") if target.startswith("/") else build / target
        for source in sources:
            _copy(CHECKOUT / source, place if (CHECKOUT / source).is_dir() else place / Path(source).name)
    hatchling = (sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder))
    subprocess.run(hatchling, cwd=build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(home / "site")
    return home


def _copy(source: Path, target: Path) -> None:
    files = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
    for path in files:
        if is_sent(str(path.relative_to(CHECKOUT))):
            place = target if path == source else target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)
