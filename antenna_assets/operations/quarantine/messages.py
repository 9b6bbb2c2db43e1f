"""Queries on the messages in quarantine: rejected and not replayed. Nothing is changed here."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING

import psycopg
import pyarrow as pa

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
        return found.cast(MESSAGES)


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
        "SELECT path, batch, topic_id FROM ledger.file JOIN ledger.batch_offset USING (batch)"
        " WHERE kind = 'rejected' AND partition = %s AND from_offset <= %s AND until_offset > %s"
        " ORDER BY batch",
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
        " AND batch >= coalesce(%(first)s, batch) AND batch <= coalesce(%(last)s, batch)"
        " AND (%(reasons)s::text[] IS NULL OR EXISTS (SELECT FROM ledger.rejection"
        "  WHERE rejection.batch = file.batch AND reason = ANY(%(reasons)s)))",
        {"first": selection.first_batch, "last": selection.last_batch, "reasons": reasons},
    ).fetchall()
    replayed = connection.execute(
        "SELECT topic_id, partition, kafka_offset FROM ledger.replayed"
        " WHERE %(reasons)s::text[] IS NULL OR reason = ANY(%(reasons)s)",
        {"reasons": reasons},
    ).fetchall()
    with open_files(lake, files, replayed) as database:
        database.execute(
            "CREATE TEMP TABLE selected AS SELECT unnest(?::varchar[]) AS reason", [list(reasons or REASONS)]
        )
        database.execute(
            "CREATE TEMP TABLE span AS SELECT ?::timestamptz AS since, ?::timestamptz AS until",
            [selection.since, selection.until],
        )
        database.execute(
            "CREATE OR REPLACE TEMP VIEW message AS SELECT found.* FROM found CROSS JOIN span"
            " WHERE reason IN (SELECT reason FROM selected)"
            " AND (since IS NULL OR kafka_timestamp >= since) AND (until IS NULL OR kafka_timestamp < until)"
        )
        yield database
