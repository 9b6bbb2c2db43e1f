"""The offsets that Spark planned for a micro-batch, read from its throw-away checkpoint.

`foreachBatch` gets no offsets, and the largest offset seen plus one is wrong after control records.
"""

import json
from pathlib import Path

from antenna_assets.ledger.offsets import OffsetRange


def planned_ranges(checkpoint: Path, topic: str, spark_batch: int) -> list[OffsetRange]:
    """The ranges of one micro-batch; partitions without any are left out."""
    if spark_batch == 0:
        starts = _offsets((checkpoint / "sources" / "0" / "0").read_text(encoding="utf-8"), topic)
    else:
        starts = _offsets((checkpoint / "offsets" / str(spark_batch - 1)).read_text(encoding="utf-8"), topic)
    ends = _offsets((checkpoint / "offsets" / str(spark_batch)).read_text(encoding="utf-8"), topic)
    # A partition that is new in this batch has no start yet: Spark's source begins it at its first message.
    return [
        OffsetRange(partition, starts.get(partition, 0), end)
        for partition, end in sorted(ends.items())
        if end > starts.get(partition, 0)
    ]


def _offsets(log: str, topic: str) -> dict[int, int]:
    """The offsets in a file of the checkpoint: a version, perhaps metadata, and a JSON line of offsets."""
    offsets = json.loads(log.strip().splitlines()[-1])
    return {int(partition): offset for partition, offset in offsets.get(topic, {}).items()}
