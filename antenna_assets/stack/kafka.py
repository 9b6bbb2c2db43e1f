"""The embedded Kafka broker under `<home>/kafka`: one KRaft node, its storage, its process; and the topic of events.

Nothing here reads or writes events. An external Kafka never comes here, but for `ensure_topic`.
"""

import contextlib
import re
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from antenna_assets.clients.kafka_config import PLAIN, KafkaConfig, Refusal
from antenna_assets.stack import ports
from antenna_assets.stack.java import java_environment
from antenna_assets.stack.kafka_storage import (
    LOG_LINES,
    PARTITIONS,
    KafkaError,
    cluster_id,
    format_storage,
    java_command,
    server_properties,
)

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

_START_SECONDS = 60
_STOP_SECONDS = 30

# The collector saves half a second at start and 100 MB (measured); C2 stays, as the broker runs for long.
_BROKER_OPTIONS = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true")


def start(home: Path) -> str:
    """Start the broker if it does not run, and wait until it answers; return its bootstrap address.

    Raises:
        KafkaError: it does not start; the message holds the end of its log, and no process is left.
        JavaError: there is no Java to run it.
        JarsError: its jars could not be had.
    """
    folder = _folder(home)
    broker = _broker(folder)
    for last in (False, True):
        if broker is None:
            format_storage(folder)
            broker = _launch(folder, fresh_ports=last)
        try:
            return _answering(folder, broker)
        except BaseException as error:
            _end(broker)
            broker = None
            # Another program took a port between our look and the broker's.
            if last or not isinstance(error, KafkaError) or "Address already in use" not in str(error):
                raise
    raise AssertionError("unreachable")


def running(home: Path) -> str | None:
    """The bootstrap address of the broker if it runs and accepts connections."""
    folder = _folder(home)
    if _broker(folder) is None:
        return None
    port = _port(folder)
    return f"{ports.HOST}:{port}" if ports.is_open(ports.HOST, port, 1) else None


def stop(home: Path) -> None:
    """Stop the broker; harmless if it does not run.

    Raises:
        KafkaError: it does not stop.
    """
    folder = _folder(home)
    broker = _broker(folder)
    if broker is not None:
        _end(broker)
        (folder / "pid").unlink(missing_ok=True)


def ensure_topic(
    bootstrap: str, topic: str, partitions: int = PARTITIONS, *, config: KafkaConfig = PLAIN
) -> None:
    """Create the topic if it is missing, and wait until all its partitions have leaders.

    An existing topic is left as it is, with the partitions that it has.

    Raises:
        KafkaError: the topic cannot be made, or has no leaders within 30 seconds.
    """
    from confluent_kafka import KafkaError as Code
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import NewTopic

    refusal = Refusal()
    admin = admin_client(bootstrap, config, refusal)
    # By the time of arrival: a sender's own time may be any number, and retention would go by it.
    settings = {"cleanup.policy": "delete", "message.timestamp.type": "LogAppendTime"}
    new = NewTopic(topic, num_partitions=partitions, replication_factor=-1, config=settings)
    try:
        if topic not in admin.list_topics(timeout=10).topics:
            admin.create_topics([new], operation_timeout=10)[topic].result(20)
    except KafkaException as error:
        if error.args[0].code() != Code.TOPIC_ALREADY_EXISTS:
            admin.poll(0)
            said = refusal.reason or error.args[0].str()
            raise KafkaError(f"cannot make topic {topic!r} on {bootstrap}: {said}") from error
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(KafkaException):
            found = admin.list_topics(topic, timeout=5).topics[topic]
            if (
                found.error is None
                and found.partitions
                and all(p.leader >= 0 for p in found.partitions.values())
            ):
                return
        time.sleep(0.1)
    raise KafkaError(
        f"expected every partition of {topic!r} on {bootstrap} to have a leader, found some without"
    )


def admin_client(
    bootstrap: str, config: KafkaConfig = PLAIN, refusal: Refusal | None = None
) -> "AdminClient":
    """An admin client that is silent: librdkafka prints a line for each refused connection otherwise.

    Args:
        refusal: is told, in the client's `poll`, why it is not let in.
    """
    from confluent_kafka.admin import AdminClient

    return AdminClient(
        {
            **config.for_librdkafka(),
            "bootstrap.servers": bootstrap,
            "log_level": 0,
            "error_cb": refusal or Refusal(),
        }
    )


