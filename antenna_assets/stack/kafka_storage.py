"""The storage of the embedded broker, formatted atomically, and the broker's configuration."""

import base64
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path

from antenna_assets.errors import AntennaError
from antenna_assets.stack import ports
from antenna_assets.stack.jars import jars_home, kafka_classpath
from antenna_assets.stack.java import LOCALE, java_environment, java_home
from antenna_assets.storage.atomic_files import set_aside

PARTITIONS = 4
LOG_LINES = 15
_FORMAT_SECONDS = 60

# Paths are relative to the broker's working directory: `log.dirs` would split a path at commas. The voters
# are static, so that the controller can listen on another port after a restart.
_SERVER = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
controller.quorum.voters=1@{host}:{controller_port}
log.dirs={data}
auto.create.topics.enable=false
num.partitions={partitions}
log.retention.hours=168
group.initial.rebalance.delay.ms=0
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
"""

_LOG4J = """\
rootLogger.level = WARN
rootLogger.appenderRefs = file
rootLogger.appenderRef.file.ref = file
logger.server.name = kafka.server
logger.server.level = INFO
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = log/kafka.log
appender.file.filePattern = log/kafka-%i.log
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = [%d] %p %m (%c)%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 10MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 3
"""

_FORMAT_OPTIONS = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


class KafkaError(AntennaError):
    """The embedded Kafka cannot be started or stopped, or a topic not be created; the message says why."""


def format_storage(folder: Path) -> None:
    """Format the storage if there is none, under a temporary name, so that it is complete or absent."""
    data, new = folder / "data", folder / "data.new"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log4j2.properties").write_text(_LOG4J)
    if cluster_id(data) is not None:
        return
    if data.exists():
        set_aside(data)
    shutil.rmtree(new, ignore_errors=True)
    (folder / "format.properties").write_text(server_properties(new.name, 9092, 9093))
    cluster = "-"
    while cluster.startswith("-"):  # Kafka's tools would take it for an option
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
    command = [*java_command(*_FORMAT_OPTIONS), "kafka.tools.StorageTool", "format"]
    done = subprocess.run(
        [*command, "--cluster-id", cluster, "--config", "format.properties"],
        cwd=folder,
        env=java_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_FORMAT_SECONDS,
    )
    if done.returncode or cluster_id(new) != cluster:
        output = "\n".join(done.stdout.splitlines()[-LOG_LINES:])
        raise KafkaError(f"Kafka's storage in {folder} could not be formatted\n{output}")
    new.rename(data)


def cluster_id(data: Path) -> str | None:
    """Return the cluster id of a formatted storage; None if it is not formatted."""
    try:
        match = re.search(r"^cluster\.id=(.+)$", (data / "meta.properties").read_text(), re.MULTILINE)
    except OSError:
        return None
    return match[1] if match else None


def server_properties(data: str, port: int, controller_port: int) -> str:
    """Return the text of `server.properties`."""
    return _SERVER.format(
        host=ports.HOST, port=port, controller_port=controller_port, data=data, partitions=PARTITIONS
    )


def java_command(*options: str, archive_at_exit: Path | None = None) -> list[str]:
    """Return the Java command with Kafka's class path, up to the name of the class to run.

    Args:
        archive_at_exit: where Java writes its classes when it ends, see `kafka_class_archive.py`.
    """
    classpath = kafka_classpath()
    if archive_at_exit is not None:
        archived = [f"-XX:ArchiveClassesAtExit={archive_at_exit}"]
    else:
        shared = class_archive(classpath)
        archived = [f"-XX:SharedArchiveFile={shared}"] if shared.is_file() else []
    return [
        str(java_home() / "bin" / "java"),
        *LOCALE,
        *options,
        # An archive of other classes is ignored silently.
        *("-Xlog:cds=off", "-Xlog:cds+dynamic=off", *archived),
        "-Dlog4j2.configurationFile=log4j2.properties",
        *("-cp", os.pathsep.join(map(str, classpath))),
    ]


def class_archive(classpath: Sequence[Path]) -> Path:
    """The path of the archive of these jars' classes, if it was made."""
    broker = next(jar.stem for jar in classpath if jar.name.startswith("kafka_"))
    return jars_home().parent / f"{broker}.jsa"
