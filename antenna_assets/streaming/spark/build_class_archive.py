"""An archive of Spark's loaded and verified classes, which every later start maps into memory.

Java calls it a dynamic class data sharing archive. It is valid for the Java and the jars that it was made
with; with others Java ignores it. Sessions are started in `engines/spark_session.py`.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from antenna_assets.engines.spark_session import archive
from antenna_assets.errors import AntennaError
from antenna_assets.storage.atomic_files import READABLE, program_folder


class ArchiveError(AntennaError):
    """The archive could not be made; Spark starts without it, more slowly."""


def make_archive() -> None:
    """Start Spark once, land a few messages, and let Java write down the classes at its end.

    Raises:
        ArchiveError: Spark or Java failed.
    """
    target = archive()
    program_folder(target.parent)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        written = Path(folder) / target.name
        done = subprocess.run(
            (sys.executable, "-m", __spec__.name, str(written)), capture_output=True, text=True, cwd=folder
        )
        if done.returncode or not written.is_file():
            raise ArchiveError(
                f"expected Java to write {written.name}, it ended with {done.returncode}: "
                f"{done.stderr.strip()[-500:]}"
            )
        written.chmod(READABLE)
        written.replace(target)


def _rehearse(target: str) -> None:
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


def main(arguments: list[str]) -> int:
    """Make the archive unless it exists: `python -m antenna_assets.streaming.spark.build_class_archive`."""
    if arguments:
        _rehearse(arguments[0])
    elif not archive().is_file():
        try:
            make_archive()
        except ArchiveError as error:
            # An environment without it is complete.
            sys.stderr.write(f"{error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
