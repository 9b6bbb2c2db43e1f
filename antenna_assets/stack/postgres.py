"""The process of the embedded PostgreSQL 18 in `<home>/postgres`, and its settings.

Its data directory is in `postgres_data.py`; migrations are run by `start.py`.
"""

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from antenna_assets.stack import ports
from antenna_assets.stack.postgres_data import ROLE, PostgresError, own, password_of, prepare, run_program
from antenna_assets.stack.processes import ended_within, is_alive
from antenna_assets.storage.atomic_files import replace_file

if TYPE_CHECKING:
    import psycopg

DATABASE = "antenna"
_START_SECONDS = 60
_STOP_SECONDS = 30
_ORPHAN_SECONDS = 10
_NO_SUCH_PID = 2**31 - 1

# Durability stays at its default, with fsync and synchronous_commit: the ledger is the checkpoint of the
# stream. No Unix socket: its path is limited to about 100 characters, and JDBC needs TCP anyway. So many
# locks for statements on five years of partitions.
_SETTINGS = """\
listen_addresses = '{host}'
port = {port}
unix_socket_directories = ''
max_connections = 100
shared_buffers = 256MB
max_locks_per_transaction = 256
max_wal_size = 2GB
checkpoint_timeout = 15min
timezone = 'UTC'
log_timezone = 'UTC'
log_checkpoints = off
log_line_prefix = '%m [%p] '
"""


def start(home: Path) -> str:
    """Start the server unless it runs, create the database `antenna`, and return its URL.

    Raises:
        PostgresError: it does not start; the message has the end of its log.
    """
    folder = _folder(home)
    _await_recovery(folder)
    launched = _postmaster(folder) is None
    if launched:
        prepare(folder, _release_recycled_pid)
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
    """Return the URL of the server if it runs and accepts connections."""
    folder = _folder(home)
    lines = _pid_file(folder)
    if len(lines) < 8 or lines[7] != "ready" or _postmaster(folder) is None:
        return None
    return _url(folder, lines)


def stop(home: Path) -> None:
    """Stop the server. Does nothing if it does not run.

    Raises:
        PostgresError: it does not stop.
    """
    folder = _folder(home)
    server = _postmaster(folder)
    if server is None:
        return
    # By signal, not by pg_ctl, which as root would need access to the data directory.
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):  # fast shutdown, immediate shutdown, kill
        with suppress(psutil.NoSuchProcess):
            server.send_signal(number)
        if ended_within(server, _STOP_SECONDS):
            return
    raise PostgresError(
        f"expected PostgreSQL (process {server.pid}) to stop, found it running; see {_log(folder)}"
    )


def _folder(home: Path) -> Path:
    return home.resolve() / "postgres"


def _log(folder: Path) -> Path:
    return folder / "log" / "postgres.log"


def _url(folder: Path, pid_file: list[str]) -> str:
    return f"postgresql://{ROLE}:{password_of(folder)}@{ports.HOST}:{pid_file[3]}/{DATABASE}"


def _pid_file(folder: Path) -> list[str]:
    """The lines of postmaster.pid: pid, data directory, start time, port, socket, address, shared memory,
    status.
    """
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
        if not process.name().startswith("postgres") or not is_alive(process):
            return None
        # Either is enough: the command line is stale in a moved folder, the start time after the clock was
        # set.
        with suppress(psutil.AccessDenied):
            if str(folder / "data") in process.cmdline():
                return process
        return process if abs(process.create_time() - int(lines[2])) < 5 else None
    except (psutil.NoSuchProcess, ValueError, IndexError):
        return None


def _release_recycled_pid(folder: Path) -> None:
    """Keep PostgreSQL from mistaking another program's process for its own former one.

    Only the pid is replaced, by one that no process has: from the shared memory in the file PostgreSQL still
    sees whether a child of a killed server is alive.
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
        own(data / "antenna.conf")
        _release_recycled_pid(folder)
        begin = log.stat().st_size if log.exists() else 0
        try:
            run_program(
                folder, "pg_ctl", "start", "-w", "-t", str(_START_SECONDS), "-D", str(data), "-l", str(log)
            )
            return
        except BaseException as error:
            if _postmaster(folder) is not None:
                stop(folder.parent)
            if not isinstance(error, PostgresError):
                raise
            output = _tail(log, begin)
            if "could not bind" in output and not fresh_port:
                fresh_port = True  # another program took the port after our check
            elif "pre-existing shared memory" in output and time.monotonic() < patience:
                time.sleep(0.2)  # the children of a killed server are exiting
            else:
                raise PostgresError(f"PostgreSQL does not start: {error}\n{output}(from {log})") from error


def _await_recovery(folder: Path) -> None:
    """Wait while a running server refuses connections, as during recovery after a full disk."""
    import psycopg

    if _postmaster(folder) is not None:
        # IndexError: it starts just now, and has not written down its port.
        with suppress(psycopg.Error, IndexError):
            _once_recovered(folder, lambda: _connect(_url(folder, _pid_file(folder))).close())


def _once_recovered(folder: Path, use: Callable[[], None]) -> None:
    """Use the server, again while it recovers, which it may begin after it had answered.

    Raises:
        psycopg.Error: it fails otherwise, has ended, or recovers for too long.
    """
    import psycopg

    patience = time.monotonic() + _START_SECONDS
    while True:
        try:
            return use()
        except psycopg.Error as error:
            if not _is_of_recovery(error) or _postmaster(folder) is None or time.monotonic() >= patience:
                raise
        time.sleep(0.2)


def _is_of_recovery(error: "psycopg.Error") -> bool:
    """Whether a server that restarts its processes after a crash refused a connection, or broke one."""
    # Before authentication there is no SQLSTATE, only the text.
    known = ("the database system is", "refused", "closed the connection", "terminating connection")
    return any(one in str(error) for one in known)


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

    def create() -> None:
        with _connect(url) as connection:
            known = connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
            if known is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))

    try:
        _once_recovered(folder, create)
    except psycopg.Error as error:
        raise PostgresError(
            f"PostgreSQL runs but cannot be used: {str(error).strip()}; if it is its password, run"
            f" `antenna down`, delete {folder / 'password'} and run `antenna up`; its log is"
            f" {_log(folder)}"
        ) from error


def _connect(url: str) -> "psycopg.Connection[Any]":
    """A connection to the server's database `postgres`."""
    import psycopg

    maintenance = url.rpartition("/")[0] + "/postgres"
    # Explicit options, so that PGOPTIONS of the environment, meant for other servers, is ignored.
    return psycopg.connect(
        maintenance, autocommit=True, connect_timeout=10, options="-c default_transaction_read_only=off"
    )
