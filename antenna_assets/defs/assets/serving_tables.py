"""Publishing the hours of a serving table: query, fence, replace, certificate."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime

import dagster as dg
import pyarrow as pa

from antenna_assets.defs.assets.materialize import Outcomes, Stages, materialize_hours
from antenna_assets.defs.assets.preview import first_rows, table_views
from antenna_assets.defs.partitions import hours_of
from antenna_assets.defs.resources import EngineResource, LakeResource, PostgresResource
from antenna_assets.domain.schema import ENRICHED_USAGE, HOURLY_TABLES, ServingTable
from antenna_assets.engines.contract import Dataset
from antenna_assets.engines.transforms import transform
from antenna_assets.errors import Superseded
from antenna_assets.ledger.generations import read_generation
from antenna_assets.ledger.lake_identity import require_own_lake
from antenna_assets.ledger.publications import Publication
from antenna_assets.publishing.lake import USERS_VERSION
from antenna_assets.publishing.serving import HourOfTable, replace_hours


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

        def materialize(hours: Sequence[datetime], stage: Stages, outcomes: Outcomes) -> None:
            usage = tables.hours("enriched_usage", hours)
            shown: dict[datetime, _Shown] = {}
            with ExitStack() as streams:
                ready = []
                for hour in hours:
                    with outcomes.of(hour), stage("transform"):
                        published = usage[hour].published("enriched_usage", hour)
                        generation = read_generation(connection, hour, published.generation)
                        inputs = {"enriched_usage": Dataset(published.files, ENRICHED_USAGE)}
                        rows = streams.enter_context(run.stream(_ordered(table), inputs, table.columns))
                        shown[hour] = _Shown(table, rows)
                        version = Publication(
                            table.name,
                            hour,
                            published.generation,
                            0,
                            0,
                            published.tags[USERS_VERSION],
                            context.run.run_id,
                        )
                        ready.append(
                            HourOfTable(version, shown[hour], generation.bytes if conserves_bytes else None)
                        )
                with stage("publish"):
                    done = replace_hours(connection, table, ready)
            for hour, one in done.items():
                if isinstance(one, Superseded):
                    outcomes.superseded[hour] = one
                else:
                    outcomes.reports[hour] = {
                        "rows": one.rows,
                        "bytes": one.bytes,
                        "generation": one.generation,
                        "users_version": one.users_version or 0,
                        **shown[hour].unknown_users,
                        **(table_views(table, shown[hour].top) if hour == hours[-1] else {}),
                    }

        return materialize_hours(context, connection, materialize)


def _ordered(table: ServingTable) -> str:
    """The rows of an hour in the order of the key's bytes, in which their digest is made."""
    return f"SELECT * FROM (\n{transform(table.name)}\n) AS rows ORDER BY {table.key}"  # noqa: S608


class _Shown:
    """Batches on their way to PostgreSQL, and what Dagster shows of them.

    Attributes:
        top: the rows with the most bytes.
        unknown_users: the number of users that `user_metadata` does not know, if the table is one of users.
    """

    def __init__(self, table: ServingTable, rows: Iterable[pa.RecordBatch]) -> None:
        self._table = table
        self._rows = rows
        self.top = table.columns.empty_table()
        self.unknown_users = {"unknown_users": 0} if "email" in table.columns.names else {}

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self._rows:
            self.top = first_rows(self._table, pa.concat_tables([self.top, pa.table(batch)]))
            for name in self.unknown_users:
                self.unknown_users[name] += batch["email"].null_count
            yield batch
