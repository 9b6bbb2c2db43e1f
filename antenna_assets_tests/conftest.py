"""Real services for the tests: one Kafka, one PostgreSQL and one Spark session for each worker of a run, and a fresh topic,
database and lake for each test that asks.

Everything lies in a temporary directory and is stopped at the end.
"""

import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import hypothesis
import psycopg
import pytest
from psycopg import sql

from antenna_assets.clients.migrations import migrate
from antenna_assets.clients.postgres import connect
from antenna_assets.settings import FIRST_START, PREFIX, Settings, load_settings
from antenna_assets_tests import durations

BEGAN = time.monotonic()

# The hourly partitions are made when the definitions are imported, with the tests: not as the state directory says of the
# person who runs them.
os.environ[f"{PREFIX}START"] = FIRST_START.isoformat()
# Tables are as wide as they are without a terminal: a console keeps the width that it finds when it is made, and those of
# the commands are made when they are imported.
os.environ.pop("COLUMNS", None)

# An example is not wrong because the machine was busy.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")

# A shell that starts a command in the background lets it ignore SIGINT. Dagster gives SIGTERM the same handler, and no
# program that the tests start would end when it is asked to.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if TYPE_CHECKING:
    import dagster as dg
    from pyspark.sql import SparkSession

    from antenna_assets.streaming.job import Stream
    from antenna_assets_tests.certified import World


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--prove",
        action="store_true",
        help="the long form of the tests of docs/proofs.md, as `make prove` runs it",
    )
    parser.addoption("--ui", action="store_true", help="collect the tests in a browser, too; `make test-ui`")
    parser.addoption("--pictures", metavar="FOLDER", help="where the tests in a browser leave screenshots")
    parser.addoption(
        "--last-begin",
        type=float,
        metavar="SECONDS",
        help="begin no test after this time, but finish the one that runs",
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The browser's tests need packages of their own."""
    return True if collection_path.name == "ui" and not config.getoption("--ui") else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`@pytest.mark.rounds(5)`: in the long form five tests, each short enough for a part of `make prove`; else one.

    And `each_engine_in_the_long_form`, see `stream_engines.py`.
    """
    proving = metafunc.config.getoption("--prove")
    marker = metafunc.definition.get_closest_marker("rounds")
    if marker is not None:
        metafunc.parametrize("round_", range(marker.args[0] if proving else 1))
    if metafunc.definition.get_closest_marker("each_engine_in_the_long_form") is not None:
        metafunc.parametrize("stream_engine", ["duckdb", "spark"] if proving else ["duckdb"], indirect=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, whatever the order of the others is: all workers end at about the same time."""
    seconds = durations.long_files()
    here = Path(__file__).parent
    items.sort(key=lambda item: -seconds.get(item.path.relative_to(here).as_posix(), 0.0))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """After the time of `--last-begin` no test runs, and none is in a report; workers know no other way to stop."""
    limit = item.config.getoption("--last-begin")
    return True if limit is not None and time.monotonic() - BEGAN > limit else None


@pytest.fixture(scope="session")
def proving(request: pytest.FixtureRequest) -> bool:
    """Whether this is the long form: tests named `test_row_N_...` do more then, and record figures as properties."""
    return request.config.getoption("--prove")


@pytest.fixture(autouse=True)
def _no_settings_of_the_person_who_runs_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith((PREFIX, "DAGSTER_")):
            monkeypatch.delenv(name)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of 127.0.0.1 that refuses connections: bound, so that nobody else takes it, and not listening."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture(scope="session", autouse=True)
def _quick_java(proving: bool) -> Iterator[str | None]:
    """Java with its quick compiler alone, but in the long form; the `JAVA_HOME` of before."""
    before = os.environ.get("JAVA_HOME")
    if proving:
        yield before
        return
    from antenna_assets.stack.java import JavaError, java_home
    from antenna_assets_tests.java_homes import QUICK, java_home_with

    # Unit tests need none.
    with tempfile.TemporaryDirectory(prefix="antenna-java-") as folder, pytest.MonkeyPatch.context() as patch:
        with suppress(JavaError):
            patch.setenv("JAVA_HOME", str(java_home_with(Path(folder) / "quick", QUICK)))
            java_home.cache_clear()
        yield before


@pytest.fixture
def usual_java(_quick_java: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that the test starts have Java as users have it."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    if _quick_java is not None:
        monkeypatch.setenv("JAVA_HOME", _quick_java)


@pytest.fixture(scope="session")
def service_home() -> Iterator[Path]:
    # A short path: the name of a socket must stay under 100 characters.
    home = Path(tempfile.mkdtemp(prefix="antenna-"))
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server(service_home: Path) -> Iterator[str]:
    """Address of a PostgreSQL server; its database `antenna` is empty."""
    from antenna_assets.stack import postgres

    yield postgres.start(service_home)
    postgres.stop(service_home)


@pytest.fixture(scope="session")
def kafka(service_home: Path) -> Iterator[str]:
    """Address of a Kafka broker."""
    from antenna_assets.stack import kafka

    yield kafka.start(service_home)
    kafka.stop(service_home)


@pytest.fixture
def topic(kafka: str) -> str:
    """A new topic with four partitions."""
    from antenna_assets.stack.kafka_topic import ensure_topic

    name = f"devices-{uuid4().hex[:12]}"
    ensure_topic(kafka, name, 4)
    return name


def _database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


@pytest.fixture(scope="session")
def migrated_template(postgres_server: str) -> str:
    """Name of a migrated database to copy from: a copy takes a tenth of a migration."""
    with connect(postgres_server) as connection:
        connection.execute("CREATE DATABASE migrated")
    with connect(_database(postgres_server, "migrated")) as connection:
        migrate(connection)
    return "migrated"


@contextmanager
def _new_database(server: str, template: str) -> Iterator[str]:
    """Address of a new database, a copy of the template; dropped at the end."""
    name = f"test_{uuid4().hex[:12]}"
    with connect(server) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
    try:
        yield _database(server, name)
    finally:
        with connect(server) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def new_database(postgres_server: str) -> Callable[[str], AbstractContextManager[str]]:
    """Makes copies of a database by its name."""
    return lambda template: _new_database(postgres_server, template)


@pytest.fixture
def postgres_url(postgres_server: str, migrated_template: str) -> Iterator[str]:
    """Address of a new, migrated database with the 20 users."""
    with _new_database(postgres_server, migrated_template) as url:
        yield url


@pytest.fixture
def empty_database(postgres_server: str) -> Iterator[str]:
    """Address of a new database without any of our tables."""
    with _new_database(postgres_server, "template0") as url:
        yield url


@pytest.fixture
def connection(postgres_url: str) -> Iterator[psycopg.Connection]:
    """A connection to a new, migrated database."""
    with connect(postgres_url) as opened:
        yield opened


@pytest.fixture
def dagster(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator["dg.DagsterInstance"]:
    """A Dagster instance whose sensors read a new, migrated database."""
    from antenna_assets_tests.end_to_end.runs import instance

    monkeypatch.setenv("ANTENNA_HOME", str(tmp_path))
    monkeypatch.setenv("ANTENNA_POSTGRES_URL", postgres_url)
    with instance() as opened:
        yield opened


@pytest.fixture(scope="session")
def spark() -> Iterator["SparkSession"]:
    """The process's one Spark session, as the stream would start it."""
    from antenna_assets.streaming.spark.query import start_spark

    session = start_spark()
    yield session
    session.stop()


@pytest.fixture
def stream_engine(request: pytest.FixtureRequest) -> str:
    """The reader of the test's streams; see `stream_engines.EACH_ENGINE`."""
    return getattr(request, "param", Settings.model_fields["stream_engine"].default)


@pytest.fixture
def settings(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    postgres_url: str,
    kafka: str,
    topic: str,
    stream_engine: str,
) -> Settings:
    """Settings that point to the test's own database, topic and lake."""
    monkeypatch.setenv("ANTENNA_STREAM_ENGINE", stream_engine)
    monkeypatch.setenv("ANTENNA_HOME", str(tmp_path))
    monkeypatch.setenv("ANTENNA_POSTGRES_URL", postgres_url)
    monkeypatch.setenv("ANTENNA_KAFKA_BOOTSTRAP", kafka)
    monkeypatch.setenv("ANTENNA_TOPIC", topic)
    # Late rows are published at the next tick, as in days of few: the wait has tests of its own.
    monkeypatch.setenv("ANTENNA_REPUBLISH_WAIT", "0 minutes")
    return load_settings()


@pytest.fixture
def another_world(
    settings: Settings, postgres_server: str, migrated_template: str
) -> Callable[[], AbstractContextManager[Settings]]:
    """Makes further worlds, one after another: a new topic, database and lake, which the environment names meanwhile."""
    from confluent_kafka.admin import AdminClient

    from antenna_assets.stack.kafka_topic import ensure_topic

    @contextmanager
    def world() -> Iterator[Settings]:
        kafka = settings.kafka_bootstrap or ""
        name = f"devices-{uuid4().hex[:12]}"
        home = settings.home / name
        ensure_topic(kafka, name, 4)
        try:
            with (
                _new_database(postgres_server, migrated_template) as url,
                pytest.MonkeyPatch.context() as patch,
            ):
                patch.setenv("ANTENNA_HOME", str(home))
                patch.setenv("ANTENNA_POSTGRES_URL", url)
                patch.setenv("ANTENNA_TOPIC", name)
                yield load_settings()
        finally:
            admin = AdminClient({"bootstrap.servers": kafka})
            for future in admin.delete_topics([name]).values():
                future.result(30)
            shutil.rmtree(home, ignore_errors=True)

    return world


@pytest.fixture
def stream_spark(request: pytest.FixtureRequest, stream_engine: str) -> "SparkSession | None":
    """The Spark session that the test's streams share; None if their reader needs none."""
    return request.getfixturevalue("spark") if stream_engine == "spark" else None


@pytest.fixture
def new_stream(settings: Settings, stream_spark: "SparkSession | None") -> Callable[..., "Stream"]:
    """Makes streams over the test's settings, or those of another world."""
    from antenna_assets.streaming.job import Stream

    def stream(over: Settings = settings) -> Stream:
        return Stream(
            over,
            postgres_url=over.postgres_url or "",
            kafka_bootstrap=over.kafka_bootstrap or "",
            say=lambda _line: None,
            stop=threading.Event(),
            spark=stream_spark,
        )

    return stream


@pytest.fixture(scope="session")
def certified_world(
    postgres_server: str, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> "World":
    """Three published hours with their certificates. Tests change only copies of it."""
    from antenna_assets_tests.certified import World, land_and_publish

    with connect(postgres_server) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE certified TEMPLATE {}").format(sql.Identifier(migrated_template))
        )
    folder = tmp_path_factory.mktemp("certified")
    world = World(_database(postgres_server, "certified"), folder / "lake")
    land_and_publish(world)
    return world


@pytest.fixture
def world(certified_world: "World", tmp_path: Path) -> Iterator["World"]:
    """A copy of the certified world that the test may ruin."""
    with certified_world.copy(tmp_path) as copied:
        yield copied
