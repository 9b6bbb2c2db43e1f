"""Publishing the hours of a serving table: query, fence, replace, certificate."""

from datetime import datetime

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from antenna_assets.defs.assets.materialize import Report, Stages, materialize_hours
from antenna_assets.defs.assets.preview import table_views
from antenna_assets.defs.partitions import hours_of
from antenna_assets.defs.resources import EngineResource, LakeResource, PostgresResource
from antenna_assets.domain.schema import ENRICHED_USAGE, HOURLY_TABLES
from antenna_assets.engines.contract import Dataset
from antenna_assets.engines.transforms import transform
from antenna_assets.ledger.errors import LedgerError
from antenna_assets.ledger.generations import read_generation
from antenna_assets.ledger.lake_identity import require_own_lake
from antenna_assets.ledger.publications import Publication
from antenna_assets.publishing.lake import USERS_VERSION
from antenna_assets.publishing.serving import replace_hour


def publish_hours(
    context: dg.AssetExecutionContext,
    postgres: PostgresResource,
    lake: LakeResource,
    engine: EngineResource,
    *,
    conserves_bytes: bool,
) -> dg.MaterializeResult:
    """Compute the asset's table from `enriched_usage`, at the generation that it carries, and publish each
    hour.

    Raises:
        LedgerError: with `conserves_bytes`, the sums of an hour are not the bytes of its generation.
    """
    # Before the lake is claimed: a key that is refused changes nothing.
    hours_of(context)
    table = HOURLY_TABLES[context.asset_key.to_user_string()]
    tables, run = lake.open(), engine.start()
    with postgres.connection() as connection:
        require_own_lake(connection, tables.root)

        def materialize(hour: datetime, stage: Stages) -> Report:
            usage = tables.published_hour("enriched_usage", hour)
            inputs = {"enriched_usage": Dataset(usage.files, ENRICHED_USAGE)}
            with stage("transform"):
                rows = run.read(transform(table.name), inputs, table.columns)
            bytes_ = pc.sum(rows[table.sum_column]).as_py() or 0
            expected = read_generation(connection, hour, usage.generation).bytes
            if conserves_bytes and bytes_ != expected:
                raise LedgerError(f"{table.name}: expected the hour's {expected} bytes, found {bytes_}")
            users_version = usage.tags[USERS_VERSION]
            publication = Publication(
                table.name, hour, usage.generation, rows.num_rows, bytes_, users_version, context.run.run_id
            )
            with stage("publish"):
                replace_hour(connection, table, rows, publication)
            return {
                "rows": rows.num_rows,
                "bytes": bytes_,
                "generation": usage.generation,
                "users_version": users_version,
                **_unknown_users(rows),
                **table_views(table, rows),
            }

        return materialize_hours(context, connection, materialize)


def _unknown_users(rows: pa.Table) -> dict[str, int]:
    """The number of users that `user_metadata` does not know, if the table is one of users."""
    return {"unknown_users": rows["email"].null_count} if "email" in rows.column_names else {}
