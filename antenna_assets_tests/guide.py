"""The commands of a page under `docs/`, run as they stand there."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import antenna_assets
from antenna_assets.settings import PREFIX
from antenna_assets.storage.project_files import docker_folder

DOCS = docker_folder().parent / "docs"
_BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)


def commands(page: str, *headings: str) -> str:
    """The first block of commands under each of the headings, one after the other."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = []
    for heading in headings:
        _, known, after = text.partition(f"\n{heading}\n")
        assert known, f"{page} has no heading {heading!r}"
        block = _BLOCK.search(re.split(r"\n##+ ", after)[0])
        assert block, f"{page} has no commands under {heading!r}"
        found.append(block[1])
    return "\n".join(found)


def run(script: str, environment: Mapping[str, str]) -> tuple[int, str]:
    """Run commands in a checkout, with these settings and no others; exit code and what they said."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith((PREFIX, "DAGSTER_"))}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=DOCS.parent,
        env={
            **inherited,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            # `antenna` is a script: it would look for the project only where it is installed.
            "PYTHONPATH": str(Path(antenna_assets.__file__).parent.parent),
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=240,
        check=False,
    )
    return done.returncode, done.stdout
