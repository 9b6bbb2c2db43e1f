"""Queries on the messages in quarantine: rejected and not replayed. Nothing is changed here."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING

import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from antenna_assets.domain.schema import REASONS
from antenna_assets.operations.quarantine.files import MESSAGES, QuarantineError, open_files

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class Selection:
    """A filter on messages; None and empty select all.

    Attributes:
        since, until: bounds of Kafka's timestamp, aware; `until` is exclusive.
        first_batch, last_batch: bounds of the batch that rejected the message, both inclusive.
        limit: the most messages to select, the first by topic id, partition and offset.
    """

    reasons: Sequence[str] = ()
    since: datetime | None = None
    until: datetime | None = None
    first_batch: int | None = None
    last_batch: int | None = None
    limit: int | None = None


@dataclass(frozen=True)
class ReasonSummary:
    """The messages of one reason: their number, Kafka's first and last timestamp, and the first as an
    example."""

    reason: str
    messages: int
    first: datetime
    last: datetime
    partition: int
    offset: int
    value: bytes | None


def known_reason(reason: str) -> str:
    """Return the reason, if it is one.

    Raises:
        QuarantineError: it is not; suggests the closest one.
    """
    if reason not in REASONS:
        close = get_close_matches(reason, REASONS, n=1)
        hint = f"; did you mean {close[0]}?" if close else f"; expected one of {', '.join(REASONS)}"
        raise QuarantineError(f"unknown reason {reason!r}{hint}")
    return reason


def select(connection: psycopg.Connection, lake: str, selection: Selection) -> pa.Table:
    """Return the selected messages with the columns of `MESSAGES`, by topic id, partition and offset."""
    with _quarantine(connection, lake, selection) as database:
        limit = "" if selection.limit is None else f" LIMIT {int(selection.limit)}"
        found = database.sql(
            f"SELECT {', '.join(MESSAGES.names)} FROM message"  # noqa: S608
            f" ORDER BY topic_id, kafka_partition, kafka_offset{limit}"
        ).to_arrow_table()
        return _with_exact_batches(connection, found.cast(MESSAGES))


def by_reason(connection: psycopg.Connection, lake: str, selection: Selection) -> list[ReasonSummary]:
    """Count the selected messages by reason, most first."""
    with _quarantine(connection, lake, selection) as database:
        rows = (
            database.sql(
                "SELECT reason, count(*) AS messages,"
                " min(kafka_timestamp) AS first, max(kafka_timestamp) AS last,"
                " arg_min({'partition': kafka_partition, 'offset': kafka_offset, 'value': value},"
                "  (kafka_timestamp, topic_id, kafka_partition, kafka_offset)) AS example"
                " FROM message GROUP BY reason ORDER BY messages DESC, reason"
            )
            .to_arrow_table()
            .to_pylist()
        )
    return [
        ReasonSummary(**{name: row[name] for name in row if name != "example"}, **row["example"])
        for row in rows
    ]


def find(
    connection: psycopg.Connection, lake: str, partition: int, offset: int
) -> list[tuple[dict, int | None]]:
    """Return the rejected messages at the coordinates, each with the batch that replayed it, if any.

    There are several if the topic was recreated: each topic id has its own offsets.

    Raises:
        QuarantineError: no message with these coordinates was rejected.
    """
    files = connection.execute(
        "SELECT path, read.batch, topic_id FROM ledger.batch_offset AS read JOIN ledger.file"
        " ON file.batch = read.batch OR file.batches @> read.batch"
        " WHERE kind = 'rejected' AND partition = %s AND from_offset <= %s AND until_offset > %s"
        " ORDER BY read.batch",
        [partition, offset, offset],
    ).fetchall()
    with open_files(lake, files, []) as database:
        rows = database.sql(
            f"SELECT {', '.join(MESSAGES.names)} FROM message"  # noqa: S608
            " WHERE kafka_partition = ? AND kafka_offset = ? ORDER BY batch",
            params=[partition, offset],
        ).to_arrow_table()
    if not rows.num_rows:
        raise QuarantineError(
            f"no message at offset {offset} of partition {partition} was rejected; `antenna quarantine list`"
            " shows an example of each reason with its coordinates"
        )
    replayed: dict[str, int] = dict(
        connection.execute(
            "SELECT topic_id, batch FROM ledger.replayed WHERE partition = %s AND kafka_offset = %s",
            [partition, offset],
        ).fetchall()
    )
    return [(row, replayed.get(row["topic_id"])) for row in rows.cast(MESSAGES).to_pylist()]


def _with_exact_batches(connection: psycopg.Connection, messages: pa.Table) -> pa.Table:
    """The messages with the batch that read each, also where a file holds those of several batches."""
    merged = connection.execute(
        "SELECT DISTINCT batch FROM ledger.file WHERE kind = 'rejected' AND batches IS NOT NULL"
        " AND batch = ANY(%s)",
        [pc.unique(messages["batch"]).to_pylist()],
    ).fetchall()
    unsure = pc.is_in(messages["batch"], pa.array([batch for (batch,) in merged], pa.int64()))
    places = messages.filter(unsure).select(["topic_id", "kafka_partition", "kafka_offset", "batch"])
    if not places.num_rows:
        return messages
    found = connection.execute(
        "SELECT coalesce(read.batch, message.batch)"
        " FROM unnest(%s::text[], %s::int[], %s::bigint[], %s::bigint[]) WITH ORDINALITY"
        "  AS message (topic_id, partition, kafka_offset, batch, number)"
        " LEFT JOIN LATERAL (SELECT batch FROM ledger.batch_offset AS of"
        "  WHERE of.topic_id = message.topic_id AND of.partition = message.partition"
        "   AND of.from_offset <= message.kafka_offset ORDER BY of.from_offset DESC LIMIT 1) AS read ON true"
        " ORDER BY message.number",
        [places[name].to_pylist() for name in places.column_names],
    ).fetchall()
    exact = pc.replace_with_mask(
        messages["batch"].combine_chunks(),
        unsure.combine_chunks(),
        pa.array([batch for (batch,) in found], pa.int64()),
    )
    index = messages.schema.get_field_index("batch")
    return messages.set_column(index, messages.schema.field(index), exact)


def _ranges(
    connection: psycopg.Connection, files: Sequence[str], selection: Selection
) -> list[tuple[str, int, int, int, int]]:
    """The offsets of the batches of those merged files of which only some batches are selected.

    Each is a topic's id, a partition, the first offset, the offset before which it ends, and the batch.
    """
    if selection.first_batch is None and selection.last_batch is None:
        return []
    return connection.execute(
        "SELECT topic_id, partition, from_offset, until_offset, batch FROM ledger.batch_offset"
        " WHERE batch IN (SELECT of FROM ledger.file, ledger.batches_of(file.batch, file.batches) AS of"
        "  WHERE path = ANY(%s) AND (lower(batches) < %s OR file.batch > %s))",
        [list(files), selection.first_batch, selection.last_batch],
    ).fetchall()


@contextmanager
def _quarantine(
    connection: psycopg.Connection, lake: str, selection: Selection
) -> "Iterator[duckdb.DuckDBPyConnection]":
    """Open a database whose view `message` has the selected messages in quarantine, without the limit."""
    reasons = [known_reason(reason) for reason in selection.reasons] or None
    # A batch has one topic id; the files of a batch without rows of these reasons need not be read.
    files = connection.execute(
        "SELECT path, batch, topic_id FROM ledger.file CROSS JOIN LATERAL"
        " (SELECT topic_id FROM ledger.batch_offset WHERE batch_offset.batch = file.batch LIMIT 1) AS topic"
        " WHERE kind = 'rejected'"
        " AND batch >= coalesce(%(first)s, batch)"
        " AND coalesce(lower(batches), batch) <= coalesce(%(last)s, batch)"
        " AND (%(reasons)s::text[] IS NULL OR EXISTS (SELECT FROM ledger.rejection"
        "  WHERE rejection.batch IN (SELECT ledger.batches_of(file.batch, file.batches))"
        "   AND reason = ANY(%(reasons)s)))",
        {"first": selection.first_batch, "last": selection.last_batch, "reasons": reasons},
    ).fetchall()
    replayed = connection.execute(
        "SELECT topic_id, partition, kafka_offset FROM ledger.replayed"
        " WHERE %(reasons)s::text[] IS NULL OR reason = ANY(%(reasons)s)",
        {"reasons": reasons},
    ).fetchall()
    ranges = _ranges(connection, [path for path, _, _ in files], selection)
    with open_files(lake, files, replayed, ranges) as database:
        database.execute(
            "CREATE TEMP TABLE selected AS SELECT unnest(?::varchar[]) AS reason", [list(reasons or REASONS)]
        )
        database.execute(
            "CREATE TEMP TABLE span AS SELECT ?::timestamptz AS since, ?::timestamptz AS until,"
            " ?::bigint AS first, ?::bigint AS last",
            [selection.since, selection.until, selection.first_batch, selection.last_batch],
        )
        database.execute(
            "CREATE OR REPLACE TEMP VIEW message AS SELECT found.* FROM found CROSS JOIN span"
            " WHERE reason IN (SELECT reason FROM selected)"
            " AND (since IS NULL OR kafka_timestamp >= since) AND (until IS NULL OR kafka_timestamp < until)"
            " AND (first IS NULL OR batch >= first) AND (last IS NULL OR batch <= last)"
        )
        yield database
