"""Column lineage, from the event to the serving tables.

A column has the name of its origin, except for sums and windows.
"""

import dagster as dg
import pyarrow as pa

from antenna_assets.domain.schema import HOURLY_TABLES, LAKE_TABLES, LANDED_SCHEMA, LIVE_TABLES, SUMS, USERS

_ORIGIN = {"date": "timestamp", **dict.fromkeys(SUMS, "bytes")}

# The assets that each asset reads, with their columns; a column comes from the first one that has it.
_READ: dict[str, dict[str, pa.Schema]] = {
    "landing": {"devices": LANDED_SCHEMA},
    **{name: {"devices": LANDED_SCHEMA} for name in LIVE_TABLES},
    "raw_parquet": {"landing": LANDED_SCHEMA},
    "enriched_usage": {"raw_parquet": LAKE_TABLES["raw_parquet"], "user_metadata": USERS},
    **{name: {"enriched_usage": LAKE_TABLES["enriched_usage"]} for name in HOURLY_TABLES},
}


def column_lineage(asset: str, columns: pa.Schema) -> dg.TableColumnLineage:
    """The origin of each column of an asset; empty for the topic and the users."""
    return dg.TableColumnLineage(
        {
            name: [dg.TableColumnDep(dg.AssetKey(read), origin)]
            for name in columns.names
            for origin in [_ORIGIN.get(name, name)]
            for read in [_first_with(asset, origin)]
            if read is not None
        }
    )


def _first_with(asset: str, column: str) -> str | None:
    return next((read for read, columns in _READ.get(asset, {}).items() if column in columns.names), None)
