"""Ours: the embedded engine or, with ANTENNA_ENGINE=spark, the distributed one, with the product's SQL."""

import os

import pyarrow.compute as pc

from antenna_assets.domain.schema import (
    ENRICHED_USAGE,
    HOURLY_TABLES,
    LANDED_SCHEMA,
    QUOTA_OF_THEN,
    RAW_PARQUET,
    USERS,
)
from antenna_assets.engines.contract import Dataset, Engine
from antenna_assets.engines.transforms import transform
from benchmarks.contenders.hour_result import arguments, report


def _engine(output: str) -> Engine:
    if os.environ.get("ANTENNA_ENGINE") == "spark":
        from antenna_assets.engines.spark import SparkEngine
        from antenna_assets.engines.spark_session import session

        return SparkEngine(lambda: session("hour", master="local[*]", extra={"spark.driver.memory": "4g"}))
    from antenna_assets.engines.duckdb import EMBEDDED_MEMORY, DuckDBEngine

    # Spill files beside the result, as runs spill to the state directory: both are on a disk.
    return DuckDBEngine(memory_limit=EMBEDDED_MEMORY, temp_directory=f"{output}/spill")


def main() -> None:
    """Run the SQL of the six assets, without ledger, Delta and PostgreSQL."""
    landed, users, output = arguments()
    engine = _engine(output)
    raw = engine.write(
        transform("raw_parquet"), {"landed": Dataset(landed, LANDED_SCHEMA)}, RAW_PARQUET, f"{output}/raw"
    )
    inputs = {
        "raw_parquet": Dataset([file.path for file in raw], RAW_PARQUET),
        "user_metadata": Dataset([users], USERS),
        "quota_of_then": Dataset([], QUOTA_OF_THEN),
    }
    enriched = engine.write(transform("enriched_usage"), inputs, ENRICHED_USAGE, f"{output}/enriched")
    usage = {"enriched_usage": Dataset([file.path for file in enriched], ENRICHED_USAGE)}
    found = {}
    for name, table in HOURLY_TABLES.items():
        rows = engine.read(transform(name), usage, table.columns)
        found[name] = (rows.num_rows, pc.sum(rows[table.sum_column]).as_py() or 0)
    engine.close()
    report(
        raw_rows=sum(file.rows for file in raw),
        enriched_rows=sum(file.rows for file in enriched),
        sums={key: found[f"bytes_agg_{key}_1h"] for key in ("antenna", "user", "app")},
        over=found["users_over_quota_1h"],
    )


if __name__ == "__main__":
    main()
