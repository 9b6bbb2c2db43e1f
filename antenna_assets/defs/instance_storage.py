"""Dagster's storage in PostgreSQL: pooled connections, and many events in one transaction.

`docker/dagster.yaml` names the class. Dagster's own storage opens three connections for each event: measured,
a run of 24 hours spent 9 of its 32 s on opening 3,000. The sessions pin the same settings as ours: Dagster's
columns have no time zone, so a session in another one is hours off.
"""

import os
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import dagster as dg
import sqlalchemy as db
from dagster._core.events import ASSET_EVENTS, DagsterEventType
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.config import PostgresStorageConfig
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, SqlEventLogStorageTable
from dagster._serdes import ConfigurableClassData
from dagster_postgres.event_log import PostgresEventLogStorage
from dagster_postgres.storage import DagsterPostgresStorage
from dagster_postgres.utils import (
    create_pg_connection,
    create_pg_engine,
    get_token_provider_from_config,
    pg_url_from_config,
)
from psycopg.conninfo import make_conninfo
from sqlalchemy import URL
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2

from antenna_assets.clients.advisory_locks import GRANTS
from antenna_assets.clients.postgres import connect, dagster_url
from antenna_assets.clients.postgres_address import parts, to_primary
from antenna_assets.clients.postgres_session import RUN, pin
from antenna_assets.defs.old_previews import clean_old_previews

_DRIVER = "antenna"
_OF_THE_ADDRESS = ["search_path"]


class PinnedSessions(PGDialect_psycopg2):
    """A SQLAlchemy dialect with libpq's addresses, whose sessions pin the settings that Dagster needs.

    A dialect applies to every engine, those included that Dagster creates for its webserver.
    """

    driver = _DRIVER
    supports_statement_cache = True

    def create_connect_args(self, url: URL) -> tuple[list[str], dict[str, Any]]:
        """The address unchanged: libpq parses it, not SQLAlchemy."""
        password = {} if url.password is None else {"password": str(url.password)}
        return [str(url.query["address"])], {"client_encoding": "UTF8", **password}

    def connect(self, *arguments: Any, **options: Any) -> Any:
        """A connection whose session is pinned."""
        connection: Any = super().connect(*arguments, **options)
        try:
            info = connection.info
            with connection.cursor() as cursor:
                cursor.execute(pin(info.server_version, RUN, only_of=info.backend_pid, keep=_OF_THE_ADDRESS))
                if cursor.fetchone() is None:
                    connection.rollback()
                    # A pooler: `connect` refuses it, unless it keeps a session for each client.
                    connect(make_conninfo(*arguments, **options)).close()
                    cursor.execute(pin(info.server_version, RUN, keep=_OF_THE_ADDRESS))
            connection.commit()
        except BaseException:
            connection.close()
            raise
        return connection


registry.register(f"postgresql.{_DRIVER}", __name__, PinnedSessions.__name__)


def sqlalchemy_url(address: str) -> str:
    """An address, in any form that libpq takes, as URL for an engine with `PinnedSessions`."""
    found = parts(to_primary(dagster_url(address)))
    password = found.pop("password", None)
    url = URL.create(
        f"postgresql+{_DRIVER}", username="", password=password, query={"address": make_conninfo(**found)}
    )
    return url.render_as_string(hide_password=False)


_SWEPT = """
    FROM pg_class
    WHERE relnamespace = to_regnamespace('dagster') AND relkind = 'r' AND pg_has_role(relowner, 'USAGE')
    AND EXISTS (SELECT FROM pg_roles WHERE rolname = 'antenna_administrator')
    AND NOT (has_table_privilege('antenna_administrator', oid, 'SELECT')
        AND has_table_privilege('antenna_administrator', oid, 'DELETE'))
"""


