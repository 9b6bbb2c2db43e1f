"""The process of the embedded Kafka broker in `<home>/kafka`, a single KRaft node.

Its storage and configuration are in `kafka_storage.py`, its topic in `kafka_topic.py`.
"""

import contextlib
import re
import subprocess
import time
from pathlib import Path

import psutil

from antenna_assets.stack import ports
from antenna_assets.stack.java import java_environment
from antenna_assets.stack.kafka_storage import (
    LOG_LINES,
    KafkaError,
    cluster_id,
    format_storage,
    java_command,
    server_properties,
)
from antenna_assets.stack.kafka_topic import admin_client
from antenna_assets.stack.processes import ended_within, is_alive

_START_SECONDS = 60
_STOP_SECONDS = 30

# The serial collector saves half a second at the start and 100 MB (measured). C2 stays on: the broker runs
# long.
_BROKER_OPTIONS = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true")


def start(home: Path, *, archive_at_exit: Path | None = None) -> str:
    """Start the broker unless it runs, wait until it answers, and return its bootstrap address.

    Args:
        archive_at_exit: where it writes its classes when it ends, see `kafka_class_archive.py`.

    Raises:
        KafkaError: it does not start; the message has the end of its log, and no process is left.
        JavaError: there is no Java to run it.
        JarsError: its jars could not be fetched.
    """
    folder = _folder(home)
    broker = _broker(folder)
    for last in (False, True):
        if broker is None:
            format_storage(folder)
            broker = _launch(folder, fresh_ports=last, archive_at_exit=archive_at_exit)
        try:
            return _answering(folder, broker)
        except BaseException as error:
            _end(broker)
            broker = None
            # Another program took a port between our check and the broker's start.
            if last or not isinstance(error, KafkaError) or "Address already in use" not in str(error):
                raise
    raise AssertionError("unreachable")


def running(home: Path) -> str | None:
    """Return the bootstrap address of the broker if it runs and accepts connections."""
    folder = _folder(home)
    if _broker(folder) is None:
        return None
    port = _port(folder)
    return f"{ports.HOST}:{port}" if ports.is_open(ports.HOST, port, 1) else None


def stop(home: Path) -> None:
    """Stop the broker. Does nothing if it does not run.

    Raises:
        KafkaError: it does not stop.
    """
    folder = _folder(home)
    broker = _broker(folder)
    if broker is not None:
        _end(broker)
        (folder / "pid").unlink(missing_ok=True)


def _folder(home: Path) -> Path:
    return home.resolve() / "kafka"


def _marker(folder: Path) -> str:
    """A command-line argument that identifies the broker of this folder, whatever process has its old pid."""
    return f"-Dantenna.kafka={folder}"


def _broker(folder: Path) -> psutil.Process | None:
    """The broker's process: that of the pid file or, if the file is stale, the one with our marker."""
    if not folder.is_dir():
        return None
    try:
        noted = psutil.Process(int((folder / "pid").read_text()))
        if _is_broker(noted, folder):
            return noted
    except (OSError, ValueError, psutil.Error):
        pass
    # A start that is killed before it has written the pid leaves a broker that locks the storage.
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


def _launch(folder: Path, *, fresh_ports: bool, archive_at_exit: Path | None) -> psutil.Process:
    (folder / "log").mkdir(exist_ok=True)
    for log in _logs(folder):  # so that the end of the log belongs to this start
        with contextlib.suppress(FileNotFoundError):
            log.replace(log.with_suffix(".previous.log"))
    port, controller_port = ports.remembered(folder / "ports.json", 2, fresh=fresh_ports)
    (folder / "server.properties").write_text(server_properties("data", port, controller_port))
    java = java_command(*_BROKER_OPTIONS, _marker(folder), archive_at_exit=archive_at_exit)
    command = [*java, "kafka.Kafka", "server.properties"]
    # The shell exits at once and the broker is reparented: it outlives this process and leaves no zombie. A
    # session of its own keeps Ctrl-C away from it.
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
    """Wait until the broker answers with the cluster id of our storage; return its address."""
    from confluent_kafka import KafkaException

    port, cluster = _port(folder), cluster_id(folder / "data")
    bootstrap = f"{ports.HOST}:{port}"
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if not is_alive(broker):
            raise KafkaError(f"Kafka ended while it was starting\n{_log_end(folder)}")
        if ports.is_open(ports.HOST, port, 1):
            with contextlib.suppress(KafkaException):
                metadata = admin_client(bootstrap).list_topics(timeout=2)
                # If another Kafka took the port, ours is about to exit.
                if metadata.brokers and metadata.cluster_id == cluster:
                    return bootstrap
        time.sleep(0.05)
    raise KafkaError(f"expected Kafka to answer on {bootstrap} within {_START_SECONDS} s\n{_log_end(folder)}")


def _end(process: psutil.Process) -> None:
    for send, seconds in ((process.terminate, _STOP_SECONDS), (process.kill, 5)):
        with contextlib.suppress(psutil.NoSuchProcess):
            send()
        if ended_within(process, seconds):
            return
    raise KafkaError(f"expected Kafka (process {process.pid}) to end after SIGKILL, found it running")


def _logs(folder: Path) -> list[Path]:
    return [folder / "log" / name for name in ("console.log", "kafka.log")]


def _log_end(folder: Path) -> str:
    """The last lines of the logs, without stack traces."""
    lines: list[str] = []
    for log in _logs(folder):
        with contextlib.suppress(OSError):
            text = log.read_text(errors="replace").splitlines()
            lines += [line for line in text if not line.startswith("\tat ")][-LOG_LINES:]
    return "\n".join([*lines, f"(from {folder / 'log'})"])
