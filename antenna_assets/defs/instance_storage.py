"""Dagster's storage in PostgreSQL, whose connections stay open. `docker/dagster.yaml` names the class.

Dagster's own opens three connections for each event: measured, a run of 24 hours spent 9 of its 32 s on opening 3,000.
Its sessions pin the same as ours: by Dagster's columns without a zone, a session of another zone is hours off.
"""

from typing import Any

import sqlalchemy as db
from dagster._core.storage.config import PostgresStorageConfig
from dagster._serdes import ConfigurableClassData
from dagster_postgres.storage import DagsterPostgresStorage
from dagster_postgres.utils import create_pg_engine, get_token_provider_from_config, pg_url_from_config
from psycopg.conninfo import make_conninfo
from sqlalchemy import URL
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2

from antenna_assets.clients.postgres import connect, dagster_url
from antenna_assets.clients.postgres_address import parts, to_primary
from antenna_assets.clients.postgres_session import RUN, pin

_DRIVER = "antenna"
_OF_THE_ADDRESS = ["search_path"]


class PinnedSessions(PGDialect_psycopg2):
    """SQLAlchemy's way to PostgreSQL by an address that libpq reads, in sessions that pin what Dagster depends on.

    As a dialect of its own it holds for every engine, those that Dagster makes anew for its webserver included.
    """

    driver = _DRIVER
    supports_statement_cache = True

    def create_connect_args(self, url: URL) -> tuple[list[str], dict[str, Any]]:
        """The address as it is, which SQLAlchemy does not take apart."""
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
                    # A pooler: refused there, unless it keeps a session for each client.
                    connect(make_conninfo(*arguments, **options)).close()
                    cursor.execute(pin(info.server_version, RUN, keep=_OF_THE_ADDRESS))
            connection.commit()
        except BaseException:
            connection.close()
            raise
        return connection


registry.register(f"postgresql.{_DRIVER}", __name__, PinnedSessions.__name__)


def sqlalchemy_url(address: str) -> str:
    """The address, of any form that libpq takes, for an engine with `PinnedSessions`. What prints a URL hides its password."""
    found = parts(to_primary(dagster_url(address)))
    password = found.pop("password", None)
    url = URL.create(
        f"postgresql+{_DRIVER}", username="", password=password, query={"address": make_conninfo(**found)}
    )
    return url.render_as_string(hide_password=False)


_GRANTING = 0x6772616E74
_SWEPT = """
    FROM pg_class WHERE relnamespace = to_regnamespace('dagster') AND relkind = 'r' AND pg_has_role(relowner, 'USAGE')
    AND EXISTS (SELECT FROM pg_roles WHERE rolname = 'antenna_administrator')
    AND NOT (has_table_privilege('antenna_administrator', oid, 'SELECT') AND has_table_privilege('antenna_administrator', oid, 'DELETE'))
"""


def _grant_sweep_rights(engine: db.Engine) -> None:
    """Grant `antenna_administrator` what `antenna sweep` needs of the tables of this login's that it has no right to yet."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if not connection.execute(db.text(f"SELECT 1 {_SWEPT} LIMIT 1")).fetchone():
            return
        # One after the other: two grants on one table at once are an error of PostgreSQL's.
        connection.execute(
            db.text(
                f"""DO $$ DECLARE one regclass; BEGIN
                    PERFORM pg_advisory_xact_lock({_GRANTING});
                    FOR one IN SELECT oid::regclass {_SWEPT} LOOP
                        EXECUTE format('GRANT SELECT, DELETE ON %s TO antenna_administrator', one);
                    END LOOP;
                END $$"""
            )
        )


class PooledPostgresStorage(DagsterPostgresStorage):
    """Runs, events and schedules in PostgreSQL; a process keeps a few connections for each."""

    def __init__(self, postgres_url: str, **options: Any) -> None:
        url = sqlalchemy_url(postgres_url)
        super().__init__(url, **options)
        # Who made the tables has them, and may not be the one that the schema's migration knew.
        _grant_sweep_rights(self._run_storage._engine)
        for storage in (self._run_storage, self._event_log_storage, self._schedule_storage):
            storage._engine.dispose()
            storage._engine = create_pg_engine(
                url,
                options.get("token_provider"),
                isolation_level="AUTOCOMMIT",
                pool_size=2,
                max_overflow=20,
                # A connection that PostgreSQL closed meanwhile is replaced before it is used.
                pool_pre_ping=True,
            )

    @classmethod
    def from_config_value(  # type: ignore[override]
        cls, inst_data: ConfigurableClassData | None, config_value: PostgresStorageConfig
    ) -> "PooledPostgresStorage":
        """As Dagster's own, from the same configuration."""
        return cls(
            pg_url_from_config(config_value),
            should_autocreate_tables=config_value.get("should_autocreate_tables", True),
            inst_data=inst_data,
            token_provider=get_token_provider_from_config(config_value),
        )
