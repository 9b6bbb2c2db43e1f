"""Dagster's storage in PostgreSQL, with pooled connections.

`docker/dagster.yaml` names the class. Dagster's own storage opens three connections for each event: measured,
a run of 24 hours spent 9 of its 32 s on opening 3,000. The sessions pin the same settings as ours: Dagster's
columns have no time zone, so a session in another one is hours off.
"""

import os
from typing import Any

import sqlalchemy as db
from dagster._core.storage.config import PostgresStorageConfig
from dagster._serdes import ConfigurableClassData
from dagster_postgres.storage import DagsterPostgresStorage
from dagster_postgres.utils import (
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
from antenna_assets.defs.event_log import EventLog
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
