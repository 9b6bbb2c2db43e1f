"""Writing a micro-batch as parquet files: accepted events by hour, rejected messages with their reasons.

The folder is an attempt's (`storage/attempt.py`); what was written is read back in `streaming/read_back.py`.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from antenna_assets.domain.landing import REJECTED_FOLDER
from antenna_assets.domain.schema import REJECTED_SCHEMA
from antenna_assets.failpoints import commit_point, task_point
from antenna_assets.storage.attempt import lake_errors
from antenna_assets.streaming.read_back import WrittenAttempt
from antenna_assets.streaming.spark.judging import judged
from antenna_assets.streaming.verdicts.bounds import Bounds
from antenna_assets.streaming.verdicts.judged import ACCEPTED_SCHEMA

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def write(messages: "DataFrame", *, lake: str, folder: str, bounds: Bounds) -> WrittenAttempt:
    """Judge a micro-batch of Kafka messages and write it below `folder`.

    Args:
        bounds: by which events are accepted or rejected.

    Raises:
        LakeUnwritable: the lake's disk is full, or fails.
    """
    from pyspark.sql import Observation
    from pyspark.sql import functions as F

    begun = datetime.now(UTC)
    target = f"{lake}/{folder}"
    # Counted while the messages are judged: an action of its own would cost more than a small batch.
    read, counted = Observation(), Observation()
    size = F.coalesce(F.sum(F.octet_length("value")), F.lit(0)).alias("bytes")
    # Both writes below need the verdicts: judge once.
    verdicts = judged(messages.observe(read, size), bounds)
    verdicts = verdicts.observe(
        counted, F.count("*").alias("messages"), F.count("hour").alias("accepted")
    ).persist()
    with lake_errors(lake):
        try:
            accepted = verdicts.where("hour IS NOT NULL").select(*ACCEPTED_SCHEMA.names)
            commit_point("stream.land.before_write")
            with task_point("stream.jvm.task", messages.sparkSession.sparkContext):
                accepted.write.partitionBy("hour").parquet(target)
            counts = counted.get
            if counts["messages"] > counts["accepted"]:
                rejected = verdicts.where("hour IS NULL").select(*REJECTED_SCHEMA.names)
                # One file.
                rejected.coalesce(1).write.parquet(f"{target}/{REJECTED_FOLDER}")
        finally:
            verdicts.unpersist()
    return WrittenAttempt(folder, begun, counts["messages"], read.get["bytes"])
