"""The archive of Spark's classes (`stack/class_archive.py`).

Sessions are started in `engines/spark_session.py`.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from antenna_assets.engines.spark_session import archive
from antenna_assets.errors import AntennaError
from antenna_assets.stack.class_archive import ensure_archive


class ArchiveError(AntennaError):
    """The archive could not be made; Spark starts without it, more slowly."""


def rehearse(target: Path) -> None:
    """Start Spark once, land a few messages, and let Java write down the classes at its end.

    Raises:
        ArchiveError: Spark or Java failed.
    """
    done = subprocess.run(
        (sys.executable, "-m", __spec__.name, str(target)), capture_output=True, text=True, cwd=target.parent
    )
    if done.returncode or not target.is_file():
        raise ArchiveError(
            f"expected Java to write {target.name}, it ended with {done.returncode}: "
            f"{done.stderr.strip()[-500:]}"
        )


def _start(target: str) -> None:
    """Load what a start of the stream loads: a session, a query, and a landing of good and bad messages."""
    from datetime import UTC, datetime, timedelta

    from pyspark import SparkContext

    from antenna_assets.engines.spark_session import session
    from antenna_assets.stack.jars import spark_jars
    from antenna_assets.streaming.spark.judging import ARROW_CONF
    from antenna_assets.streaming.spark.land import write
    from antenna_assets.streaming.verdicts.bounds import Bounds

    recorded = {"spark.jars": ",".join(map(str, spark_jars())), **ARROW_CONF}
    spark = session("class archive", master="local[*]", extra=recorded, archive_at_exit=target)
    good = '{"bytes":1,"timestamp":1790000000,"app":"a","id":"b","antenna_id":"c"}'
    messages = spark.sql(
        f"SELECT CAST(IF(id % 10 = 0, '{{', '{good}') AS BINARY) AS value,"  # noqa: S608
        " CAST(id % 4 AS INT) AS partition, id AS offset,"
        " current_timestamp() AS timestamp FROM range(0, 1000, 1, 4)"
    )
    clock = datetime.fromtimestamp(1_790_000_060, UTC)
    with tempfile.TemporaryDirectory() as lake:
        write(messages, lake=lake, folder="landing/1", bounds=Bounds(clock, clock - timedelta(days=1)))
        query = (
            spark.readStream.format("rate")
            .load()
            .writeStream.foreachBatch(lambda batch, _: batch.count())
            .option("checkpointLocation", f"{lake}/checkpoint")
            .trigger(availableNow=True)
            .start()
        )
        query.awaitTermination(60)
    java = SparkContext._gateway.proc
    spark.stop()
    java.stdin.close()
    java.wait()


def main(arguments: list[str]) -> None:
    """Make the archive unless it exists: `python -m antenna_assets.streaming.spark.build_class_archive`."""
    if arguments:
        _start(arguments[0])
    else:
        ensure_archive(archive(), rehearse)


if __name__ == "__main__":
    main(sys.argv[1:])
