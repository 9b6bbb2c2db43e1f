"""Claims on hours of a lake table, read from the files of the table's newest version."""

from collections.abc import Sequence
from datetime import datetime

import psycopg
import pyarrow as pa

from antenna_assets.domain.schema import LANDED_SCHEMA
from antenna_assets.engines.contract import Dataset, Engine
from antenna_assets.ledger.generations import read_generation
from antenna_assets.ledger.landing import topic_lives
from antenna_assets.publishing.lake import Lake
from antenna_assets.verify.claims.conservation import Held, bytes_are_conserved
from antenna_assets.verify.claims.verdict import Verdict, none_of

_FACTS = """SELECT count(*) AS rows, CAST(coalesce(sum(bytes), 0) AS BIGINT) AS bytes,
    count(CASE WHEN bytes < 0 THEN 1 END) AS negative,
    (SELECT count(*) FROM (SELECT DISTINCT kafka_partition, kafka_offset FROM usage) AS keys) AS keys
FROM usage"""
_FACTS_COLUMNS = pa.schema(dict.fromkeys(("rows", "bytes", "negative", "keys"), pa.int64()))

# A recreated topic counts its offsets from 0 again: the same coordinates may occur once for each of its
# lives.
_REPEATED = """WITH life AS (
    SELECT * FROM (VALUES {lives}) AS life (topic, kafka_partition, from_offset, until_offset)
), repeated AS (
    SELECT kafka_partition, kafka_offset, count(*) AS found FROM usage
    GROUP BY kafka_partition, kafka_offset HAVING count(*) > 1
), allowed AS (
    SELECT repeated.found, greatest(count(DISTINCT life.topic), 1) AS lives
    FROM repeated LEFT JOIN life ON life.kafka_partition = repeated.kafka_partition
        AND life.from_offset <= repeated.kafka_offset AND repeated.kafka_offset < life.until_offset
    GROUP BY repeated.kafka_partition, repeated.kafka_offset, repeated.found
)
SELECT CAST(coalesce(sum(CASE WHEN found > lives THEN found - lives ELSE 0 END), 0) AS BIGINT) AS repeated
FROM allowed"""
_REPEATED_COLUMNS = pa.schema({"repeated": pa.int64()})


def lake_claims(
    connection: psycopg.Connection, lake: Lake, engine: Engine, table: str, hours: Sequence[datetime]
) -> dict[datetime, dict[str, Verdict]]:
    """Return `bytes_are_conserved`, `keys_are_unique` and `no_negative_bytes` of each hour.

    Raises:
        NotPublished: the table does not hold an hour.
        EngineError: a file cannot be read.
    """
    claims: dict[datetime, dict[str, Verdict]] = {}
    held = []
    for hour, snapshot in lake.hours(table, hours).items():
        published = snapshot.published(table, hour)
        # Both tables have the columns of landed files.
        usage = {"usage": Dataset(published.files, LANDED_SCHEMA)}
        facts = engine.read(_FACTS, usage, _FACTS_COLUMNS).to_pylist()[0]
        rows = facts["rows"]
        repeated = rows - facts["keys"]
        lives = (
            topic_lives(connection, read_generation(connection, hour, published.generation))
            if repeated
            else []
        )
        if lives:
            values = ", ".join(
                f"({life.topic}, {life.partition}, {life.begin}, {life.end})" for life in lives
            )
            found = engine.read(_REPEATED.format(lives=values), usage, _REPEATED_COLUMNS)
            repeated = found["repeated"][0].as_py()
        held.append(Held(hour, published.generation, rows, facts["bytes"]))
        claims[hour] = {
            "keys_are_unique": none_of(
                repeated, "rows with the Kafka offset of another of the same topic id"
            ),
            "no_negative_bytes": none_of(facts["negative"], "rows with negative bytes"),
        }
    for hour, verdict in bytes_are_conserved(connection, held).items():
        claims[hour]["bytes_are_conserved"] = verdict
    return claims
