"""A Kafka that wants TLS and a SCRAM login and a PostgreSQL that wants TLS, as the containers' profile `secure` has them.

Secrets, certificates, the broker's configuration and its start script, and PostgreSQL's rules of who may connect are
those of `docker/`; only addresses and places differ. The embedded PostgreSQL is built without TLS: this one's programs
come from an archive for tests.
"""

import os
import re
import socket
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from psycopg import sql

from antenna_assets.clients.postgres import connect
from antenna_assets.stack import jars, java, postgres, postgres_data
from antenna_assets.stack.ports import HOST
from antenna_assets_tests.containers.postgres_jar import postgres_archive
from antenna_assets_tests.free_ports import free_port

CHECKOUT = Path(__file__).resolve().parent.parent.parent
DOCKER = CHECKOUT / "docker"
START_SECONDS = 60
TOPIC = "devices"


@dataclass(frozen=True)
class Secured:
    """The addresses, and the folder of secrets: `ca`, `kafka_<login>`, `postgres_<login>`, `password_<login>`."""

    kafka: str
    postgres: str
    folder: Path

    @property
    def lake(self) -> Path:
        """The one lake of the ledger, whoever comes: its first writer binds the two."""
        return self.folder.parent / "lake"

    def secret(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8").strip()


def make_secrets(folder: Path, *arguments: str) -> None:
    """Run docker/make_secrets.py for files that are used where they are."""
    command = (sys.executable, str(DOCKER / "make_secrets.py"), *arguments)
    places = ("--folder", str(folder), "--seen-at", str(folder))
    subprocess.run((*command, *places), check=True, capture_output=True)


@contextmanager
def secured_kafka(home: Path, folder: Path, port: int, more: str = "") -> Iterator[None]:
    """The broker of docker/kafka/secure.properties, with more properties, started by docker/kafka/start."""
    controller = free_port()
    text = (DOCKER / "kafka" / "secure.properties").read_text(encoding="utf-8")
    for there, here in (
        (
            "CLIENTS://:9092,CONTROLLER://localhost:9093",
            f"CLIENTS://{HOST}:{port},CONTROLLER://{HOST}:{controller}",
        ),
        ("CLIENTS://kafka:9092", f"CLIENTS://{HOST}:{port}"),
        ("1@localhost:9093", f"1@{HOST}:{controller}"),
        ("/var/lib/kafka/data", str(home / "data")),
        ("/run/secrets", str(folder)),
    ):
        assert there in text
        text = text.replace(there, here)
    home.mkdir()
    (home / "server.properties").write_text(text + more, encoding="utf-8")
    _write_kafka_run_class(home / "kafka" / "bin" / "kafka-run-class.sh")
    log = home / "console.log"
    command = (str(DOCKER / "kafka" / "start"), str(home / "server.properties"), str(folder / "kafka_logins"))
    with log.open("wb") as output:
        broker = subprocess.Popen(
            command,
            cwd=home,
            env={**java.java_environment(), "KAFKA_HOME": str(home / "kafka")},
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _listens(port):
            assert broker.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield
    finally:
        broker.terminate()
        try:
            broker.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            # Now and then a broker that is busy does not end by itself, and its data goes with the test.
            broker.kill()
            broker.wait()


def _write_kafka_run_class(path: Path) -> None:
    """What Kafka's own script of that name comes to: its class path, and the arguments as they are."""
    classpath = os.pathsep.join(map(str, jars.kafka_classpath()))
    path.parent.mkdir(parents=True)
    path.write_text(
        f"#!/bin/sh\nexec '{java.java_home() / 'bin' / 'java'}' -Xmx512m -XX:+UseSerialGC -cp '{classpath}' \"$@\"\n"
    )
    path.chmod(0o755)


def _listens(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex((HOST, port)) == 0


@contextmanager
def secured_postgres(home: Path, folder: Path, port: int) -> Iterator[None]:
    """The embedded service with other programs, TLS, and docker/postgres/secure.hba."""
    programs = _unpacked(home / "programs")
    keys = home / "keys"
    keys.mkdir()
    # PostgreSQL's OS user must get there.
    keys.chmod(0o755)
    files = {
        "server.key": (folder / "postgres_key").read_text(),
        "server.crt": (folder / "postgres_certificate").read_text(),
        "hba": (DOCKER / "postgres" / "secure.hba").read_text(),
    }
    tls = f"ssl = on\nssl_key_file = '{keys}/server.key'\nssl_cert_file = '{keys}/server.crt'\nhba_file = '{keys}/hba'\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres_data, "_binary", lambda name: programs / "bin" / name)
        patch.setattr(postgres, "_SETTINGS", postgres._SETTINGS + tls)
        patch.setattr(postgres.ports, "remembered", lambda *_args, **_options: [port])
        # Also makes PostgreSQL's OS user.
        postgres_data.prepare(home / "postgres", lambda _folder: None)
        for name, text in files.items():
            (keys / name).write_text(text)
            postgres_data.own(keys / name)
        url = postgres.start(home)
    try:
        _make_logins(url, folder)
        yield
    finally:
        postgres.stop(home)


def _unpacked(folder: Path) -> Path:
    folder.mkdir()
    with zipfile.ZipFile(postgres_archive()) as jar:
        (name,) = (name for name in jar.namelist() if name.endswith(".txz"))
        with jar.open(name) as packed, tarfile.open(fileobj=packed, mode="r:xz") as archive:
            archive.extractall(folder, filter="data")
    # PostgreSQL's OS user runs them.
    for place in (folder, *folder.rglob("*")):
        if place.is_dir():
            place.chmod(0o755)
    return folder


def _make_logins(url: str, folder: Path) -> None:
    """The owner, whom the image makes, and the others as the containers' first step makes them."""
    with connect(url) as connection:
        password = sql.Literal((folder / "password_antenna").read_text())
        connection.execute(sql.SQL("CREATE ROLE antenna SUPERUSER LOGIN PASSWORD {}").format(password))
    owner = (folder / "postgres_antenna").read_text()
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "ANTENNA_POSTGRES_URL": owner}
    command = (sys.executable, str(DOCKER / "antenna" / "logins.py"), str(folder))
    subprocess.run(command, env=environment, check=True)


def passwords(folder: Path) -> list[str]:
    """Every password of the folder, none of which may be told anywhere."""
    found = [path.read_text().strip() for path in folder.glob("password_*")]
    assert all(re.fullmatch(r"[\w-]{32,}", text) for text in found)
    return found
