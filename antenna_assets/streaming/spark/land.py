"""Writing a micro-batch as parquet files: accepted events by hour, rejected messages with their reasons.

The folder is an attempt's (`storage/attempt.py`); what was written is read back in `streaming/read_back.py`.
"""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from antenna_assets.domain.landing import REJECTED_FOLDER
from antenna_assets.domain.schema import LANDED_SCHEMA, REJECTED_SCHEMA
from antenna_assets.failpoints import commit_point, task_point
from antenna_assets.storage.attempt import lake_errors
from antenna_assets.streaming.read_back import WrittenAttempt
from antenna_assets.streaming.spark.layout import Layout
from antenna_assets.streaming.spark.parse import explain_rejections, validated

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


MANY_REJECTED = 10_000
MUCH_REJECTED_BYTES = 4 * 2**20


def write(
    messages: "DataFrame",
    *,
    lake: str,
    folder: str,
    clock: datetime,
    oldest: datetime,
    full: Collection[datetime] = (),
    layout: Layout | None = None,
) -> WrittenAttempt:
    """Parse a micro-batch of Kafka messages and write it below `folder`.

    Args:
        clock: PostgreSQL's clock, by which events are accepted or rejected.
        oldest: events before this instant are too old.
        full: hours that take no more events.
        layout: that of most messages.

    Raises:
        LakeUnwritable: the lake's disk is full, or fails.
    """
    from pyspark.sql import Observation
    from pyspark.sql import functions as F

    begun = datetime.now(UTC)
    target = f"{lake}/{folder}"
    # Counted while the messages are parsed: an action of its own would cost more than a small batch.
    read, counted = Observation(), Observation()
    size = F.coalesce(F.sum(F.octet_length("value")), F.lit(0)).alias("bytes")
    # Both writes below need the verdicts: parse once, and keep the raw bytes of rejected messages only.
    verdicts = validated(messages.observe(read, size), clock=clock, oldest=oldest, full=full, layout=layout)
    verdicts = verdicts.observe(
        counted, F.count("*").alias("messages"), F.count("hour").alias("accepted"), size
    ).persist()
    with lake_errors(lake):
        try:
            accepted = verdicts.where("hour IS NOT NULL").select(*LANDED_SCHEMA.names, "hour")
            commit_point("stream.land.before_write")
            with task_point("stream.jvm.task", messages.sparkSession.sparkContext):
                accepted.write.partitionBy("hour").parquet(target)
            counts = counted.get
            if refused := counts["messages"] - counts["accepted"]:
                # One file. Finding many reasons, or searching long messages, is worth a shuffle: all of them
                # may be of one Kafka partition.
                much = refused >= MANY_REJECTED or counts["bytes"] >= MUCH_REJECTED_BYTES
                refusals = verdicts.where("hour IS NULL")
                if much:
                    refusals = refusals.repartition(messages.sparkSession.sparkContext.defaultParallelism)
                rejected = explain_rejections(refusals, clock=clock, oldest=oldest, full=full).select(
                    *REJECTED_SCHEMA.names
                )
                rejected = rejected.repartition(1) if much else rejected.coalesce(1)
                rejected.write.parquet(f"{target}/{REJECTED_FOLDER}")
        finally:
            verdicts.unpersist()
    return WrittenAttempt(folder, begun, counts["messages"], read.get["bytes"])
