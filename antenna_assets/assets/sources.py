"""What lies outside Dagster: the topic, what the stream writes, and the users. Nothing here is computed."""

import dagster as dg

from antenna_assets.schema import LANDED, LIVE_TABLES, USERS, pa

GROUP = "sources"


def _table_schema(columns: pa.Schema) -> dg.TableSchema:
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=column.name,
                type=str(column.type),
                description=column.metadata[b"description"].decode(),
                constraints=dg.TableColumnConstraints(nullable=column.nullable),
            )
            for column in columns
        ]
    )


devices = dg.AssetSpec(
    "devices",
    group_name=GROUP,
    kinds={"kafka"},
    description="Kafka topic of the events: one JSON object for each transfer of bytes between a device and an antenna.",
)

landing = dg.AssetSpec(
    "landing",
    deps=[devices],
    group_name=GROUP,
    kinds={"spark", "parquet"},
    description=(
        "What the stream landed: accepted events by hour and rejected messages with their reasons. Which files count "
        "is in the ledger; a listing of the folder is not to be trusted."
    ),
    metadata={"dagster/column_schema": _table_schema(LANDED)},
)

user_metadata = dg.AssetSpec(
    "user_metadata",
    group_name=GROUP,
    kinds={"postgres"},
    description="The known users, with their quota in bytes an hour. Key: id.",
    metadata={"dagster/column_schema": _table_schema(USERS), "dagster/table_name": "public.user_metadata"},
)

live_tables = [
    dg.AssetSpec(
        table.name,
        deps=[devices],
        group_name="live",
        kinds={"spark", "postgres"},
        description=(
            f"Live sums of bytes by {table.key} and window, `date` being the window's first instant in UTC. "
            "The stream adds to them in the transaction that commits the events."
        ),
        metadata={
            "dagster/column_schema": _table_schema(table.columns),
            "dagster/table_name": f"public.{table.name}",
        },
    )
    for table in LIVE_TABLES.values()
]

SOURCES = [devices, landing, user_metadata, *live_tables]
