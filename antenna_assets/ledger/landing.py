"""The facts of an hour's landing, as certificates contain them: rows, batches, rejections and offsets.

Those of a generation are kept for ever, longer than its files. `verify/landing.py` reads the files
themselves.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from antenna_assets.domain.counted import counted
from antenna_assets.domain.hours import hour_key
from antenna_assets.errors import AntennaError
from antenna_assets.ledger.files import EXPIRED_FILES_OF_HOUR, FILES_OF_HOUR

if TYPE_CHECKING:
    from antenna_assets.ledger.generations import Generation


class LandingUnknown(AntennaError):
    """The ledger no longer has the landing facts of a generation."""


LandingFacts = dict[str, Any]
"""What `landing_facts` returns."""

_FILES = f"{FILES_OF_HOUR} UNION ALL {EXPIRED_FILES_OF_HOUR} AND %(expired)s"

_LANDED = f"""
    SELECT count(*) AS files, coalesce(sum(file.rows), 0)::bigint AS rows,
        coalesce(sum(file.bytes), 0)::bigint AS bytes,
        coalesce(sum(file.rows) FILTER (WHERE batch.committed_at > hour.closed_at), 0)::bigint AS late_rows
    FROM ({_FILES}) AS file LEFT JOIN ledger.batch USING (batch) JOIN ledger.hour USING (hour)
"""  # noqa: S608

_BATCHES_OF_FILES = f"SELECT of FROM ({_FILES}) AS file, ledger.batches_of(file.batch, file.batches) AS of"  # noqa: S608

_BATCHES = f"""
    SELECT count(*) AS batches, coalesce(sum(rows), 0)::bigint AS rows, coalesce(sum(bytes), 0) AS bytes,
        coalesce(sum(quarantined), 0)::bigint AS quarantined, coalesce(sum(late_rows), 0)::bigint AS late_rows
    FROM ledger.batch WHERE batch IN ({_BATCHES_OF_FILES})
"""  # noqa: S608

_REJECTED = f"""
    SELECT reason, sum(rows)::bigint AS rows FROM ledger.rejection
    WHERE batch IN ({_BATCHES_OF_FILES}) GROUP BY reason
"""  # noqa: S608

# Adjacent ranges of a partition are merged.
_OFFSETS = f"""
    WITH marked AS (
        SELECT *, lag(until_offset) OVER of_partition IS DISTINCT FROM from_offset AS begins
        FROM ledger.batch_offset WHERE batch IN ({_BATCHES_OF_FILES})
        WINDOW of_partition AS (PARTITION BY topic_id, partition ORDER BY from_offset)
    ), numbered AS (
        SELECT *, count(*) FILTER (WHERE begins)
            OVER (PARTITION BY topic_id, partition ORDER BY from_offset) AS range
        FROM marked
    )
    SELECT topic, topic_id, partition, min(from_offset) AS from, max(until_offset) AS until
    FROM numbered GROUP BY topic, topic_id, partition, range ORDER BY topic_id, partition, min(from_offset)
"""  # noqa: S608


def record_landing(connection: psycopg.Connection, sealed: "Generation") -> LandingFacts:
    """The landing facts of a generation; the first call stores them, as its files will be removed one day.

    Raises:
        LandingUnknown: as `landing_of`.
    """
    kept = _kept(connection, sealed)
    if kept is not None:
        return kept
    landing = _computed(connection, sealed)
    connection.execute(
        "INSERT INTO ledger.generation_landing (hour, generation, content) VALUES (%s, %s, %s)"
        " ON CONFLICT DO NOTHING",
        [sealed.hour, sealed.generation, Jsonb(landing)],
    )
    return landing


def landing_of(connection: psycopg.Connection, sealed: "Generation") -> LandingFacts:
    """The landing facts of a generation, as of its sealing.

    For a generation from before they were stored they are computed from its files, including those past their
    retention. If the ledger no longer has all of these, they are taken from the newest certificate with as
    many rows as were sealed.

    Raises:
        LandingUnknown: none of these has them.
    """
    kept = _kept(connection, sealed)
    return _computed(connection, sealed) if kept is None else kept


def _kept(connection: psycopg.Connection, sealed: "Generation") -> LandingFacts | None:
    row = connection.execute(
        "SELECT content FROM ledger.generation_landing WHERE hour = %s AND generation = %s",
        [sealed.hour, sealed.generation],
    ).fetchone()
    return row[0] if row else None


def _computed(connection: psycopg.Connection, sealed: "Generation") -> LandingFacts:
    found = landing_facts(connection, sealed.hour, sealed.up_to_batch, expired=True)
    if found["landed"]["rows"] == sealed.rows:
        return found
    certified = connection.execute(
        "SELECT text::jsonb -> 'content' FROM ledger.certificate WHERE hour = %s AND generation = %s"
        " AND text::jsonb #> '{content,landed,rows}' = to_jsonb(%s::bigint) ORDER BY number DESC LIMIT 1",
        [sealed.hour, sealed.generation, sealed.rows],
    ).fetchone()
    if certified is None:
        raise LandingUnknown(
            f"generation {sealed.generation} of {hour_key(sealed.hour)} has {counted(sealed.rows, 'row')}, "
            f"but the ledger has files with {found['landed']['rows']:,} and no certificate with more; "
            "`antenna verify` shows all differences"
        )
    return {name: certified[0][name] for name in found}


def landing_facts(
    connection: psycopg.Connection, hour: datetime, up_to_batch: int, *, expired: bool = False
) -> LandingFacts:
    """The landing facts of an hour up to a batch, computed from the ledger.

    `landed` counts the rows of the hour; late ones were committed after the hour had closed. `batches`,
    `rejected` and `offsets` cover the whole batches that have at least one row of the hour.

    Args:
        expired: include files that are past their retention.
    """
    values = {"hour": hour, "batch": up_to_batch, "expired": expired}
    with connection.cursor(row_factory=dict_row) as cursor:
        landed = cursor.execute(_LANDED, values).fetchone()
        (batches,) = cursor.execute(_BATCHES, values).fetchall()
        rejected = cursor.execute(_REJECTED, values).fetchall()
        offsets = cursor.execute(_OFFSETS, values).fetchall()
    return {
        "landed": landed,
        # The sum over several hours may exceed 64 bits.
        "batches": {**batches, "bytes": int(batches["bytes"])},
        "rejected": {row["reason"]: row["rows"] for row in rejected},
        "offsets": offsets,
    }


@dataclass(frozen=True)
class TopicLife:
    """A range of offsets under one topic id, which `topic` numbers."""

    topic: int
    partition: int
    begin: int
    end: int


def topic_lives(connection: psycopg.Connection, sealed: "Generation") -> list[TopicLife]:
    """The offset ranges that a generation's messages come from: offsets are unique under one topic id.

    They are those of its batches, and of the replays before it was sealed.
    """
    ranges = [
        (of["topic_id"], of["partition"], of["from"], of["until"])
        for of in landing_of(connection, sealed)["offsets"]
    ]
    ranges += connection.execute(
        "SELECT topic_id, partition, min(kafka_offset), max(kafka_offset) + 1 FROM ledger.replayed"
        " WHERE batch <= %s GROUP BY topic_id, partition",
        [sealed.up_to_batch],
    ).fetchall()
    numbers = {topic_id: number for number, topic_id in enumerate(sorted({of[0] for of in ranges}))}
    return [TopicLife(numbers[topic_id], *of) for topic_id, *of in ranges]
