"""Superset on 127.0.0.1, in a Python environment of its own, over the views of the dashboards' role.

Its secrets, its own database and its log are under `<home>/superset`. What it shows is in `docker/superset`.
"""

import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from antenna_assets.clients.postgres import connect
from antenna_assets.errors import AntennaError
from antenna_assets.settings import Settings
from antenna_assets.stack import ports
from antenna_assets.stack.services import external_postgres
from antenna_assets.storage.atomic_files import READABLE, program_folder, replace_file
from antenna_assets.storage.project_files import docker_folder

LOGIN = "antenna_superset"
ADMINISTRATOR = "admin"
_START_SECONDS = 120
_STOP_SECONDS = 30
ENVIRONMENT = Path(sys.prefix) / "share" / "antenna" / "superset"
"""A Python environment of Superset's own, since its packages would not fit into this one."""


class SupersetError(AntennaError):
    """Superset cannot be started; the message says why and where its log is."""


@dataclass(frozen=True)
class Superset:
    """Where it listens, and who may come in."""

    url: str
    user: str
    password: str


@contextmanager
def superset(
    settings: Settings, postgres_url: str, *, environment: Path = ENVIRONMENT, say: Callable[[str], None]
) -> Iterator[Superset]:
    """Superset with the dashboards of `docker/superset`, until the block ends.

    Args:
        postgres_url: the antennas' database; its owner, if it is the embedded one.
        environment: Superset's Python environment.

    Raises:
        SupersetError: it cannot be installed, has no login for an external database, or does not start.
    """
    install(say, environment=environment)
    home = _home(settings)
    _make_secrets(home, settings, postgres_url)
    say("loading the dashboards into Superset")
    _assets(environment, home, "load")
    (port,) = ports.remembered(home / "ports.json", 1)
    url = f"http://{ports.HOST}:{port}"
    with _log(home).open("ab") as log:
        server = subprocess.Popen(
            _server(environment, port),
            env=variables(home),
            cwd=home,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait(server, url, _log(home))
        yield Superset(url, ADMINISTRATOR, _secret(home, "admin_password"))
    finally:
        server.terminate()
        try:
            server.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def install(say: Callable[[str], None], *, environment: Path = ENVIRONMENT) -> None:
    """Install Superset by hash, unless what its lock names is there: in a checkout `make` has done it.

    Raises:
        SupersetError: a package could not be had, or is not the one that was locked.
    """
    lock = docker_folder() / "superset" / "requirements.lock"
    # A copy of the lock: what is installed, once all of it is.
    installed = environment / "ready"
    if installed.is_file() and installed.read_bytes() == lock.read_bytes():
        return
    say(f"installing Superset into {environment} (0.8 GB, once)")
    make = (sys.executable, "-m", "venv", "--clear", str(environment))
    pip = (str(environment / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check")
    fill = (*pip, "install", "--require-hashes", "--requirement", str(lock))
    try:
        program_folder(environment)
        for command in (make, fill):
            # Everyone may read it, as the packages beside it: it is part of the program.
            subprocess.run(command, capture_output=True, text=True, check=True, umask=0o022)
        replace_file(installed, lock.read_text(encoding="utf-8"), READABLE)
    except (OSError, subprocess.CalledProcessError) as error:
        told = getattr(error, "stdout", "") + getattr(error, "stderr", "")
        raise SupersetError(
            f"Superset could not be installed into {environment}: {told.strip()[-500:] or error}; check the "
            f"network, the disk and pip's configuration, then run `antenna dashboards` again"
        ) from error


def write_dashboards(settings: Settings, folder: Path, *, environment: Path = ENVIRONMENT) -> None:
    """Write what is in Superset now as files into a folder, in the form of `docker/superset/assets`.

    Raises:
        SupersetError: it was not started yet, or fails.
    """
    home = _home(settings)
    if not (home / "superset.db").exists():
        raise SupersetError(f"expected Superset's database in {home}; run `antenna dashboards` first")
    _assets(environment, home, "write", str(folder.absolute()))


def _make_secrets(home: Path, settings: Settings, postgres_url: str) -> None:
    """Random ones at the first start. The login's password is set at every start, as the database may be
    new."""
    folder = home / "secrets"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in ("secret_key", "admin_password"):
        if not (folder / name).exists():
            replace_file(folder / name, secrets.token_urlsafe(36), mode=0o600)
    replace_file(folder / "metadata_url", f"sqlite:///{home / 'superset.db'}", mode=0o600)
    if external_postgres(settings) is None:
        replace_file(folder / "usage_url", _embedded_login(postgres_url), mode=0o600)
    elif not (folder / "usage_url").exists():
        raise SupersetError(
            "expected the address of your PostgreSQL, with a login of the role antenna_dashboards, in "
            f"{folder / 'usage_url'}:"
            " postgresql://user:password@host:5432/database; docs/roles.md says how to make one"
        )


def _embedded_login(postgres_url: str) -> str:
    """The embedded database's address for a login that may read the dashboards' views and nothing else."""
    from psycopg import sql

    password = secrets.token_urlsafe(24)
    login = sql.Identifier(LOGIN)
    with connect(postgres_url, application="antenna dashboards") as connection:
        if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [LOGIN]).fetchone() is None:
            connection.execute(sql.SQL("CREATE ROLE {} IN ROLE antenna_dashboards").format(login))
        connection.execute(sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(login, sql.Literal(password)))
    parts = urlsplit(postgres_url)
    return urlunsplit(parts._replace(netloc=f"{LOGIN}:{password}@{parts.netloc.rpartition('@')[2]}"))


def _secret(home: Path, name: str) -> str:
    return (home / "secrets" / name).read_text(encoding="utf-8")


def _home(settings: Settings) -> Path:
    return settings.home / "superset"


def _log(home: Path) -> Path:
    return home / "superset.log"


def variables(home: Path) -> dict[str, str]:
    """What Superset's programs read from their environment: where things are, and no secret."""
    return {
        **os.environ,
        "SUPERSET_CONFIG_PATH": str(docker_folder() / "superset" / "superset_config.py"),
        "SUPERSET_SECRETS": str(home / "secrets"),
        "SUPERSET_HOME": str(home),
        "PYTHONPATH": str(docker_folder() / "superset"),
    }


def _assets(environment: Path, home: Path, *arguments: str) -> None:
    """Run `docker/superset/assets.py` in Superset's environment."""
    command = (
        str(environment / "bin" / "python"),
        str(docker_folder() / "superset" / "assets.py"),
        *arguments,
    )
    done = subprocess.run(command, env=variables(home), cwd=home, capture_output=True, text=True, check=False)
    with _log(home).open("a", encoding="utf-8") as log:
        log.write(done.stdout + done.stderr)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise SupersetError(f"Superset could not {arguments[0]} the dashboards: {last} (from {_log(home)})")


def _server(environment: Path, port: int) -> tuple[str, ...]:
    """As Superset's own image serves it, with fewer processes."""
    return (
        *(str(environment / "bin" / "gunicorn"), "--bind", f"{ports.HOST}:{port}"),
        *("--workers", "1", "--worker-class", "gthread", "--threads", "8", "--timeout", "120"),
        "superset.app:create_app()",
    )


def _wait(server: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.2)
    raise SupersetError(
        f"expected Superset to answer on {url} within {_START_SECONDS} s"
        f"{'' if server.poll() is None else f', it ended with exit code {server.returncode}'}; see {log}"
    )
