"""Committed offsets: the ranges of Kafka messages that batches cover."""

from collections.abc import Iterable
from dataclasses import dataclass

import psycopg


def committed_offsets(
    connection: psycopg.Connection, topic_id: str, partitions: Iterable[int]
) -> dict[int, int]:
    """The next offset to read of each partition that has committed ones."""
    # One index look-up for each partition, however many batches there are.
    rows = connection.execute(
        "SELECT partition, until_offset FROM unnest(%s::int[]) AS asked (partition) CROSS JOIN LATERAL ("
        "  SELECT until_offset FROM ledger.batch_offset AS o"
        "  WHERE o.topic_id = %s AND o.partition = asked.partition ORDER BY until_offset DESC LIMIT 1"
        ") AS newest",
        [list(partitions), topic_id],
    )
    return dict(rows.fetchall())


@dataclass(frozen=True)
class OffsetRange:
    """The messages of a partition from `from_offset` to before `until_offset`."""

    partition: int
    from_offset: int
    until_offset: int
