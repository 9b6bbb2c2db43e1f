"""The jars of Flink's Kafka source and parquet sink, in a lock of their own.

Run as a module, this writes the lock.
"""

from pathlib import Path

from antenna_assets.stack.jars import ensure, pyspark_jars, resolve, write_lock

_LOCK = Path(__file__).with_name("flink_jars.lock.toml")
# Of the version of apache-flink in benchmarks/peers; the connector's name ends with the oldest Flink that it
# fits.
_ROOTS = (
    "org.apache.flink:flink-sql-connector-kafka:5.0.0-2.2",
    "org.apache.flink:flink-sql-parquet:2.3.0",
    "commons-logging:commons-logging:1.3.5",
)


def flink_classpath() -> list[Path]:
    """What Flink's Kafka source and parquet sink need beyond its own jars; Hadoop's client is pyspark's.

    Raises:
        JarsError: a jar could not be had.
    """
    return ensure("flink", lock=_LOCK) + sorted(pyspark_jars().glob("hadoop-client-*.jar"))


if __name__ == "__main__":
    write_lock(_LOCK, {"flink": resolve(*_ROOTS)})
