"""External assets: the topic, what the stream writes, and the users."""

import dagster as dg

from antenna_assets.defs.assets.declared import OWNERS, columns_metadata, lake_metadata, serving_metadata
from antenna_assets.domain.schema import LANDED_SCHEMA, LIVE_TABLES, USER_METADATA

GROUP = "sources"

devices = dg.AssetSpec(
    "devices",
    group_name=GROUP,
    kinds={"kafka"},
    owners=OWNERS,
    description=(
        "Kafka topic of the events: one JSON object for each transfer of bytes between a device and an "
        "antenna. Key: kafka_partition and kafka_offset. Messages that are no event are kept with a reason "
        "and stop nothing."
    ),
    metadata=columns_metadata("devices", LANDED_SCHEMA),
)

landing = dg.AssetSpec(
    "landing",
    deps=[devices],
    group_name=GROUP,
    kinds={"spark", "parquet"},
    owners=OWNERS,
    description=(
        "One row for each accepted event, as the stream landed it, in a folder for its hour in UTC; rejected "
        "messages lie beside them with their reasons. Key: kafka_partition and kafka_offset. Which files "
        "count is in the ledger; a listing of the folder is not to be trusted. A late event lands like any "
        "other and makes its hour dirty."
    ),
    metadata=lake_metadata("landing", LANDED_SCHEMA),
)

user_metadata = dg.AssetSpec(
    "user_metadata",
    group_name=GROUP,
    kinds={"postgres"},
    owners=OWNERS,
    description=(
        "One row for each known user, with the quota in bytes an hour. Key: id. Every change gives the users "
        "a new version, which the hours published with it name, and each change of a quota is kept."
    ),
    metadata={
        "dagster/table_name": "public.user_metadata",
        **columns_metadata("user_metadata", USER_METADATA),
    },
)

live_tables = [
    dg.AssetSpec(
        table.name,
        deps=[devices],
        group_name="live",
        kinds={"spark", "postgres"},
        owners=OWNERS,
        description=(
            f"Live sums of bytes. Key: date (the window's first instant, UTC) and {table.key}. The stream "
            "adds to them in the transaction that commits the events, late ones included."
        ),
        metadata=serving_metadata(table),
    )
    for table in LIVE_TABLES.values()
]

SOURCES = [devices, landing, user_metadata, *live_tables]
