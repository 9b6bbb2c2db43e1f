"""Rejected files as one DuckDB view: the rows of the files that the ledger references, without replayed ones.

Folders are never listed. The selection is in `messages.py`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

from antenna_assets.domain.schema import REJECTED_SCHEMA
from antenna_assets.engines.duckdb_files import register_stores
from antenna_assets.errors import AntennaError
from antenna_assets.storage.paths import file_errors, in_parallel, lake_path, reason_of
from antenna_assets.streaming.envelope import clamped_in_duckdb

if TYPE_CHECKING:
    import duckdb

MESSAGES = pa.schema([pa.field("topic_id", pa.string()), pa.field("batch", pa.int64()), *REJECTED_SCHEMA])
"""A rejected message with the topic's id and the batch that read it, both from the ledger."""


class QuarantineError(AntennaError):
    """A request to the quarantine cannot be done; the message says why and what to do."""


@contextmanager
def open_files(
    lake: str,
    files: Sequence[tuple[str, int, str]],
    replayed: Sequence[tuple[str, int, int]],
    ranges: Sequence[tuple[str, int, int, int, int]] = (),
) -> "Iterator[duckdb.DuckDBPyConnection]":
    """Open a database whose view `message` has the rows of the files that were not replayed.

    Args:
        files: path, batch and topic's id of each. A message has the batch of its file, which is the newest of
            a merged one.
        ranges: topic's id, partition, first offset, end and batch: messages within them have this batch.

    Raises:
        QuarantineError: a file is missing, or the lake cannot be read.
    """
    import duckdb

    paths = [f"{lake}/{path}" for path, _, _ in files]
    try:
        there = in_parallel(lambda path: lake_path(path).exists(), paths)
    except file_errors() as error:
        raise QuarantineError(f"the lake {lake} cannot be read: {reason_of(error)}") from error
    if not all(there):
        raise QuarantineError(
            f"the ledger references {paths[there.index(False)]}, which does not exist; restore the file, or"
            " set ANTENNA_LAKE to the lake of this database"
        )
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        register_stores(database, paths)
        place = pa.table(
            {
                "filename": pa.array(paths, pa.string()),
                "batch": pa.array([batch for _, batch, _ in files], pa.int64()),
                "topic_id": pa.array([topic_id for _, _, topic_id in files], pa.string()),
            }
        )
        database.register("place", place)
        topic_ids, partitions, offsets = zip(*replayed, strict=True) if replayed else ((), (), ())
        replayed_rows = pa.table(
            {
                "topic_id": pa.array(topic_ids, pa.string()),
                "kafka_partition": pa.array(partitions, pa.int32()),
                "kafka_offset": pa.array(offsets, pa.int64()),
            }
        )
        database.register("gone", replayed_rows)
        text, number = pa.string(), pa.int64()
        bounds = {
            "topic_id": text,
            "partition": pa.int32(),
            "first": number,
            "until": number,
            "batch": number,
        }
        columns_of_ranges = zip(*ranges, strict=True) if ranges else ([] for _ in bounds)
        database.register(
            "read_range", pa.table(dict(zip(bounds, columns_of_ranges, strict=True)), pa.schema(bounds))
        )
        if paths:
            quoted = ", ".join("'" + _literal(path).replace("'", "''") + "'" for path in paths)
            # A view takes no parameters, so the names are quoted.
            rejected = f"read_parquet([{quoted}], filename = true, hive_partitioning = false)"
        else:
            database.register(
                "nothing", pa.schema([*REJECTED_SCHEMA, pa.field("filename", pa.string())]).empty_table()
            )
            rejected = "nothing"
        # Files of older versions hold times as the senders gave them.
        own = {
            "kafka_timestamp": f"{clamped_in_duckdb('kafka_timestamp')} AS kafka_timestamp",
            "batch": "CASE WHEN kafka_offset < of.until THEN of.batch ELSE file.batch END AS batch",
            "topic_id": "file.topic_id AS topic_id",
        }
        columns = ", ".join(own.get(name, name) for name in MESSAGES.names)
        left = (
            f"SELECT * FROM {rejected} JOIN place USING (filename)"  # noqa: S608
            " ANTI JOIN gone USING (topic_id, kafka_partition, kafka_offset)"
        )
        database.execute(
            f"CREATE TEMP VIEW found AS SELECT {columns} FROM ({left}) AS file"  # noqa: S608
            " ASOF LEFT JOIN read_range AS of ON of.topic_id = file.topic_id"
            "  AND of.partition = kafka_partition AND of.first <= kafka_offset"
        )
        database.execute("CREATE TEMP VIEW message AS SELECT * FROM found")
        yield database


def _literal(path: str) -> str:
    """Return the pattern that matches only this path: DuckDB reads every path as a pattern."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in path)
