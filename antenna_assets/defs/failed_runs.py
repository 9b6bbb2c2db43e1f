"""Failures of runs, stored and read so that whoever launches retries misses none.

Dagster stores a failure in three statements: its event, the run's status, and whether it will be retried. The
daemon that launches retries reads events from a cursor on, and passes over for good

- a failure whose run does not have that status yet, and
- of two failures that were stored at the same time the one that has the lower number, if it came to light
  after the other one.

The run's backfill then waits for ever. With a status but no decision yet the backfill ends too early
(https://github.com/dagster-io/dagster/issues/34204). `event_log.py` uses what is here.
"""

from collections.abc import Mapping
from itertools import takewhile

import dagster as dg
import sqlalchemy as db
from dagster._core.events import JobFailureData
from dagster._core.execution.retries import auto_reexecution_should_retry_run
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.runs.schema import RunsTable
from dagster._core.storage.tags import WILL_RETRY_TAG

from antenna_assets.clients.advisory_locks import FAILED_RUNS


def is_failure(event: dg.EventLogEntry) -> bool:
    """Whether an event says that its run failed."""
    return event.dagster_event_type == dg.DagsterEventType.RUN_FAILURE


def decide_on_retry(instance: dg.DagsterInstance, failure: dg.EventLogEntry) -> None:
    """Store whether a run will be retried, before its failure is; Dagster then stores the same again."""
    run = instance.get_run_by_id(failure.run_id)
    if run is None or not instance.run_retries_enabled:
        return
    data = failure.get_dagster_event().event_specific_data
    will_retry = auto_reexecution_should_retry_run(
        instance,
        run.with_status(dg.DagsterRunStatus.FAILURE),
        data.failure_reason if isinstance(data, JobFailureData) else None,
    )
    instance.add_run_tags(run.run_id, {WILL_RETRY_TAG: str(will_retry).lower()})


def one_at_a_time(transaction: db.Connection) -> None:
    """Wait until no other transaction stores a failure, so that failures come to light by number."""
    transaction.execute(db.select(db.func.pg_advisory_xact_lock(FAILED_RUNS)))


def settled(connection: db.Connection, events: Mapping[int, dg.EventLogEntry]) -> dict[int, dg.EventLogEntry]:
    """Events by number, up to the first failure whose run does not have its last status yet.

    Should the process that stored it have died in between, run monitoring finds the run and fails it again.
    """
    failed = {event.run_id for event in events.values() if is_failure(event)}
    if not failed:
        return dict(events)
    going_on = set(
        connection.execute(
            db.select(RunsTable.c.run_id).where(
                RunsTable.c.run_id.in_(failed),
                RunsTable.c.status.in_([status.value for status in NOT_FINISHED_STATUSES]),
            )
        ).scalars()
    )
    return dict(
        takewhile(lambda item: not (is_failure(item[1]) and item[1].run_id in going_on), events.items())
    )
