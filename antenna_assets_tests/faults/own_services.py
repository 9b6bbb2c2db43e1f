"""A broker and a database server of a test's own, to be killed: those of the session are everybody's."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import psutil

from antenna_assets.clients.migrations import migrate
from antenna_assets.clients.postgres import connect
from antenna_assets.settings import Settings
from antenna_assets.stack import kafka, kafka_topic, postgres


class OwnKafka:
    """A broker with a storage and a port of its own."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.bootstrap = kafka.start(home)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        process = psutil.Process(int((self._home / "kafka" / "pid").read_text()))
        process.kill()
        psutil.wait_procs([process], timeout=10)
        assert kafka.running(self._home) is None

    def start(self) -> None:
        """Start it again, where it was."""
        assert kafka.start(self._home) == self.bootstrap

    def settings(self, settings: Settings) -> Settings:
        """The same settings on this broker, with a new topic of four partitions."""
        topic = f"devices-{uuid4().hex[:12]}"
        kafka_topic.ensure_topic(self.bootstrap, topic, 4)
        return settings.model_copy(update={"kafka_bootstrap": self.bootstrap, "topic": topic})


class OwnPostgres:
    """A database server with data and a port of its own, and the tables in it."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.url = postgres.start(home)
        with connect(self.url) as connection:
            migrate(connection)

    def kill(self) -> int:
        """SIGKILL to each of its processes, and wait until they are gone; returns how many they were."""
        noted = (self._home / "postgres" / "data" / "postmaster.pid").read_text().split()[0]
        server = psutil.Process(int(noted))
        # The server first: it would replace a child that died.
        processes = [server, *server.children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        _, alive = psutil.wait_procs(processes, timeout=10)
        assert not alive
        return len(processes)

    def start(self) -> None:
        """Start it again, where it was."""
        assert postgres.start(self._home) == self.url


@contextmanager
def own_kafka() -> Iterator[OwnKafka]:
    """A broker that is gone, as its files are, at the end."""
    with _home() as home:
        try:
            yield OwnKafka(home)
        finally:
            kafka.stop(home)


@contextmanager
def own_postgres() -> Iterator[OwnPostgres]:
    """A server that is gone, as its files are, at the end."""
    with _home() as home:
        try:
            yield OwnPostgres(home)
        finally:
            postgres.stop(home)


@contextmanager
def _home() -> Iterator[Path]:
    # Not of pytest: each new session closes pytest's to PostgreSQL's OS user.
    home = Path(tempfile.mkdtemp(prefix="antenna-own-"))
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)
