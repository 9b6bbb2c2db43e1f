"""A ledger and a lake with rejected messages, written as the stream would, without Kafka and Spark."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

from antenna_assets.domain.closing_rule import NO_BACKLOG
from antenna_assets.domain.schema import REJECTED_SCHEMA
from antenna_assets.ledger.batch import AttemptFile, BatchContent, BatchPlan
from antenna_assets.ledger.commit import Observation, commit_batch
from antenna_assets.ledger.head import claim_topic, read_head
from antenna_assets.ledger.offsets import OffsetRange
from antenna_assets.settings import Settings

TOPIC = "devices"
TOPIC_ID = "id-1"
SENT = datetime(2026, 11, 22, 10, tzinfo=UTC)
"""When Kafka got offset 0; each offset is a second later."""


def reject(
    connection: psycopg.Connection,
    settings: Settings,
    messages: Mapping[int, Sequence[tuple[str, bytes | None]]],
    *,
    clock: datetime = SENT + timedelta(hours=1),
    folder: str | None = None,
) -> int:
    """Commit the next batch of the stream, in which every message is rejected: by partition, reason and value.

    Returns the batch's number.
    """
    claim_topic(connection, TOPIC, TOPIC_ID)
    number = read_head(connection, TOPIC).batch + 1
    starts: dict[int, int] = dict(
        connection.execute(
            "SELECT partition, max(until_offset) FROM ledger.batch_offset GROUP BY partition"
        ).fetchall()
    )
    rows, ranges, rejections = [], [], {}
    for partition, content in messages.items():
        first = starts.get(partition, 0)
        ranges.append(OffsetRange(partition, first, first + len(content)))
        for offset, (reason, value) in enumerate(content, start=first):
            rejections[reason] = rejections.get(reason, 0) + 1
            rows.append(
                {
                    "value": value,
                    "reason": reason,
                    "detail": f"why {offset}",
                    "kafka_partition": partition,
                    "kafka_offset": offset,
                    "kafka_timestamp": SENT + timedelta(seconds=offset),
                }
            )
    path = f"{folder or f'landing/{number}-attempt'}/rejected/part-0.parquet"
    place = Path(settings.lake_uri) / path
    place.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=REJECTED_SCHEMA), place)
    size = sum(len(row["value"] or b"") for row in rows)
    commit_batch(
        connection,
        BatchPlan(TOPIC, TOPIC_ID, number, clock, ranges),
        BatchContent(
            files=[AttemptFile(path, None, len(rows), size, place.stat().st_size)], rejections=rejections
        ),
        Observation(clock, dict.fromkeys(list(messages), NO_BACKLOG)),
        lateness=timedelta(minutes=1),
    )
    return read_head(connection, TOPIC).batch
