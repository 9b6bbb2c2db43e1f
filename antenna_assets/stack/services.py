"""Where PostgreSQL and Kafka are: the external ones of the settings, or the embedded ones of the state directory.

`up` and `down` start and stop the embedded ones; how each is started is in `postgres` and `kafka`. Nothing here
makes tables: migrations come after `up`.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from antenna_assets.clients.kafka_config import PLAIN, KafkaConfig, read_kafka_config
from antenna_assets.clients.postgres_address import parts
from antenna_assets.errors import AntennaError
from antenna_assets.failpoints import commit_point
from antenna_assets.settings import Settings
from antenna_assets.stack import jars, java, kafka, ports, postgres
from antenna_assets.stack.atomic_files import locked

Say = Callable[[str], None]
T = TypeVar("T")

_PROBLEMS = (java.JavaError, jars.JarsError, kafka.KafkaError, postgres.PostgresError, OSError)


class ServicesError(AntennaError):
    """A service is not there, or cannot be started or stopped; the message says what to do."""


@dataclass(frozen=True)
class Services:
    """PostgreSQL's URL, with the password in it, and Kafka's bootstrap address and how it is entered."""

    postgres_url: str
    kafka_bootstrap: str
    kafka_config: KafkaConfig = PLAIN


def services(settings: Settings) -> Services:
    """Where both services are.

    Raises:
        ServicesError: one is neither external nor running.
        KafkaConfigError: the file of ANTENNA_KAFKA_CONFIG cannot be used.
    """
    return Services(postgres_url(settings), kafka_bootstrap(settings), kafka_config(settings))


def postgres_url(settings: Settings) -> str:
    """Where PostgreSQL is.

    Raises:
        ServicesError: it is neither external nor running.
    """
    url = external_postgres(settings) or _ask(lambda: postgres.running(settings.home))
    if url is None:
        raise _not_running("PostgreSQL", settings, "ANTENNA_POSTGRES_URL")
    return url


def kafka_bootstrap(settings: Settings) -> str:
    """Where Kafka is.

    Raises:
        ServicesError: it is neither external nor running.
    """
    bootstrap = external_kafka(settings) or _ask(lambda: kafka.running(settings.home))
    if bootstrap is None:
        raise _not_running("Kafka", settings, "ANTENNA_KAFKA_BOOTSTRAP")
    return bootstrap


def kafka_config(settings: Settings) -> KafkaConfig:
    """How Kafka is entered; the embedded one is open to this machine.

    Raises:
        ServicesError: there is a file for it, but Kafka is the embedded one.
        KafkaConfigError: the file cannot be used.
    """
    if settings.kafka_config is None:
        return PLAIN
    if external_kafka(settings) is None:
        raise ServicesError(
            "ANTENNA_KAFKA_CONFIG is for an external Kafka, and the embedded one takes plain connections only; "
            "set ANTENNA_KAFKA_BOOTSTRAP, too, or unset it"
        )
    return read_kafka_config(settings.kafka_config)


def external_postgres(settings: Settings) -> str | None:
    """The external PostgreSQL's URL; None for the embedded one, also where `antenna env` has exported its address.

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
    """The external brokers; None for the embedded one, also where `antenna env` has exported its address."""
    return (
        None if _is_embedded(settings.kafka_bootstrap, settings.home / "kafka") else settings.kafka_bootstrap
    )


def _is_embedded(address: str | None, folder: Path) -> bool:
    return address in {f"{ports.HOST}:{port}" for port in ports.noted(folder / "ports.json")}


def up(settings: Settings, say: Say) -> Services:
    """Start what is not external and does not run, and make the topic; what runs already is left alone.

    Raises:
        ServicesError: one cannot be started; what this call has started is stopped again.
        KafkaConfigError: the file of ANTENNA_KAFKA_CONFIG cannot be used.
    """
    home = settings.home
    config = kafka_config(settings)
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

    with _only_one(settings, say):
        try:
            with ThreadPoolExecutor(2) as pool:
                url, bootstrap = pool.submit(postgres_up), pool.submit(kafka_up)
            kafka.ensure_topic(bootstrap.result(), settings.topic, config=config)
            return Services(url.result(), bootstrap.result(), config)
        except BaseException as error:
            for stop in started:
                with suppress(*_PROBLEMS):
                    stop()
            if isinstance(error, _PROBLEMS):
                raise ServicesError(str(error)) from error
            raise


def down(settings: Settings, say: Say) -> None:
    """Stop the embedded services; harmless where they do not run, and no matter for external ones.

    Raises:
        ServicesError: one does not stop; the other one is stopped all the same.
    """
    if not settings.home.is_dir():
        return
    problems = []
    with _only_one(settings, say):
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


@contextmanager
def _only_one(settings: Settings, say: Say) -> Iterator[None]:
    """Two `antenna up` at once: the second waits, and finds everything running."""
    with ExitStack() as stack:
        lock = locked(
            settings.home / "up.lock", lambda: say("waiting for another `antenna up` or `antenna down`")
        )
        try:
            stack.enter_context(lock)
        except OSError as error:
            raise ServicesError(
                f"the state directory {settings.home} cannot be written: {error}; set ANTENNA_HOME to another path"
            ) from error
        yield


def _ask(what: Callable[[], T]) -> T:
    try:
        return what()
    except _PROBLEMS as error:
        raise ServicesError(str(error)) from error


def _not_running(name: str, settings: Settings, variable: str) -> ServicesError:
    return ServicesError(
        f"{name} is not running under {settings.home} and {variable} is not set; run `antenna up`"
    )
