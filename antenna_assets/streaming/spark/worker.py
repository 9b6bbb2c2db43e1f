"""Judging in the Python processes that Spark starts beside its executors, one for each core.

So both readers have one text of the rules (decision 32). A cluster's executors get this package from the
stream (`executors.py`); what else this module imports is pyarrow and duckdb alone.
"""

from collections.abc import Iterator
from functools import cache

import pyarrow as pa

from antenna_assets.domain.schema import REJECTED_SCHEMA
from antenna_assets.streaming.envelope import MESSAGES, clamped_times
from antenna_assets.streaming.verdicts.bounds import Bounds
from antenna_assets.streaming.verdicts.judged import ACCEPTED_SCHEMA, Judge

JUDGED = pa.schema(
    {field.name: field.type for schema in (ACCEPTED_SCHEMA, REJECTED_SCHEMA) for field in schema}
)
"""Accepted and rejected messages, one row each; null is what the other kind has. `hour` tells them apart."""


@cache
def _judge() -> Judge:
    """This process's: what it learns of layouts holds for the micro-batches that follow.

    Spark ends a process that was idle for a minute.
    """
    return Judge(threads=1)


def judge_batches(batches: Iterator[pa.RecordBatch], bounds: Bounds) -> Iterator[pa.RecordBatch]:
    """The verdicts on messages, in no order.

    Args:
        batches: with the names and types of `MESSAGES`, in any time zone and not clamped.
        bounds: the same for all of them.

    Yields:
        Rows of `JUDGED`.
    """
    for batch in batches:
        columns = {name: batch.column(name) for name in MESSAGES.names}
        columns["timestamp"] = clamped_times(columns["timestamp"])
        found = _judge().judge(pa.table(columns, schema=MESSAGES), bounds)
        for rows in (found.accepted, found.rejected):
            if rows.num_rows:
                yield from _with_nulls(rows).combine_chunks().to_batches()


def _with_nulls(rows: pa.Table) -> pa.Table:
    columns = [
        rows[field.name] if field.name in rows.schema.names else pa.nulls(rows.num_rows, field.type)
        for field in JUDGED
    ]
    return pa.table(columns, schema=JUDGED)
