"""Claims on an hour of a lake table, read from the very files that its newest version names."""

from datetime import datetime

import psycopg
import pyarrow as pa

from antenna_assets.claims.conservation import bytes_are_conserved
from antenna_assets.claims.verdict import Verdict, none_of
from antenna_assets.engines.contract import Dataset, Engine
from antenna_assets.lake import Lake
from antenna_assets.schema import LANDED

_FACTS = """SELECT count(*) AS rows, CAST(coalesce(sum(bytes), 0) AS BIGINT) AS bytes,
    count(CASE WHEN bytes < 0 THEN 1 END) AS negative,
    (SELECT count(*) FROM (SELECT DISTINCT kafka_partition, kafka_offset FROM usage) AS keys) AS keys
FROM usage"""
_FACTS_COLUMNS = pa.schema(dict.fromkeys(("rows", "bytes", "negative", "keys"), pa.int64()))


def lake_claims(
    connection: psycopg.Connection, lake: Lake, engine: Engine, table: str, hour: datetime
) -> dict[str, Verdict]:
    """`bytes_are_conserved`, `keys_are_unique` and `no_negative_bytes` of an hour.

    Raises:
        NotPublished: the table does not hold the hour.
        EngineError: a file cannot be read.
    """
    published = lake.published_hour(table, hour)
    # The columns of landing, which both tables have.
    usage = {"usage": Dataset(published.files, LANDED)}
    facts = engine.read(_FACTS, usage, _FACTS_COLUMNS).to_pylist()[0]
    rows = facts["rows"]
    return {
        "bytes_are_conserved": bytes_are_conserved(
            connection, hour, published.generation, rows=rows, bytes_=facts["bytes"]
        ),
        "keys_are_unique": none_of(rows - facts["keys"], "rows with the Kafka offset of another"),
        "no_negative_bytes": none_of(facts["negative"], "rows with negative bytes"),
    }
