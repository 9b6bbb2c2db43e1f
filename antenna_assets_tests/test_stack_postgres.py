import os
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from antenna_assets.stack import ports, postgres

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def initialised() -> Iterator[Path]:
    """A state directory with a database, whose path is long and has a space."""
    with tempfile.TemporaryDirectory(prefix="a state directory ") as folder:
        home = Path(folder) / ("long-" * 20)
        postgres.start(home)
        postgres.stop(home)
        yield home


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty directory, not of pytest: each new session closes pytest's to PostgreSQL's OS user."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


@pytest.fixture
def home(initialised: Path) -> Iterator[Path]:
    yield initialised
    postgres.stop(initialised)
    assert servers(initialised) == []


def servers(home: Path) -> list[psutil.Process]:
    data = str(home.resolve() / "postgres" / "data")
    return [p for p in psutil.process_iter(["cmdline"]) if data in (p.info["cmdline"] or [])]


def ask(url: str, question: str) -> Any:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(question.encode()).fetchone()


def test_starting_twice_starts_one_server(home: Path) -> None:
    url = postgres.start(home)
    assert postgres.start(home) == postgres.running(home) == url
    assert len(servers(home)) == 1
    assert url.startswith("postgresql://postgres:")
    assert url.endswith("/antenna")
    assert ask(url, "SELECT current_database(), current_setting('server_version_num')::int / 10000") == (
        "antenna",
        18,
    )


def test_a_server_that_crashes_after_it_has_answered_is_waited_for(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, crashes = postgres.start(home), []

    def connect_and_crash(*arguments: Any) -> Any:
        connection = connect(*arguments)
        if len(crashes) < 2:
            # At the loss of a backend a server ends all of them and recovers, as when its disk is full.
            crashes.append(connection.info.backend_pid)
            os.kill(crashes[-1], signal.SIGKILL)
        return connection

    connect = postgres._connect
    monkeypatch.setattr(postgres, "_connect", connect_and_crash)
    assert postgres.start(home) == url
    assert len(crashes) == 2
    assert ask(url, "SELECT 1") == (1,)


def test_the_server_is_durable_local_and_in_utc(home: Path) -> None:
    url = postgres.start(home)
    names = (
        "fsync",
        "synchronous_commit",
        "full_page_writes",
        "listen_addresses",
        "timezone",
        "server_encoding",
    )
    found = {name: ask(url, f"SHOW {name}")[0] for name in names}
    assert found == {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "listen_addresses": "127.0.0.1",
        "timezone": "UTC",
        "server_encoding": "UTF8",
    }


def test_the_password_is_needed_and_kept_to_the_owner(home: Path) -> None:
    url = postgres.start(home)
    password = home / "postgres" / "password"
    assert stat.S_IMODE(password.stat().st_mode) == 0o600
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url.replace(password.read_text().strip(), "guessed"))


def test_the_port_is_kept_while_it_is_free_and_changed_when_it_is_not(home: Path) -> None:
    url = postgres.start(home)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    postgres.stop(home)
    assert postgres.start(home) == url
    postgres.stop(home)
    with socket.create_server(("127.0.0.1", ports.recorded(home / "postgres" / "ports.json")[0])):
        moved = postgres.start(home)
    assert moved != url
    assert ask(moved, "SELECT one FROM kept") == (1,)


def test_losing_the_race_for_the_port_ends_on_another_one(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        remembered = ports.remembered
        monkeypatch.setattr(
            ports, "remembered", lambda *args, fresh: remembered(*args, fresh=True) if fresh else [taken]
        )
        url = postgres.start(home)
    assert ask(url, "SELECT 1") == (1,)
    assert f":{taken}/" not in url


@pytest.fixture
def other_program() -> Iterator[subprocess.Popen[bytes]]:
    """Of the same OS user as the server: PostgreSQL sees through any other by itself."""
    with subprocess.Popen(["sleep", "60"], user="pgserver" if os.geteuid() == 0 else None) as process:
        yield process
        process.kill()


def test_a_killed_server_whose_pid_is_gone_or_another_programs_starts_again(
    home: Path, other_program: subprocess.Popen[bytes]
) -> None:
    pid_file = home / "postgres" / "data" / "postmaster.pid"
    for pid in (None, other_program.pid):
        postgres.start(home)
        servers(home)[0].kill()
        while postgres.running(home):
            pass
        if pid:
            pid_file.write_text("\n".join([str(pid), *pid_file.read_text().splitlines()[1:], ""]))
            assert postgres.running(home) is None
            postgres.stop(home)
        assert ask(postgres.start(home), "SELECT 1") == (1,)
    assert other_program.poll() is None


def test_a_lost_password_is_made_anew(home: Path) -> None:
    before = postgres.start(home)
    postgres.stop(home)
    (home / "postgres" / "password").unlink()
    after = postgres.start(home)
    assert ask(after, "SELECT 1") == (1,)
    assert after != before


def test_a_wrong_password_file_says_what_to_do_and_leaves_no_server(home: Path) -> None:
    postgres.start(home)
    postgres.stop(home)
    password = home / "postgres" / "password"
    right = password.read_text()
    password.write_text("wrong\n")
    with pytest.raises(postgres.PostgresError, match="delete .*/password and run `antenna up`"):
        postgres.start(home)
    assert servers(home) == []
    password.write_text(right)


def test_a_server_that_does_not_start_shows_its_log_and_leaves_no_process(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_SETTINGS", postgres._SETTINGS + "max_connections = -1\n")
    with pytest.raises(
        postgres.PostgresError, match=r'(?s)does not start.*outside the valid range.*"max_connections"'
    ):
        postgres.start(home)
    assert servers(home) == []


def test_a_half_made_data_directory_never_counts(folder: Path) -> None:
    kept = folder / "postgres"
    (kept / "data" / "base").mkdir(parents=True)
    (kept / "data" / "PG_VERSION").write_text("18\n")  # initdb writes it first
    (kept / "new-killed" / "data").mkdir(parents=True)
    try:
        assert ask(postgres.start(folder), "SELECT 1") == (1,)
    finally:
        postgres.stop(folder)
    assert (kept / "data.unusable-1" / "base").is_dir()
    assert list(kept.glob("new-*")) == []


def test_data_of_another_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    data = tmp_path / "postgres" / "data"
    (data / "global").mkdir(parents=True)
    (data / "global" / "pg_control").touch()
    (data / "PG_VERSION").write_text("16\n")
    with pytest.raises(
        postgres.PostgresError, match="expected data of PostgreSQL 18 in .*, found version 16"
    ):
        postgres.start(tmp_path)
    assert (data / "PG_VERSION").read_text() == "16\n"


def test_stopping_nothing_is_harmless_and_makes_nothing(tmp_path: Path) -> None:
    postgres.stop(tmp_path / "nothing")
    assert postgres.running(tmp_path / "nothing") is None
    assert list(tmp_path.iterdir()) == []
