"""Spark sessions: their Java, jars, configuration and environment.

The stream and the engine use them.
"""

import logging
import os
import pwd
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from antenna_assets.errors import EngineError
from antenna_assets.file_modes import umask
from antenna_assets.settings import foreign_variable, s3_endpoint
from antenna_assets.stack.jars import jars_home, store_jars
from antenna_assets.stack.java import LOCALE

if TYPE_CHECKING:
    from socketserver import BaseServer

    from pyspark.sql import SparkSession

IMAGE = "antenna-lakehouse-spark"
"""The container image that has Spark and a Java; the one that is built by default has neither."""

LOG_CONFIGURATION = Path(__file__).with_name("log4j2.properties")

# What the stream and the engine rely on, whatever the cluster's defaults.
COMMON = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.parquet.compression.codec": "zstd",
    "spark.sql.ansi.enabled": "true",
    # No `_SUCCESS` files: the ledger and Delta say what is complete.
    "spark.hadoop.mapreduce.fileoutputcommitter.marksuccessfuljobs": "false",
    # No `.crc` files either: parquet has its own checksums.
    "spark.hadoop.fs.file.impl": "org.apache.hadoop.fs.RawLocalFileSystem",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}

LOCAL = {
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.memory": "2g",
    "spark.sql.shuffle.partitions": str(os.cpu_count() or 2),
}


COMPILE_ALL = "-XX:-DontCompileHugeMethods"
"""Compile methods of any size: Spark generates one for a message's whole pipeline.

By default Java compiles none beyond 8,000 bytes of bytecode: measured, that takes three times as long.
"""


_OTHERS = ("SPARK_", "PYSPARK_", "HADOOP_", "YARN_")
_CLUSTER_VARIABLES = (
    "SPARK_LOCAL_IP",
    "SPARK_PUBLIC_DNS",
    "SPARK_LOCAL_HOSTNAME",
    "HADOOP_CONF_DIR",
    "YARN_CONF_DIR",
    "PYSPARK_PYTHON",
)
_OURS = ("SPARK_LOCAL_DIRS", "SPARK_USER", "HADOOP_USER_NAME")


def require_pyspark(what: str, *, without: str) -> None:
    """Require the package pyspark.

    Args:
        what: the part of the system that is set to run on Spark.
        without: the setting with which it runs on something else.

    Raises:
        EngineError: the package is not installed.
    """
    if find_spec("pyspark") is None:
        raise EngineError(
            f"{what} is set to run on Spark, and the package pyspark is not installed: use the image "
            f"{IMAGE} (docs/containers.md) or `pip install 'antenna-assets[spark]'`, or set {without}, which "
            "needs neither Spark nor Java"
        )


def use_java(master: str = "local") -> None:
    """Set up this process's environment for PySpark's launcher: the right Java, no foreign configuration.

    Variables of another Spark, Hadoop or Java are removed; those that a cluster needs stay if `master` is
    one. The executors' Python is this one, under the same path, unless `PYSPARK_PYTHON` of a cluster names
    another.
    """
    from antenna_assets.stack.java import java_environment, java_home

    home = java_home()
    kept = _OURS if master.startswith("local") else (*_OURS, *_CLUSTER_VARIABLES)
    ours = {
        name: text
        for name, text in java_environment().items()
        if name in kept or not name.startswith(_OTHERS)
    }
    for name in os.environ.keys() - ours:
        del os.environ[name]
    os.environ.update({"PYSPARK_PYTHON": sys.executable, **ours, "JAVA_HOME": str(home)})


def start_java(options: Mapping[str, str], **popen: Any) -> None:
    """Start the Java for a session with these options, unless this process has one.

    Args:
        popen: further arguments of `subprocess.Popen`.
    """
    use_java(options.get("spark.master", "local"))
    from pyspark import SparkConf, SparkContext
    from pyspark.java_gateway import launch_gateway

    if SparkContext._gateway is not None:
        return
    nameless = not _user_has_a_name()
    if nameless:
        options = _without_a_user_name(options)
    gateway = launch_gateway(SparkConf(loadDefaults=False).setAll(list(options.items())), popen)
    if nameless:
        # Java asks the system for its user's name, and Hadoop fails without one.
        hadoop = gateway.jvm.org.apache.hadoop.security.UserGroupInformation
        hadoop.setLoginUser(hadoop.createRemoteUser(foreign_variable("HADOOP_USER_NAME") or "antenna"))
    SparkContext._ensure_initialized(gateway=gateway)


def _user_has_a_name() -> bool:
    """Whether the system knows a name for this user; in a container it may not."""
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return True


def _without_a_user_name(options: Mapping[str, str]) -> dict[str, str]:
    """The options for a Java whose user has no name: until one is set, Hadoop must open no jar."""
    home = foreign_variable("HOME") or ""
    home = home if Path(home).is_absolute() and os.access(home, os.W_OK) else tempfile.gettempdir()
    jars = options.get("spark.jars", "").replace(",", os.pathsep)
    java_options = options.get("spark.driver.extraJavaOptions", "")
    return {
        **{name: text for name, text in options.items() if name != "spark.jars"},
        **({"spark.driver.extraClassPath": jars} if jars else {}),
        "spark.driver.extraJavaOptions": f'{java_options} "-Duser.home={home}"',
    }