# -- The process -------------------------------------------------------------------------------------------------


def _folder(home: Path) -> Path:
    return home.resolve() / "kafka"


def _marker(folder: Path) -> str:
    """An argument that only the broker of this folder has: it tells it from a process that got a recycled pid."""
    return f"-Dantenna.kafka={folder}"


def _broker(folder: Path) -> psutil.Process | None:
    """The broker's process: the one in the pid file, or, where that is stale, any that carries our marker."""
    if not folder.is_dir():
        return None
    try:
        noted = psutil.Process(int((folder / "pid").read_text()))
        if _is_broker(noted, folder):
            return noted
    except (OSError, ValueError, psutil.Error):
        pass
    # A start that was killed before it wrote the pid leaves a broker that holds the storage.
    return next((process for process in psutil.process_iter() if _is_broker(process, folder)), None)


def _is_broker(process: psutil.Process, folder: Path) -> bool:
    try:
        return _marker(folder) in process.cmdline()
    except psutil.Error:
        return False


def _port(folder: Path) -> int:
    match = re.search(
        r"^advertised\.listeners=.*:(\d+)$", (folder / "server.properties").read_text(), re.MULTILINE
    )
    if match is None:
        raise KafkaError(f"expected advertised.listeners in {folder / 'server.properties'}, found none")
    return int(match[1])


def _launch(folder: Path, *, fresh_ports: bool) -> psutil.Process:
    (folder / "log").mkdir(exist_ok=True)
    for log in _logs(folder):  # so that the end of the log is this start's
        with contextlib.suppress(FileNotFoundError):
            log.replace(log.with_suffix(".previous.log"))
    port, controller_port = ports.remembered(folder / "ports.json", 2, fresh=fresh_ports)
    (folder / "server.properties").write_text(server_properties("data", port, controller_port))
    command = [*java_command(*_BROKER_OPTIONS, _marker(folder)), "kafka.Kafka", "server.properties"]
    # The shell ends at once and the broker gets another parent: it outlives this process and leaves no zombie in it.
    # A session of its own keeps a terminal's Ctrl-C away.
    done = subprocess.run(
        ["/bin/sh", "-c", '"$@" </dev/null >log/console.log 2>&1 & echo $!', "sh", *command],
        cwd=folder,
        env=java_environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        start_new_session=True,
    )
    pid = int(done.stdout)
    (folder / "pid").write_text(f"{pid}\n")
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess as error:
        raise KafkaError(f"Kafka ended at once\n{_log_end(folder)}") from error


def _answering(folder: Path, broker: psutil.Process) -> str:
    """Wait until the broker answers as the node of our storage; return its address."""
    from confluent_kafka import KafkaException

    port, cluster = _port(folder), cluster_id(folder / "data")
    bootstrap = f"{ports.HOST}:{port}"
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if not _alive(broker):
            raise KafkaError(f"Kafka ended while it was starting\n{_log_end(folder)}")
        if ports.is_open(ports.HOST, port, 1):
            with contextlib.suppress(KafkaException):
                metadata = admin_client(bootstrap).list_topics(timeout=2)
                # Another Kafka may have taken the port: then ours is about to end.
                if metadata.brokers and metadata.cluster_id == cluster:
                    return bootstrap
        time.sleep(0.05)
    raise KafkaError(f"expected Kafka to answer on {bootstrap} within {_START_SECONDS} s\n{_log_end(folder)}")


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _end(process: psutil.Process) -> None:
    for send, seconds in ((process.terminate, _STOP_SECONDS), (process.kill, 5)):
        with contextlib.suppress(psutil.NoSuchProcess):
            send()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not _alive(process):
                return
            time.sleep(0.05)
    raise KafkaError(f"expected Kafka (process {process.pid}) to end after SIGKILL, found it running")


def _logs(folder: Path) -> list[Path]:
    return [folder / "log" / name for name in ("console.log", "kafka.log")]


def _log_end(folder: Path) -> str:
    """The last lines of the logs without their stack traces, which are longer than what they are about."""
    lines: list[str] = []
    for log in _logs(folder):
        with contextlib.suppress(OSError):
            said = [
                line for line in log.read_text(errors="replace").splitlines() if not line.startswith("\tat ")
            ]
            lines += said[-LOG_LINES:]
    return "\n".join([*lines, f"(from {folder / 'log'})"])
