"""Judging a micro-batch in Spark: its rows go to `worker.py` and back as Arrow batches."""

from functools import partial
from typing import TYPE_CHECKING

from antenna_assets.streaming.envelope import MESSAGES
from antenna_assets.streaming.spark.worker import JUDGED, judge_batches
from antenna_assets.streaming.verdicts.bounds import Bounds

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

ARROW_CONF = {
    # Ten times the default: each call of DuckDB costs 3 ms.
    "spark.sql.execution.arrow.maxRecordsPerBatch": "100000",
    # A quarter of the default. A message of any size is one by itself.
    "spark.sql.execution.arrow.maxBytesPerBatch": str(16 * 2**20),
}
"""Configuration of the session for batches of a good size. No verdict depends on it."""


def judged(messages: "DataFrame", bounds: Bounds) -> "DataFrame":
    """The messages with their verdicts, one row each, with the columns of `worker.JUDGED`.

    Args:
        messages: `value` (binary or null), `partition`, `offset`, `timestamp`, as Spark's Kafka source
            has them.
        bounds: the same for all of them.
    """
    from pyspark.sql import DataFrame
    from pyspark.sql.pandas.types import from_arrow_schema
    from pyspark.sql.udf import UserDefinedFunction
    from pyspark.util import PythonEvalType

    judge = UserDefinedFunction(
        partial(judge_batches, bounds=bounds),
        from_arrow_schema(JUDGED),
        "judge",
        PythonEvalType.SQL_MAP_ARROW_ITER_UDF,
    )
    wanted = messages.select(*MESSAGES.names)
    # What `DataFrame.mapInArrow` does, which also asks for pandas, though nothing on this way needs it.
    rows = wanted._jdf.mapInArrow(judge(*MESSAGES.names)._jc, False, None)
    return DataFrame(rows, messages.sparkSession)
