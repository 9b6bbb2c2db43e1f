"""Requirements on PostgreSQL's server, database, login and pooler; each error says how to fix it.

`antenna up` checks them before it changes anything, and `antenna doctor` checks the same.
"""

from collections.abc import Sequence
from contextlib import closing

import psycopg

from antenna_assets.clients.postgres_errors import DatabaseUnfit

OLDEST_VERSION = 15
ENCODING = "UTF8"


def require_fit(connection: psycopg.Connection) -> None:
    """Require a supported server and database.

    Raises:
        DatabaseUnfit: the version is too old, the encoding another one, or the server read-only.
    """
    info = connection.info
    if info.server_version < OLDEST_VERSION * 10_000:
        raise DatabaseUnfit(
            f"expected PostgreSQL {OLDEST_VERSION} or newer, found "
            f"{info.parameter_status('server_version')}; upgrade the server"
        )
    encoding = info.parameter_status("server_encoding")
    if encoding != ENCODING:
        raise DatabaseUnfit(
            f"expected a database in {ENCODING}, found {info.dbname} in {encoding}, which cannot hold every "
            f"text; create another with CREATE DATABASE ... ENCODING '{ENCODING}' TEMPLATE template0, and "
            "set ANTENNA_POSTGRES_URL to it"
        )
    if connection.execute("SELECT pg_is_in_recovery()").fetchone() != (False,):
        raise DatabaseUnfit(
            "expected PostgreSQL's primary, found a standby, which is read-only; set ANTENNA_POSTGRES_URL "
            "to the primary"
        )


def require_rights(connection: psycopg.Connection, roles: Sequence[str]) -> None:
    """Require that the login may apply the migrations, or has applied them.

    Args:
        roles: the roles that they grant rights to.

    Raises:
        DatabaseUnfit: the message has the statements that an administrator has to run.
    """
    _require_tables_in_public(connection)
    ((user, owner, creates, in_public, makes_roles),) = connection.execute(
        "SELECT current_user, (SELECT pg_get_userbyid(nspowner) FROM pg_namespace"
        "  WHERE nspname = 'ledger' AND NOT pg_has_role(nspowner, 'USAGE')),"
        " has_database_privilege(current_database(), 'CREATE') OR to_regnamespace('ledger') IS NOT NULL,"
        " coalesce(has_schema_privilege(to_regnamespace('public'), 'CREATE'), false),"
        " (SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user)"
    ).fetchall()
    if owner is not None:
        raise DatabaseUnfit(
            f"the tables of this database belong to {owner}, and {user} may not change them; run `antenna "
            f"up` as {owner}"
        )
    if not (creates and in_public):
        name = connection.info.dbname
        raise DatabaseUnfit(
            f"{user} may not create schemas and tables in {name}; ask an administrator of the server to run"
            f' in it GRANT CREATE ON DATABASE "{name}" TO "{user}";'
            f' GRANT CREATE ON SCHEMA public TO "{user}"; then run `antenna up` again'
        )
    known = connection.execute(
        "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", [list(roles)]
    ).fetchall()
    missing = [name for name in roles if (name,) not in known]
    if missing and not makes_roles:
        raise DatabaseUnfit(
            f"{user} may not create roles, and {', '.join(missing)} are missing; ask an administrator of the "
            f"server to run {' '.join(f'CREATE ROLE {name} NOLOGIN;' for name in missing)} then run `antenna "
            "up` again"
        )


def _require_tables_in_public(connection: psycopg.Connection) -> None:
    """Before sessions set `search_path`, one of the role or database could put them into another schema."""
    rows = connection.execute(
        "SELECT nspname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace"
        " WHERE relname = 'schema_migration' AND relkind = 'r'"
        " AND to_regclass('public.schema_migration') IS NULL"
        " AND EXISTS (SELECT FROM pg_namespace WHERE nspname = 'ledger')"
    ).fetchall()
    if rows:
        raise DatabaseUnfit(
            f"expected the tables of this system in the schema public, found them in {rows[0][0]}, where a "
            "search_path of the role or the database had put them; docs/upgrade.md has the statement that "
            "moves them"
        )


PROBES = 3
"""How often it is tried whether a pooler shares sessions; one that does not passes every time."""


def require_own_sessions(connection: psycopg.Connection, url: str) -> None:
    """Require that no pooler at this address shares a session between clients (transaction pooling).

    Locks and settings of a session would then be another client's. A pooler in session mode is fine.

    Raises:
        DatabaseUnfit: a pooler shares sessions.
    """
    # More than once: a busy pooler may give the first client its session again by chance.
    shared = any(_is_shared(connection, url) for _ in range(PROBES))
    if shared:
        raise DatabaseUnfit(
            "expected a session of PostgreSQL for each client, found a pooler that shares them between "
            "transactions (such as PgBouncer with pool_mode=transaction); set ANTENNA_POSTGRES_URL to the "
            "server itself, or to a pool in session mode"
        )


def _is_shared(connection: psycopg.Connection, url: str) -> bool:
    with closing(psycopg.connect(url, autocommit=True, connect_timeout=5)) as other:
        before = _session(connection)
        if _session(other) == before:
            return True
        # While this transaction is open, a pooler in transaction mode must give the first client another
        # session.
        with other.transaction():
            _session(other)
            return _session(connection) != before


def _session(connection: psycopg.Connection) -> int:
    # Not prepared: a prepared statement would stay in a session that is handed on.
    return connection.execute("SELECT pg_backend_pid()", prepare=False).fetchall()[0][0]
