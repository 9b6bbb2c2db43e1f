"""Dagster's events in PostgreSQL: many at once in one transaction, and no failure of a run is missed.

`instance_storage.py` makes it part of the instance's storage.
"""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import dagster as dg
import sqlalchemy as db
from dagster._core.events import ASSET_EVENTS, DagsterEventType
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, SqlEventLogStorageTable
from dagster_postgres.event_log import PostgresEventLogStorage
from dagster_postgres.utils import create_pg_connection

from antenna_assets.defs.failed_runs import decide_on_retry, is_failure, one_at_a_time, settled

_MAY_WAIT = {
    DagsterEventType.STEP_OUTPUT,
    DagsterEventType.ASSET_MATERIALIZATION,
    DagsterEventType.ASSET_CHECK_EVALUATION,
}


class EventLog(PostgresEventLogStorage):
    """Events in PostgreSQL; many at once in one transaction, with a statement for each table.

    Dagster does so for the materializations of one asset alone. A run of 24 hours has 576 evaluations of
    checks and 168 planned events: one by one, each takes four statements and a connection.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._of_thread = threading.local()
        super().__init__(*arguments, **options)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Keep the results of this thread's step until the end of the block, and store them then.

        Anything else is stored at once, after what was kept: a block that is left by an error, or by a run
        that is cancelled, may end late.
        """
        self._of_thread.kept = []
        try:
            yield
        finally:
            kept, self._of_thread.kept = self._of_thread.kept, None
            if kept:
                self._store_at_once(kept)

    def store_event(self, event: EventLogEntry) -> None:
        """Store an event, or keep it for the end of `together`."""
        if self._keeps([event]):
            return
        self._store_kept()
        if is_failure(event):
            self._store_failure(event)
        else:
            super().store_event(event)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events in one transaction, or keep them for the end of `together`."""
        if self._keeps(events):
            return
        self._store_kept()
        self._store_at_once(events)

    def _keeps(self, events: Sequence[EventLogEntry]) -> bool:
        kept = getattr(self._of_thread, "kept", None)
        if kept is None or not all(event.dagster_event_type in _MAY_WAIT for event in events):
            return False
        kept.extend(events)
        return True

    def _store_kept(self) -> None:
        if kept := getattr(self._of_thread, "kept", None):
            self._of_thread.kept = []
            self._store_at_once(kept)

    def _store_at_once(self, events: Sequence[EventLogEntry]) -> None:
        with self._transaction() as connection:
            self._store(connection, events)

    def _store_failure(self, event: EventLogEntry) -> None:
        if self.has_instance:
            decide_on_retry(self._instance, event)
        with self._transaction() as connection:
            one_at_a_time(connection)
            super().store_event(event)

    def get_logs_for_all_runs_by_log_id(
        self,
        after_cursor: int = -1,
        dagster_event_type: DagsterEventType | set[DagsterEventType] | None = None,
        limit: int | None = None,
    ) -> Mapping[int, EventLogEntry]:
        """Events by number from a cursor on, up to the first failure of a run that has not ended yet."""
        events = super().get_logs_for_all_runs_by_log_id(after_cursor, dagster_event_type, limit)
        with self._connect() as connection:
            return settled(connection, events)

    @contextmanager
    def _transaction(self) -> Iterator[db.Connection]:
        """A transaction of this thread's; what Dagster's own methods execute in the block is part of it."""
        with self._connect() as connection:
            connection.execution_options(isolation_level="READ COMMITTED")
            with connection.begin():
                self._of_thread.connection = connection
                try:
                    yield connection
                finally:
                    self._of_thread.connection = None

    def _store(self, connection: db.Connection, events: Sequence[EventLogEntry]) -> None:
        number_of = SqlEventLogStorageTable.c.id
        insert = SqlEventLogStorageTable.insert().returning(number_of, sort_by_parameter_order=True)
        # Rows are parameters of one statement: as values of one, thousands of them are compiled.
        stored = [self._event_to_row(event) for event in events]
        numbers = connection.execute(insert, stored).scalars().all()
        of_assets: dict[int, EventLogEntry] = {}
        newest: dict[str, tuple[EventLogEntry, int]] = {}
        plans: list[dict[str, Any]] = []
        evaluations: list[dict[str, Any]] = []
        for event, number, row in zip(events, numbers, stored, strict=True):
            kind = event.dagster_event_type
            key = event.get_dagster_event().asset_key if kind in ASSET_EVENTS else None
            if key is not None:
                of_assets[number] = event
                newest[key.to_string()] = (event, number)
            elif kind == DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED:
                plans += self._plans_of(event, number, row)
            elif kind == DagsterEventType.ASSET_CHECK_EVALUATION:
                evaluations.append(self._evaluation_of(event, number, row))
        self._store_asset_event_tags(connection, [*of_assets.values()], [*of_assets])
        # In one order, or two runs would wait for each other.
        for _, (event, number) in sorted(newest.items()):
            self._store_asset_event(connection, event, number)
        if plans:
            connection.execute(AssetCheckExecutionsTable.insert(), plans)
        if evaluations:
            self._store_evaluations(connection, evaluations)

    def _store_evaluations(self, connection: db.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Put each evaluation in the place of its plan; see `_update_asset_check_evaluation` of Dagster."""
        planned = AssetCheckExecutionsTable
        columns = [db.column(name, planned.c[name].type) for name in rows[0]]
        # One parameter for all rows: thousands of them would be compiled.
        together = db.cast(db.literal(json.dumps(rows, default=str), db.Text), db.JSON)
        evaluated = (
            db.func.json_to_recordset(together)
            .table_valued(*columns)
            .render_derived(name="evaluated", with_types=True)
        )
        same = [planned.c[name] == evaluated.c[name] for name in ("asset_key", "check_name", "run_id")]
        # The others use an index, this one cannot.
        same.append(planned.c.partition.is_not_distinct_from(evaluated.c.partition))
        changed = {
            name: evaluated.c[name]
            for name in rows[0]
            if name.startswith(("execution", "evaluation", "materialization"))
        }
        update = planned.update().where(*same).values(changed)
        found = connection.execute(update.returning(planned.c.evaluation_event_storage_id)).scalars()
        left = {row["evaluation_event_storage_id"] for row in rows} - set(found)
        if left:
            insert = [row for row in rows if row["evaluation_event_storage_id"] in left]
            connection.execute(planned.insert(), insert)

    def _plans_of(self, event: EventLogEntry, number: int, stored: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The rows of a planned check; see `_store_asset_check_evaluation_planned` of Dagster."""
        planned: Any = event.get_dagster_event().event_specific_data
        subset = planned.partitions_subset
        row = {
            "asset_key": planned.asset_key.to_string(),
            "check_name": planned.check_name,
            "run_id": event.run_id,
            "execution_status": AssetCheckExecutionRecordStatus.PLANNED.value,
            "evaluation_event": stored["event"],
            "evaluation_event_timestamp": stored["timestamp"],
            "evaluation_event_storage_id": number,
        }
        return [{**row, "partition": key} for key in (subset.get_partition_keys() if subset else [None])]

    def _evaluation_of(self, event: EventLogEntry, number: int, stored: Mapping[str, Any]) -> dict[str, Any]:
        evaluation = event.get_dagster_event().asset_check_evaluation_data
        status = AssetCheckExecutionRecordStatus
        target = evaluation.target_materialization_data
        return {
            "asset_key": evaluation.asset_key.to_string(),
            "check_name": evaluation.check_name,
            "run_id": event.run_id,
            "partition": evaluation.partition,
            "execution_status": (status.SUCCEEDED if evaluation.passed else status.FAILED).value,
            "evaluation_event": stored["event"],
            "evaluation_event_timestamp": stored["timestamp"],
            "evaluation_event_storage_id": number,
            "materialization_event_storage_id": target.storage_id if target else None,
        }

    def _connect(self) -> AbstractContextManager[db.Connection]:
        shared = getattr(self._of_thread, "connection", None)
        return create_pg_connection(self._engine) if shared is None else nullcontext(shared)


def events_together(instance: dg.DagsterInstance) -> AbstractContextManager[None]:
    """Store the events of a block at its end, all at once, where the instance has this storage."""
    event_log = instance.event_log_storage
    return event_log.together() if isinstance(event_log, EventLog) else nullcontext()
