"""What PostgreSQL has to be, and what the login has to be allowed: each found lacking is refused in one sentence with its fix.

`antenna up` asks before it changes anything, and `antenna doctor` asks the same.
"""

from collections.abc import Sequence
from contextlib import closing

import psycopg

from antenna_assets.clients.postgres_errors import DatabaseUnfit

OLDEST_VERSION = 15
ENCODING = "UTF8"


def require_fit(connection: psycopg.Connection) -> None:
    """Stop unless the server and its database are of a kind that the ledger can be kept in.

    Raises:
        DatabaseUnfit: an older version, another encoding, or a server that takes no writes.
    """
    info = connection.info
    if info.server_version < OLDEST_VERSION * 10_000:
        raise DatabaseUnfit(
            f"expected PostgreSQL {OLDEST_VERSION} or newer, found {info.parameter_status('server_version')}; upgrade the server"
        )
    encoding = info.parameter_status("server_encoding")
    if encoding != ENCODING:
        raise DatabaseUnfit(
            f"expected a database in {ENCODING}, found {info.dbname} in {encoding}, which cannot hold every text; make another"
            f" with CREATE DATABASE ... ENCODING '{ENCODING}' TEMPLATE template0, and let ANTENNA_POSTGRES_URL lead to it"
        )
    if connection.execute("SELECT pg_is_in_recovery()").fetchone() != (False,):
        raise DatabaseUnfit(
            "expected PostgreSQL's primary, found a standby, which takes no writes; let ANTENNA_POSTGRES_URL lead to the primary"
        )


def require_rights(connection: psycopg.Connection, roles: Sequence[str]) -> None:
    """Stop unless the login may make what migrations make, or has made it.

    Args:
        roles: whom they grant something.

    Raises:
        DatabaseUnfit: with the statements that an administrator has to run.
    """
    _require_tables_where_they_belong(connection)
    ((user, owner, creates, in_public, makes_roles),) = connection.execute(
        "SELECT current_user, (SELECT pg_get_userbyid(nspowner) FROM pg_namespace"
        "  WHERE nspname = 'ledger' AND NOT pg_has_role(nspowner, 'USAGE')),"
        " has_database_privilege(current_database(), 'CREATE') OR to_regnamespace('ledger') IS NOT NULL,"
        " coalesce(has_schema_privilege(to_regnamespace('public'), 'CREATE'), false),"
        " (SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user)"
    ).fetchall()
    if owner is not None:
        raise DatabaseUnfit(
            f"the tables of this database are {owner}'s, and {user} may not change them; run `antenna up` as {owner}"
        )
    if not (creates and in_public):
        name = connection.info.dbname
        raise DatabaseUnfit(
            f"{user} may not make schemas and tables in {name}; let an administrator of the server run"
            f' GRANT CREATE ON DATABASE "{name}" TO "{user}"; GRANT CREATE ON SCHEMA public TO "{user}"; in it, then run'
            " `antenna up` again"
        )
    known = connection.execute(
        "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", [list(roles)]
    ).fetchall()
    missing = [name for name in roles if (name,) not in known]
    if missing and not makes_roles:
        raise DatabaseUnfit(
            f"{user} may not make roles, and {', '.join(missing)} are missing; let an administrator of the server run"
            f" {' '.join(f'CREATE ROLE {name} NOLOGIN;' for name in missing)} then run `antenna up` again"
        )


def _require_tables_where_they_belong(connection: psycopg.Connection) -> None:
    """Before sessions pinned it, a `search_path` of the role or database decided where the tables of `public` went."""
    rows = connection.execute(
        "SELECT nspname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace"
        " WHERE relname = 'schema_migration' AND relkind = 'r' AND to_regclass('public.schema_migration') IS NULL"
        " AND EXISTS (SELECT FROM pg_namespace WHERE nspname = 'ledger')"
    ).fetchall()
    if rows:
        raise DatabaseUnfit(
            f"expected the tables of this system in the schema public, found them in {rows[0][0]}, where a search_path of the"
            " role or the database had put them; docs/upgrade.md has the statement that moves them"
        )


PROBES = 3
"""Looks at whether a pooler shares sessions; one that keeps them passes each."""


def require_own_sessions(connection: psycopg.Connection, url: str) -> None:
    """Stop if a pooler at this address gives a session to several clients, one transaction after the other.

    Locks and settings of a session would be somebody else's then. A pooler that keeps a session for each client is no harm.

    Raises:
        DatabaseUnfit: it does.
    """
    # More than once: a pooler that is busy may happen to give the first client the session that it had.
    shared = any(_is_shared(connection, url) for _ in range(PROBES))
    if shared:
        raise DatabaseUnfit(
            "expected a session of PostgreSQL for each client, found a pooler that shares them between transactions (such as"
            " PgBouncer with pool_mode=transaction); let ANTENNA_POSTGRES_URL lead to the server itself, or to a pool in"
            " session mode"
        )


def _is_shared(connection: psycopg.Connection, url: str) -> bool:
    with closing(psycopg.connect(url, autocommit=True, connect_timeout=5)) as other:
        before = _session(connection)
        if _session(other) == before:
            return True
        # While this transaction is open, a pooler of transactions has to give the first client another session.
        with other.transaction():
            _session(other)
            return _session(connection) != before


def _session(connection: psycopg.Connection) -> int:
    # Never prepared: the statement would stay in a session that is given on.
    return connection.execute("SELECT pg_backend_pid()", prepare=False).fetchall()[0][0]
