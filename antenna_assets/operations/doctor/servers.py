"""Checks of PostgreSQL and Kafka, embedded or external.

Each check returns what it found, or raises `Problem` with the fix.
"""

from typing import TYPE_CHECKING

from antenna_assets.clients.kafka_broker import kept_by_sender, retention_warning
from antenna_assets.clients.kafka_config import ConnectionErrors, KafkaConfigError
from antenna_assets.clients.migrations import require_migrated, require_usable
from antenna_assets.clients.postgres import connect
from antenna_assets.clients.postgres_errors import DatabaseError, DatabaseUnfit
from antenna_assets.domain.counted import counted
from antenna_assets.ledger.old_previews import OldPreviewsLeft, require_cleaned
from antenna_assets.operations.doctor.finding import CONNECT_SECONDS, UP, Problem
from antenna_assets.settings import Settings
from antenna_assets.stack import kafka_topic, ports, services

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient


def postgres_server(settings: Settings) -> str:
    import psycopg

    url = services.postgres_url(settings)
    where = f"{'external' if services.external_postgres(settings) else 'embedded'} PostgreSQL"
    fix = (
        "check ANTENNA_POSTGRES_URL"
        if services.external_postgres(settings)
        else "run `antenna down`, then `antenna up`"
    )
    try:
        with connect(url, application="antenna doctor", patience=CONNECT_SECONDS) as connection:
            require_usable(connection)
            info = connection.info
            server = f"{info.parameter_status('server_version')} on {info.host}:{info.port}"
            return f"{where} {server}, database {info.dbname}"
    except DatabaseUnfit:
        raise
    except (DatabaseError, psycopg.Error) as error:
        raise Problem(f"{where} does not answer: {error}", fix) from error


def clock_offset(settings: Settings) -> str:
    from antenna_assets.clients.clock import wrong_here

    url = services.postgres_url(settings)
    with connect(url, application="antenna doctor", patience=CONNECT_SECONDS) as connection:
        wrong = wrong_here(connection)
    if wrong is not None:
        raise Problem(
            f"{wrong}, whose clock validates events and closes hours",
            "correct this machine's clock, as by NTP",
        )
    return "as PostgreSQL's, within half a minute"


def old_previews(settings: Settings) -> str:
    url = services.postgres_url(settings)
    try:
        with connect(url, application="antenna doctor", patience=CONNECT_SECONDS) as connection:
            require_migrated(connection)
            require_cleaned(connection)
    except DatabaseUnfit:
        raise
    except DatabaseError as error:
        raise Problem(str(error), UP) from error
    except OldPreviewsLeft as error:
        found, _, fix = str(error).partition("; ")
        raise Problem(found, fix) from error
    return "name no user"


def kafka_brokers(settings: Settings) -> str:
    bootstrap = _reachable_kafka(settings)
    metadata = _admin_client(settings, bootstrap).list_topics(timeout=CONNECT_SECONDS)
    where = "external" if services.external_kafka(settings) else "embedded"
    return f"{where} Kafka on {bootstrap}, {counted(len(metadata.brokers), 'broker')}"


def _reachable_kafka(settings: Settings) -> str:
    """Return the bootstrap address if one of its brokers accepts connections: librdkafka is slow to report
    that none does."""
    bootstrap = services.kafka_bootstrap(settings)
    for address in bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        if port.isdigit() and ports.is_open(host.strip("[]"), int(port), 1):
            return bootstrap
    fix = "check ANTENNA_KAFKA_BOOTSTRAP (host:port,host:port)" if services.external_kafka(settings) else UP
    raise Problem(f"no Kafka accepts connections on {bootstrap}", fix)


def _admin_client(settings: Settings, bootstrap: str) -> "AdminClient":
    """Return a client that the brokers have authenticated."""
    from confluent_kafka import KafkaException

    refusal = ConnectionErrors()
    try:
        admin = kafka_topic.admin_client(bootstrap, services.kafka_config(settings), refusal)
        admin.list_topics(timeout=CONNECT_SECONDS)
    except KafkaConfigError as error:
        raise Problem(str(error), "correct that file, or unset ANTENNA_KAFKA_CONFIG") from error
    except KafkaException as error:
        admin.poll(0)
        raise Problem(
            f"Kafka on {bootstrap} denies access: {refusal.reason or error.args[0].str()}",
            "check ANTENNA_KAFKA_CONFIG, the file with protocol, login and certificate authority",
        ) from error
    return admin


def topic_settings(settings: Settings) -> str:
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import ConfigResource, ResourceType

    admin = _admin_client(settings, _reachable_kafka(settings))
    topic = admin.list_topics(timeout=CONNECT_SECONDS).topics.get(settings.topic)
    if topic is None:
        raise Problem(
            f"topic {settings.topic!r} does not exist", f"{UP}, which creates it, or set ANTENNA_TOPIC"
        )
    resource = ConfigResource(ResourceType.TOPIC, settings.topic)
    try:
        config = admin.describe_configs([resource], request_timeout=CONNECT_SECONDS)[resource].result(
            CONNECT_SECONDS
        )
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise
        # The stream runs without it, and says so.
        return (
            f"{settings.topic!r}, {counted(len(topic.partitions), 'partition')}; its configuration needs the"
            " right DescribeConfigs"
        )
    policy = config["cleanup.policy"].value
    if "compact" in policy:
        raise Problem(
            f"topic {settings.topic!r} has cleanup.policy={policy}: compaction removes messages, so offsets "
            "cannot be accounted for",
            "use a topic with cleanup.policy=delete",
        )
    early = retention_warning(settings.topic, kept_by_sender(config), settings.horizon)
    if early:
        found, _, fix = early.rpartition("; ")
        raise Problem(found, fix)
    return f"{settings.topic!r}, {counted(len(topic.partitions), 'partition')}, cleanup.policy={policy}"
