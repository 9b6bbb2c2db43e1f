"""The rejected messages among those that were sent, counted in the rejected files of the ledger."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from antenna_assets.storage.paths import lake_path


def counts_by_reason(postgres_url: str, lake: str) -> Callable[[dict[str, Any]], dict[str, int]]:
    """Return a function that counts by reason the rejected messages within the offsets of a `sent`.

    Args:
        lake: root of the lake, a path or a URI, which the ledger's paths are relative to.
    """

    def rejected_in(sent: dict[str, Any]) -> dict[str, int]:
        import pyarrow.compute as pc

        from antenna_assets.clients.postgres import connect
        from antenna_assets.storage.parquet_file import read_table

        with connect(postgres_url) as connection:
            # Without replays: they read messages that the stream has already counted.
            paths = connection.execute(
                """
                SELECT path FROM ledger.file JOIN ledger.batch USING (batch)
                WHERE file.kind = 'rejected' AND batch.kind = 'stream'
                  AND EXISTS (SELECT FROM ledger.batch_offset
                              WHERE batch_offset.batch = batch.batch AND topic_id = %s)
                ORDER BY path
                """,
                [sent["topic_id"]],
            ).fetchall()
        counts: Counter[str] = Counter()
        for (path,) in paths:
            file = lake_path(f"{lake.rstrip('/')}/{path}")
            rows = read_table(file, ["reason", "kafka_partition", "kafka_offset"])
            for partition, (first, end) in sent["offsets"].items():
                offset = rows["kafka_offset"]
                inside = pc.and_(pc.greater_equal(offset, first), pc.less(offset, end))
                here = rows.filter(pc.and_(inside, pc.equal(rows["kafka_partition"], int(partition))))
                counts.update(here["reason"].to_pylist())
        return dict(counts)

    return rejected_in
