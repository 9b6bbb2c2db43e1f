"""An asset's declared metadata: owner, location, columns with units and lineage, and its SQL.

The metadata of a materialization is in `hour_reports.py` and `period_reports.py`.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import dagster as dg
import pyarrow as pa

from antenna_assets.defs.assets.lineage import column_lineage
from antenna_assets.defs.partitions import HOURS
from antenna_assets.defs.period_partitions import PARTITIONS
from antenna_assets.domain.schema import (
    DATE,
    HOUR_PARTITION,
    HOURLY_TABLES,
    LAKE_TABLES,
    PERIOD_TABLES,
    UNITS,
    ServingTable,
)
from antenna_assets.engines.transforms import INPUTS, transform
from antenna_assets.settings import load_settings
from antenna_assets.storage.project_files import sql_folder

OWNERS = ["team:antenna-data"]

# Known and pinned.
warnings.filterwarnings("ignore", message="Class `(LocalFile)?CodeReference", category=dg.BetaWarning)


def published_spec(
    name: str, *, deps: Sequence[dg.AssetSpec | dg.AssetDep], description: str
) -> dg.AssetSpec:
    """Declare an asset that is published, of hours, days or months."""
    kind = "postgres"
    partitions: dg.TimeWindowPartitionsDefinition = HOURS
    if name in LAKE_TABLES:
        group, kind, place = "lake", "delta", lake_metadata(name, LAKE_TABLES[name])
    elif name in HOURLY_TABLES:
        group, place = "hourly", serving_metadata(HOURLY_TABLES[name])
    else:
        group, place = "periods", _table_metadata(name, PERIOD_TABLES[name].columns)
        partitions = PARTITIONS[PERIOD_TABLES[name].period]
    return dg.AssetSpec(
        name,
        deps=deps,
        group_name=group,
        kinds={kind},
        owners=OWNERS,
        description=description,
        metadata={**place, **(_sql_metadata(name) if name in INPUTS else {})},
        partitions_def=partitions,
        # A run may be of some of them.
        skippable=True,
    )


def serving_metadata(table: ServingTable) -> dict[str, Any]:
    """Metadata of a table in PostgreSQL: its name, columns and their lineage."""
    return _table_metadata(table.name, pa.schema([DATE, *table.columns]))


def _table_metadata(name: str, columns: pa.Schema) -> dict[str, Any]:
    return {"dagster/table_name": f"public.{name}", **columns_metadata(name, columns)}


def lake_metadata(asset: str, columns: pa.Schema) -> dict[str, Any]:
    """Metadata of a table or folder in the lake: its location, columns and their lineage."""
    return {
        "dagster/uri": f"{load_settings().lake_uri}/{asset}",
        **columns_metadata(asset, columns),
        **({"partition columns": ", ".join(HOUR_PARTITION)} if asset in LAKE_TABLES else {}),
    }


def columns_metadata(asset: str, columns: pa.Schema) -> dict[str, Any]:
    """Metadata of columns: type, description, unit and lineage."""
    return {
        "dagster/column_schema": dg.TableSchema(columns=[_column(field) for field in columns]),
        "dagster/column_lineage": column_lineage(asset, columns),
    }


def _column(field: pa.Field) -> dg.TableColumn:
    unit = field.metadata.get(b"unit", b"").decode() or UNITS.get(field.name)
    return dg.TableColumn(
        name=field.name,
        type=str(field.type),
        description=field.metadata[b"description"].decode(),
        constraints=dg.TableColumnConstraints(nullable=field.nullable),
        tags={"unit": unit} if unit else {},
    )


def _sql_metadata(asset: str) -> dict[str, Any]:
    file = sql_folder() / "transforms" / f"{asset}.sql"
    return {
        "sql": dg.MetadataValue.md(f"```sql\n{transform(asset)}\n```"),
        "dagster/code_references": dg.CodeReferencesMetadataValue(
            code_references=[
                dg.LocalFileCodeReference(
                    file_path=str(file), line_number=1, label=f"sql/transforms/{file.name}"
                )
            ]
        ),
    }
