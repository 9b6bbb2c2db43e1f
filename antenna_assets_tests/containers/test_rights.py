"""What a login may do at a Kafka that asks for rights: with the least the stream reads, and what is missing is named."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from antenna_assets.clients.kafka_broker import AuthorizationFailed, Broker
from antenna_assets.clients.kafka_config import KafkaConfig, read_kafka_config
from antenna_assets.ledger.offsets import OffsetRange
from antenna_assets.settings import Settings
from antenna_assets.stack.kafka_topic import admin_client, ensure_topic
from antenna_assets.streaming.exact_ranges import PartBounds, read_ranges
from antenna_assets_tests.containers.secured import TOPIC, Secured, make_secrets, secured_kafka
from antenna_assets_tests.faults.runs import LIVE_STREAM, run
from antenna_assets_tests.free_ports import free_port
from antenna_assets_tests.stream_engines import EACH_ENGINE, EACH_ENGINE_IN_THE_LONG_FORM

pytestmark = pytest.mark.services

AUTHORIZER = (
    "\nauthorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n"
    # The controller has a listener of its own, within the broker.
    "super.users=User:broker;User:owner;User:ANONYMOUS\n"
)


@pytest.fixture(scope="module")
def guarded() -> Iterator[Secured]:
    """Kafka with TLS, logins and rights: `stream` may describe and read the topic, `simulator` only describe it."""
    with tempfile.TemporaryDirectory(prefix="antenna-guarded-") as name:
        home = Path(name)
        port = free_port()
        kafka, folder = f"127.0.0.1:{port}", home / "secrets"
        make_secrets(folder, "secure", "--kafka", kafka, "--postgres", "127.0.0.1:1")
        with secured_kafka(home / "kafka", folder, port, AUTHORIZER):
            owner = read_kafka_config(folder / "kafka_owner")
            ensure_topic(kafka, TOPIC, 1, config=owner)
            allow(kafka, owner, "stream", AclOperation.DESCRIBE, AclOperation.READ)
            allow(kafka, owner, "simulator", AclOperation.DESCRIBE)
            producer = Producer({**owner.for_librdkafka(), "bootstrap.servers": kafka})
            producer.produce(TOPIC, b"a message")
            assert producer.flush(20) == 0
            yield Secured(kafka, "", folder)


def allow(kafka: str, owner: KafkaConfig, login: str, *operations: AclOperation) -> None:
    bindings = [
        AclBinding(
            *(ResourceType.TOPIC, TOPIC, ResourcePatternType.LITERAL),
            *(f"User:{login}", "*", operation, AclPermissionType.ALLOW),
        )
        for operation in operations
    ]
    # Its answers end with it.
    admin = admin_client(kafka, owner)
    for future in admin.create_acls(bindings).values():
        future.result(20)


def broker_of(guarded: Secured, login: str) -> Broker:
    return Broker(guarded.kafka, TOPIC, read_kafka_config(guarded.folder / f"kafka_{login}"))


def test_row_25_a_login_that_may_describe_and_read_the_topic_alone_reads_it_and_says_what_it_cannot_see(
    guarded: Secured,
) -> None:
    broker = broker_of(guarded, "stream")
    topic = broker.describe()
    assert "no right DescribeConfigs on topic devices" in topic.warning
    assert (broker.earliest(topic), broker.next_offsets(topic)) == ({0: 0}, {0: 1})
    (part,) = read_ranges(broker, [OffsetRange(0, 0, 1)], PartBounds())
    assert part.messages["value"].to_pylist() == [b"a message"]
    assert broker_of(guarded, "owner").describe().warning == ""


def test_row_25_a_right_that_a_login_lacks_is_named(guarded: Secured) -> None:
    describing = broker_of(guarded, "simulator")
    describing.describe()
    with pytest.raises(AuthorizationFailed, match="no right Read on topic devices"):
        list(read_ranges(describing, [OffsetRange(0, 0, 1)], PartBounds()))
    owner = read_kafka_config(guarded.folder / "kafka_owner")
    ensure_topic(guarded.kafka, "another", 1, config=owner)
    config = read_kafka_config(guarded.folder / "kafka_stream")
    with pytest.raises(AuthorizationFailed, match="no right Describe on topic another"):
        Broker(guarded.kafka, "another", config).describe()


@pytest.fixture
def stream_of(
    guarded: Secured, postgres_url: str, tmp_path: Path, stream_engine: str
) -> Callable[..., tuple[int, str]]:
    """Runs `antenna stream` with a login at a topic; its exit code and what it said."""

    def stream(login: str, topic: str = TOPIC, *options: str) -> tuple[int, str]:
        settings = Settings(
            home=tmp_path,
            postgres_url=postgres_url,
            kafka_bootstrap=guarded.kafka,
            kafka_config=guarded.folder / f"kafka_{login}",
            topic=topic,
            stream_engine=stream_engine,
        )
        code, said = run(settings, (*LIVE_STREAM, *options), seconds=300)
        return code, " ".join(said.split())

    return stream


@EACH_ENGINE
def test_row_25_a_stream_ends_with_the_right_that_its_login_lacks(
    guarded: Secured, stream_of: Callable[..., tuple[int, str]]
) -> None:
    ensure_topic(guarded.kafka, "another", 1, config=read_kafka_config(guarded.folder / "kafka_owner"))
    for login, topic, right in (("simulator", TOPIC, "Read"), ("stream", "another", "Describe")):
        code, said = stream_of(login, topic)
        assert code == 1, said
        assert f"has no right {right} on topic {topic}: add an ACL with operation {right}" in said
        assert "Traceback" not in said
        assert "waiting" not in said
        assert "starting Spark" not in said


@EACH_ENGINE_IN_THE_LONG_FORM
def test_row_25_a_stream_that_may_not_see_the_topics_settings_warns_once_and_reads(
    connection: psycopg.Connection, stream_of: Callable[..., tuple[int, str]]
) -> None:
    code, said = stream_of("stream", TOPIC, "--available-now")
    assert code == 0, said
    assert said.count("no right DescribeConfigs on topic devices") == 1
    assert connection.execute("SELECT sum(quarantined) FROM ledger.batch").fetchone() == (1,)
