"""Kafka offsets in the ledger: the ranges that batches committed."""

from collections.abc import Iterable
from dataclasses import dataclass

import psycopg


def committed_offsets(
    connection: psycopg.Connection, topic_id: str, partitions: Iterable[int]
) -> dict[int, int]:
    """The offset to read next, of each partition that was read before."""
    # One index look-up a partition, however many batches there were.
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
    """The messages of a partition from `from_offset` up to but without `until_offset`."""

    partition: int
    from_offset: int
    until_offset: int
