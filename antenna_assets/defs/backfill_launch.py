"""Launching a backfill in Dagster and following it. Dagster's daemon executes it, 48 hours a run."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import dagster as dg
import psycopg
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.utils import make_new_backfill_id
from dagster._daemon.daemon import BackfillDaemon

from antenna_assets.domain.counted import counted
from antenna_assets.domain.hours import hour_key
from antenna_assets.domain.schema import ASSETS
from antenna_assets.errors import AntennaError

_IN_PROGRESS = (BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING)


class BackfillFailed(AntennaError):
    """A backfill ended before all of its hours were published; those that it finished stay published."""


def launch(definitions: dg.Definitions, instance: dg.DagsterInstance, hours: Sequence[datetime]) -> str:
    """Launch a backfill of the six assets over these hours; returns its id."""
    id_, now = make_new_backfill_id(), datetime.now(UTC)
    first, last = hour_key(hours[0]), hour_key(hours[-1])
    # As the UI does it. Dagster has no public function for it, and its `job backfill` launches a run for each
    # hour.
    instance.add_backfill(
        PartitionBackfill.from_asset_partitions(
            backfill_id=id_,
            asset_graph=definitions.resolve_asset_graph(),
            partition_names=[hour_key(hour) for hour in hours],
            asset_selection=[dg.AssetKey(name) for name in ASSETS],
            backfill_timestamp=now.timestamp(),
            tags={},
            dynamic_partitions_store=instance,
            all_partitions=False,
            title=f"{first} to {last}",
            description="asked for by `antenna backfill`",
            run_config=None,
        )
    )
    return id_


def daemon_runs(instance: dg.DagsterInstance) -> bool:
    """Whether a daemon that executes backfills has sent a heartbeat lately."""
    name = BackfillDaemon.daemon_type()
    return bool(instance.get_daemon_statuses([name])[name].healthy)


def follow(
    instance: dg.DagsterInstance,
    connection: psycopg.Connection,
    id_: str,
    hours: Sequence[datetime],
    progress: Callable[[int], None],
) -> None:
    """Wait for a backfill's end.

    Args:
        progress: takes the number of its hours that were wholly published since it began.

    Raises:
        BackfillFailed: it failed or was cancelled.
    """
    while (backfill := instance.get_backfill(id_)) is not None and backfill.status in _IN_PROGRESS:
        progress(_published_since(connection, hours, backfill.backfill_timestamp))
        time.sleep(1)
    if backfill is None:
        raise BackfillFailed(f"backfill {id_} is gone from Dagster's instance; launch it again")
    done = _published_since(connection, hours, backfill.backfill_timestamp)
    progress(done)
    if backfill.status != BulkActionStatus.COMPLETED_SUCCESS:
        raise BackfillFailed(
            f"backfill {id_} ended as {backfill.status.value}, with {done:,} of "
            f"{counted(len(hours), 'hour')} published; Dagster's page of the backfill says why"
        )


def _published_since(connection: psycopg.Connection, hours: Sequence[datetime], since: float) -> int:
    row = connection.execute(
        "SELECT count(*) FROM (SELECT hour FROM ledger.publication WHERE hour = ANY(%s) AND committed_at >= "
        "%s GROUP BY hour HAVING count(DISTINCT asset) = %s) AS whole",
        [list(hours), datetime.fromtimestamp(since, UTC), len(ASSETS)],
    ).fetchone()
    return row[0] if row else 0
