import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from antenna_assets.stack import kafka, kafka_storage, kafka_topic, ports
from antenna_assets.stack.jars import kafka_classpath

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def formatted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory with a formatted storage, whose path has a space and a comma."""
    home = tmp_path_factory.mktemp("a state, directory ")
    kafka_storage.format_storage(kafka._folder(home))
    return home


@pytest.fixture
def home(formatted: Path) -> Iterator[Path]:
    yield formatted
    kafka.stop(formatted)
    assert brokers(formatted) == []


def brokers(home: Path) -> list[psutil.Process]:
    marker = f"-Dantenna.kafka={home.resolve() / 'kafka'}"
    return [p for p in psutil.process_iter(["cmdline"]) if marker in (p.info["cmdline"] or [])]


def leaders(bootstrap: str, topic: str) -> list[int]:
    found = kafka_topic.admin_client(bootstrap).list_topics(topic, timeout=10).topics[topic]
    return [partition.leader for partition in found.partitions.values()]


def test_one_broker_maps_its_class_archive_outlives_its_caller_and_keeps_its_topics_on_other_ports(
    home: Path,
) -> None:
    bootstrap = kafka.start(home)
    assert kafka.start(home) == kafka.running(home) == bootstrap
    (broker,) = brokers(home)
    archive = kafka_storage.class_archive(kafka_classpath())
    assert archive.is_file(), "run `make setup`, or the tests by `make test`"
    assert str(archive) in {mapped.path for mapped in broker.memory_maps()}
    assert os.getsid(broker.pid) != os.getsid(0)
    kafka_topic.ensure_topic(bootstrap, "devices")
    kafka_topic.ensure_topic(bootstrap, "devices", partitions=9)
    assert leaders(bootstrap, "devices") == [1, 1, 1, 1]

    # The pid is lost: the process is found by its own argument.
    (home / "kafka" / "pid").write_text(f"{os.getpid()}\n")
    assert kafka.running(home) == bootstrap
    assert kafka.start(home) == bootstrap

    kafka.stop(home)
    assert (kafka.running(home), brokers(home)) == (None, [])
    with ExitStack() as others:
        for port in ports.recorded(home / "kafka" / "ports.json"):
            # Where a connection of another program has the port already, it is as taken as it should be.
            with suppress(OSError):
                others.enter_context(socket.create_server(("127.0.0.1", port)))
        moved = kafka.start(home)
        kafka_topic.ensure_topic(moved, "devices")
    assert moved != bootstrap
    assert leaders(moved, "devices") == [1, 1, 1, 1]


def test_losing_the_race_for_a_port_ends_on_another_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        remembered = ports.remembered
        monkeypatch.setattr(
            ports,
            "remembered",
            lambda *args, fresh: [
                taken if not fresh and index == 0 else port
                for index, port in enumerate(remembered(*args, fresh=True))
            ],
        )
        bootstrap = kafka.start(home)
    assert not bootstrap.endswith(f":{taken}")
    assert len(brokers(home)) == 1


@pytest.fixture
def other_program() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_a_recycled_pid_is_not_the_broker_and_is_left_alone(
    home: Path, other_program: subprocess.Popen[bytes]
) -> None:
    (home / "kafka" / "pid").write_text(f"{other_program.pid}\n")
    assert kafka.running(home) is None
    kafka.stop(home)
    assert other_program.poll() is None


def test_a_broker_that_dies_at_start_shows_its_log_and_leaves_no_process(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_storage, "_SERVER", kafka_storage._SERVER + "log.retention.hours=never\n")
    with pytest.raises(kafka.KafkaError, match=r"(?s)ended while it was starting.*never.*kafka/log\)"):
        kafka.start(home)
    assert brokers(home) == []


def test_a_half_formatted_storage_is_set_aside_and_formatted_anew(tmp_path: Path) -> None:
    folder = tmp_path / "kafka"
    (folder / "data" / "devices-0").mkdir(parents=True)
    (folder / "data" / "meta.properties").write_text("#\n")
    (folder / "data.new" / "killed").mkdir(parents=True)
    kafka_storage.format_storage(folder)
    cluster = kafka_storage.cluster_id(folder / "data")
    assert cluster is not None
    assert (folder / "data.unusable-1" / "devices-0").is_dir()
    assert not (folder / "data.new").exists()
    kafka_storage.format_storage(folder)
    assert kafka_storage.cluster_id(folder / "data") == cluster


def test_a_storage_that_cannot_be_formatted_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_storage, "_SERVER", kafka_storage._SERVER.replace("node.id=1", "node.id=-7"))
    with pytest.raises(kafka.KafkaError, match=r"(?s)could not be formatted.*-7"):
        kafka_storage.format_storage(tmp_path / "kafka")
    assert not (tmp_path / "kafka" / "data").exists()


def test_stopping_nothing_is_harmless_and_makes_nothing(tmp_path: Path) -> None:
    kafka.stop(tmp_path / "nothing")
    assert kafka.running(tmp_path / "nothing") is None
    assert list(tmp_path.iterdir()) == []


def test_a_topic_on_no_broker_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = f"127.0.0.1:{server.getsockname()[1]}"
    client = kafka_topic.admin_client(nobody)
    monkeypatch.setattr(kafka_topic, "admin_client", lambda *_: Impatient(client))
    with pytest.raises(kafka.KafkaError, match=f"cannot create topic 'devices' on {nobody}"):
        kafka_topic.ensure_topic(nobody, "devices")


class Impatient:
    """An admin client that gives up at once."""

    def __init__(self, client: "kafka.AdminClient") -> None:
        self.client = client

    def list_topics(self, *, timeout: float) -> object:
        return self.client.list_topics(timeout=min(timeout, 0.5))

    def poll(self, timeout: float) -> int:
        return self.client.poll(timeout)
