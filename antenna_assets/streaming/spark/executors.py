"""The Python of a cluster's executors: it gets this package from the stream, and has to show that it works.

So an executor never judges by the rules of another version. What it needs itself is a Python of the same
minor version with pyarrow and duckdb (docs/google-cloud.md).
"""

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import antenna_assets
from antenna_assets.errors import StreamError
from antenna_assets.streaming.errors import first_line
from antenna_assets.streaming.spark.judging import judged
from antenna_assets.streaming.spark.process import is_spark_error
from antenna_assets.streaming.verdicts.bounds import Bounds

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ARCHIVE = "antenna_assets.zip"


class ExecutorsUnfit(StreamError):
    """The executors of a cluster cannot judge messages; another start changes nothing."""


def prepare_executors(spark: "SparkSession") -> None:
    """Give a cluster's executors this package and let one of them judge a message.

    With the master `local[...]` there is nothing to do: their Python is this one.

    Raises:
        ExecutorsUnfit: it could not.
    """
    context = spark.sparkContext
    if context.master.partition("[")[0] == "local":
        return
    from pyspark import SparkFiles

    # Spark removes the folder at its end.
    package = Path(SparkFiles.getRootDirectory()) / ARCHIVE
    write_package(package)
    context.addPyFile(str(package))
    _require_a_verdict(spark)


def write_package(archive: Path) -> None:
    """Write this package's Python files as an archive that Python imports from."""
    root = Path(antenna_assets.__file__).parent
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as written:
        for path in sorted(root.rglob("*.py")):
            written.write(path, path.relative_to(root.parent))


def _require_a_verdict(spark: "SparkSession") -> None:
    from datetime import UTC, datetime

    epoch = datetime.fromtimestamp(0, UTC)
    message = spark.sql(
        "SELECT CAST('{}' AS BINARY) AS value, 0 AS partition, 0L AS offset,"
        " timestamp_micros(0) AS timestamp FROM range(1)"
    )
    try:
        judged(message, Bounds(epoch, epoch)).collect()
    except Exception as error:
        if not is_spark_error(error):
            raise
        raise ExecutorsUnfit(
            f"Spark's executors cannot judge messages: {first_line(error)}; their Python is "
            f"{spark.sparkContext.pythonExec} (PYSPARK_PYTHON names another), and must be of this one's "
            "minor version and have pyarrow and duckdb: see docs/google-cloud.md"
        ) from error