def _grant_sweep_rights(engine: db.Engine) -> None:
    """Grant `antenna_administrator` the missing rights of `antenna sweep` on this login's tables."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if not connection.execute(db.text(f"SELECT 1 {_SWEPT} LIMIT 1")).fetchone():
            return
        # One at a time: PostgreSQL refuses two concurrent grants on one table.
        connection.execute(
            db.text(
                f"""DO $$ DECLARE one regclass; BEGIN
                    PERFORM pg_advisory_xact_lock({GRANTS});
                    FOR one IN SELECT oid::regclass {_SWEPT} LOOP
                        EXECUTE format('GRANT SELECT, DELETE ON %s TO antenna_administrator', one);
                    END LOOP;
                END $$"""
            )
        )


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
        """Keep the events of this thread until the end of the block, and store them then."""
        kept: list[EventLogEntry] = []
        self._of_thread.kept = kept
        try:
            yield
        finally:
            self._of_thread.kept = None
            if kept:
                self.store_event_batch(kept)

    def store_event(self, event: EventLogEntry) -> None:
        """Store an event, or keep it for the end of `together`."""
        kept = getattr(self._of_thread, "kept", None)
        if kept is None:
            super().store_event(event)
        else:
            kept.append(event)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events in one transaction."""
        with self._connect() as connection:
            connection.execution_options(isolation_level="READ COMMITTED")
            with connection.begin():
                # What Dagster calls below takes this connection.
                self._of_thread.connection = connection
                try:
                    self._store(connection, events)
                finally:
                    self._of_thread.connection = None

    def _store(self, connection: db.Connection, events: Sequence[EventLogEntry]) -> None:
        insert = self.prepare_insert_event_batch(events).returning(SqlEventLogStorageTable.c.id)
        stored = list(zip(events, connection.execute(insert).scalars(), strict=True))
        of_kinds: defaultdict[DagsterEventType | None, list[tuple[EventLogEntry, int]]] = defaultdict(list)
        for event, number in stored:
            of_kinds[event.dagster_event_type].append((event, number))
        newest: dict[str, tuple[EventLogEntry, int]] = {}
        for event, number in (one for kind in ASSET_EVENTS for one in of_kinds[kind]):
            key = event.get_dagster_event().asset_key
            if key is not None:
                self._store_asset_event_tags(connection, [event], [number])
                newest[key.to_string()] = (event, number)
        # In one order, or two runs would wait for each other.
        for _, (event, number) in sorted(newest.items()):
            self._store_asset_event(connection, event, number)
        for event, number in of_kinds[DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED]:
            self._store_asset_check_evaluation_planned(event, number)
        if evaluations := of_kinds[DagsterEventType.ASSET_CHECK_EVALUATION]:
            self._store_evaluations(connection, evaluations)

    def _store_evaluations(
        self, connection: db.Connection, evaluations: Sequence[tuple[EventLogEntry, int]]
    ) -> None:
        """Put each evaluation in the place of its plan; see `_update_asset_check_evaluation` of Dagster."""
        planned = AssetCheckExecutionsTable
        rows = [self._row_of(event, number) for event, number in evaluations]
        values = db.values(*(db.column(name, planned.c[name].type) for name in rows[0]), name="evaluated")
        evaluated = values.data([tuple(row.values()) for row in rows])
        same = [planned.c[name] == evaluated.c[name] for name in ("asset_key", "check_name", "run_id")]
        # The others use an index, this one cannot.
        same.append(planned.c.partition.is_not_distinct_from(evaluated.c.partition))
        changed = {
            name: db.cast(evaluated.c[name], planned.c[name].type)
            for name in rows[0]
            if name.startswith(("execution", "evaluation", "materialization"))
        }
        update = planned.update().where(*same).values(changed)
        found = connection.execute(update.returning(planned.c.evaluation_event_storage_id)).scalars()
        left = {number for _, number in evaluations} - set(found)
        if left:
            insert = [row for row in rows if row["evaluation_event_storage_id"] in left]
            connection.execute(planned.insert(), insert)

    def _row_of(self, event: EventLogEntry, number: int) -> dict[str, Any]:
        evaluation = event.get_dagster_event().asset_check_evaluation_data
        status = AssetCheckExecutionRecordStatus
        target = evaluation.target_materialization_data
        return {
            "asset_key": evaluation.asset_key.to_string(),
            "check_name": evaluation.check_name,
            "run_id": event.run_id,
            "partition": evaluation.partition,
            "execution_status": (status.SUCCEEDED if evaluation.passed else status.FAILED).value,
            "evaluation_event": dg.serialize_value(event),
            "evaluation_event_timestamp": self._event_insert_timestamp(event),
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


class PooledPostgresStorage(DagsterPostgresStorage):
    """Runs, events and schedules in PostgreSQL, with a small pool of connections for each."""

    def __init__(self, postgres_url: str, **options: Any) -> None:
        # Dagster writes the materializations of a run's hours in one statement, in batches of this size.
        os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")
        url = sqlalchemy_url(postgres_url)
        super().__init__(url, **options)
        self._event_log_storage = EventLog(url, False, token_provider=options.get("token_provider"))
        # Their owner created them, perhaps after the migration that grants rights.
        _grant_sweep_rights(self._run_storage._engine)
        clean_old_previews(dagster_url(postgres_url))
        for storage in (self._run_storage, self._event_log_storage, self._schedule_storage):
            storage._engine.dispose()
            storage._engine = create_pg_engine(
                url,
                options.get("token_provider"),
                isolation_level="AUTOCOMMIT",
                pool_size=2,
                max_overflow=20,
                # A connection that PostgreSQL has closed is replaced before it is used.
                pool_pre_ping=True,
            )

    @classmethod
    def from_config_value(  # type: ignore[override]
        cls, inst_data: ConfigurableClassData | None, config_value: PostgresStorageConfig
    ) -> "PooledPostgresStorage":
        """Create the storage from the configuration of Dagster's own."""
        return cls(
            pg_url_from_config(config_value),
            should_autocreate_tables=config_value.get("should_autocreate_tables", True),
            inst_data=inst_data,
            token_provider=get_token_provider_from_config(config_value),
        )
