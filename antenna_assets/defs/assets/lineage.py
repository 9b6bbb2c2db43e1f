"""Column lineage, from the event to the serving tables.

A column has the name of its origin, except for sums and windows.
"""

import dagster as dg
import pyarrow as pa

from antenna_assets.domain.schema import (
    HOURLY_TABLES,
    LAKE_TABLES,
    LANDED_SCHEMA,
    LIVE_TABLES,
    PERIOD_TABLES,
    SUMS,
    USERS,
)

_ORIGIN = {"date": "timestamp", "day": "timestamp", "month": "day", **dict.fromkeys(SUMS, "bytes")}

_DAYS = "bytes_agg_user_1d"

# The assets that each asset reads, with their columns; a column comes from the first one that has it.
_READ: dict[str, dict[str, pa.Schema]] = {
    "landing": {"devices": LANDED_SCHEMA},
    **{name: {"devices": LANDED_SCHEMA} for name in LIVE_TABLES},
    "raw_parquet": {"landing": LANDED_SCHEMA},
    "enriched_usage": {"raw_parquet": LAKE_TABLES["raw_parquet"], "user_metadata": USERS},
    **{name: {"enriched_usage": LAKE_TABLES["enriched_usage"]} for name in (*HOURLY_TABLES, _DAYS)},
    **{
        name: {_DAYS: PERIOD_TABLES[_DAYS].columns, "user_metadata": USERS}
        for name in PERIOD_TABLES
        if name != _DAYS
    },
}


def column_lineage(asset: str, columns: pa.Schema) -> dg.TableColumnLineage:
    """The origin of each column of an asset; empty for the topic and the users."""
    return dg.TableColumnLineage(
        {
            name: [dg.TableColumnDep(dg.AssetKey(read), origin)]
            for name in columns.names
            for read, origin in [_origin(asset, name)]
            if read is not None
        }
    )


def _origin(asset: str, column: str) -> tuple[str | None, str]:
    """The asset and the column that a column comes from: one of the same name, or else of the name it had."""
    for origin in (column, _ORIGIN.get(column, column)):
        if (read := _first_with(asset, origin)) is not None:
            return read, origin
    return None, column


def _first_with(asset: str, column: str) -> str | None:
    return next((read for read, columns in _READ.get(asset, {}).items() if column in columns.names), None)
