"""Spark sessions: which Java, jars and configuration they get.

What runs in a session is the stream's or the engine's matter.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LOG_CONFIGURATION = Path(__file__).with_name("log4j2.properties")

# What both the stream and the engine rely on, whatever the cluster's defaults are.
COMMON = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.parquet.compression.codec": "zstd",
    "spark.sql.ansi.enabled": "true",
    # No `_SUCCESS` beside the files: the ledger and Delta say what is complete.
    "spark.hadoop.mapreduce.fileoutputcommitter.marksuccessfuljobs": "false",
    # No `.crc` beside the files either: parquet has checksums of its own.
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


def use_java() -> None:
    """Let PySpark's launcher find the Java that fits it; it reads JAVA_HOME from this process."""
    from antenna_assets.stack.java import java_home

    os.environ["JAVA_HOME"] = str(java_home())


def configuration(master: str) -> dict[str, str]:
    """The configuration of a session on `master`."""
    options = {**COMMON, **(LOCAL if master.startswith("local") else {})}
    # Java takes its log configuration as an address; a path with spaces needs the quoting that as_uri gives.
    options["spark.driver.extraJavaOptions"] = f"-Dlog4j2.configurationFile={LOG_CONFIGURATION.as_uri()}"
    return options


def session(name: str, *, master: str, extra: dict[str, str]) -> "SparkSession":
    """Start a session, or take the one that this process has."""
    use_java()
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName(name).master(master)
    for key, value in {**configuration(master), **extra}.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()