def configuration(master: str, archive_at_exit: str | None = None) -> dict[str, str]:
    """The configuration of a session on `master`; see `session`."""
    return {
        **COMMON,
        **(LOCAL if master.startswith("local") else {}),
        # Hadoop sets file modes without regard to the process's umask.
        "spark.hadoop.fs.permissions.umask-mode": f"{umask():03o}",
        "spark.driver.extraJavaOptions": " ".join(_java_options(archive_at_exit)),
        "spark.executor.extraJavaOptions": " ".join([*LOCALE, COMPILE_ALL]),
    }


def store_configuration(lake: str) -> dict[str, str]:
    """Additional configuration for a lake in an object store; empty for one on a disk.

    With Spark Connect its server has to be configured.

    Raises:
        JarsError: the store's connector could not be had.
    """
    jars = store_jars(lake)
    if not jars:
        return {}
    options = {
        "spark.jars": ",".join(map(str, jars)),
        # A block is buffered here before it is sent, through Hadoop's own class for local files.
        "spark.hadoop.fs.file.impl": "org.apache.hadoop.fs.LocalFileSystem",
    }
    if lake.startswith("gs://"):
        return {
            **options,
            # In Google's usual order: file named by the environment, login of gcloud, machine or pod.
            "spark.hadoop.fs.gs.auth.type": "APPLICATION_DEFAULT",
        }
    options |= {
        # Under the scheme that all other programs use, too.
        "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        # In Amazon's usual order: environment, profile, container, machine.
        "spark.hadoop.fs.s3a.aws.credentials.provider": (
            "software.amazon.awssdk.auth.credentials.DefaultCredentialsProvider"
        ),
        # Spark's folder for temporary files; Hadoop's default creates a folder that stays. Hadoop reads the
        # variable.
        "spark.hadoop.fs.s3a.buffer.dir": f"${{env.SPARK_LOCAL_DIRS:-{tempfile.gettempdir()}}}",
        # The stream waits for a store that is away, and reports it; Hadoop's defaults would hide it for
        # minutes.
        "spark.hadoop.fs.s3a.attempts.maximum": "2",
        "spark.hadoop.fs.s3a.retry.limit": "3",
        "spark.hadoop.fs.s3a.connection.establish.timeout": "5s",
    }
    endpoint = s3_endpoint()
    if endpoint is not None:
        options["spark.hadoop.fs.s3a.endpoint"] = endpoint
        # A self-hosted server has no address for each bucket.
        options["spark.hadoop.fs.s3a.path.style.access"] = "true"
    return options


def _java_options(archive_at_exit: str | None) -> list[str]:
    options = [
        *LOCALE,
        # Java takes its log configuration as a URI, in which spaces are quoted.
        f"-Dlog4j2.configurationFile={LOG_CONFIGURATION.as_uri()}",
        # 10 % faster than G1 with micro-batches on two cores.
        "-XX:+UseParallelGC",
        COMPILE_ALL,
        # An archive of other classes is ignored silently.
        "-Xlog:cds=off",
        "-Xlog:cds+dynamic=off",
    ]
    if archive_at_exit is not None:
        # The quick compiler takes half the time for the same classes.
        options += ["-XX:TieredStopAtLevel=1", f'"-XX:ArchiveClassesAtExit={archive_at_exit}"']
    elif (shared := archive()).is_file():
        options.append(f'"-XX:SharedArchiveFile={shared}"')
    return options


def session(
    name: str, *, master: str, extra: dict[str, str], archive_at_exit: str | None = None
) -> "SparkSession":
    """Start a session, or return the one that this process has.

    Args:
        archive_at_exit: where Java writes its classes at exit, for `streaming/spark/build_class_archive.py`.
    """
    use_java(master)
    from pyspark import SparkConf
    from pyspark.sql import SparkSession

    configured = configuration(master, archive_at_exit)
    options = {"spark.app.name": name, "spark.master": master, **configured, **extra}
    conf = SparkConf().setAll(list(options.items()))
    # py4j logs a traceback for each error that it also raises.
    logging.getLogger("py4j").setLevel(logging.CRITICAL)
    # Some on the root logger.
    logging.getLogger().addFilter(_is_not_of_py4j)
    with _interrupt_handler_preserved():
        # In a process group of its own: a signal to ours, from Ctrl-C or a service manager, reaches only
        # Python, which then stops Java. If Python dies, Java sees the end of its input and exits.
        start_java(options, start_new_session=True)
        spark = SparkSession.builder.config(conf=conf).getOrCreate()
    _end_quietly_with_java(spark.sparkContext._accumulatorServer)
    return spark


def _end_quietly_with_java(accumulators: "BaseServer") -> None:
    """Let PySpark's server of accumulators end quietly with Java, on whose connection it prints a traceback.

    Whoever waits for Java reports that it has exited.
    """

    def handle_error(request: Any, address: Any) -> None:
        if not isinstance(sys.exc_info()[1], (EOFError, ConnectionError)):
            type(accumulators).handle_error(accumulators, request, address)

    accumulators.handle_error = handle_error  # type: ignore[method-assign, assignment]


def _is_not_of_py4j(record: logging.LogRecord) -> bool:
    return "py4j" not in Path(record.pathname).parts


def java_has_exited() -> bool:
    """Whether the Java process that this process started for Spark has exited: killed, or out of memory."""
    from pyspark import SparkContext

    gateway = SparkContext._gateway
    process = None if gateway is None else getattr(gateway, "proc", None)
    return process is not None and process.poll() is not None


@contextmanager
def _interrupt_handler_preserved() -> Iterator[None]:
    """Keep the handler of Ctrl-C, which a new SparkContext replaces."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


def archive() -> Path:
    """The path of this environment's class archive, if it was made."""
    return jars_home().parent / f"spark-{version('pyspark')}.jsa"
