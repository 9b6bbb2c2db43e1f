"""Migrations: how the schema and the seed of PostgreSQL come to be, each file applied once, in one transaction.

Connections are opened in `postgres.py`.
"""

import csv
import re
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import psycopg

from antenna_assets.clients.postgres_errors import DatabaseError, told
from antenna_assets.clients.postgres_fitness import require_fit, require_rights
from antenna_assets.failpoints import commit_point
from antenna_assets.storage.project_files import sql_folder

# One lock for all migrations of a database, whoever runs them.
_MIGRATION_LOCK = 0x616E74656E6E61


_LONGEST_MIGRATION = "30 min"


_MIGRATION_TABLE = (
    "CREATE TABLE IF NOT EXISTS schema_migration "
    "(name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
)


SUPERSEDED = {
    # Asked for the right to make roles that were there, and granted on tables that were not ours.
    "migrations/0013_roles.sql": ("0aacfa0813bcd44a0fa4b6b94a0cae9c1312cc7e05c9a45528120245d078a416",),
}
"""Digests of migrations from before they were mended. What they left is what the mended ones leave."""


# The end of a GRANT.
_GRANTED = re.compile(r"\bTO\s+(antenna_\w+(?:\s*,\s*antenna_\w+)*)\s*;")


def migrate(connection: psycopg.Connection) -> list[str]:
    """Apply the migrations and the seed that were not applied yet, each in one transaction; returns their names.

    Raises:
        DatabaseError: a migration that was applied has changed since, or cannot be applied.
        DatabaseUnfit: the server, the database or the login is not one that this system works with.
    """
    require_fit(connection)
    applied_now: list[str] = []
    with _alone(connection):
        for name, path in _pending(connection):
            if not applied_now:
                require_rights(connection, _roles())
                connection.execute(_MIGRATION_TABLE)
            _apply(connection, path, name)
            applied_now.append(name)
    return applied_now


def require_usable(connection: psycopg.Connection) -> None:
    """Stop if `antenna up` could not make of this database what it has to be.

    Raises:
        DatabaseError, DatabaseUnfit: as `migrate` does.
    """
    require_fit(connection)
    if next(_pending(connection), None) is not None:
        require_rights(connection, _roles())


@contextmanager
def _alone(connection: psycopg.Connection) -> Iterator[None]:
    """Hold the lock of all migrations; whoever has it meanwhile may take its time, but not for ever."""
    try:
        with connection.transaction():
            connection.execute(f"SET LOCAL lock_timeout = '{_LONGEST_MIGRATION}'")
            connection.execute("SELECT pg_advisory_lock(%s)", [_MIGRATION_LOCK])
    except psycopg.errors.LockNotAvailable as error:
        raise DatabaseError(
            f"another `antenna up` has been migrating this database for {_LONGEST_MIGRATION}; see whether it is stuck, end it,"
            " and run `antenna up` again"
        ) from error
    try:
        yield
    finally:
        # A session that broke has let go of it.
        if not connection.broken:
            connection.execute("SELECT pg_advisory_unlock(%s)", [_MIGRATION_LOCK])


def _pending(connection: psycopg.Connection) -> Iterator[tuple[str, Path]]:
    """The files that were not applied yet, with their names, in their order.

    Raises:
        DatabaseError: one that was has changed since.
    """
    applied: dict[str, str] = {}
    if connection.execute("SELECT to_regclass('schema_migration')").fetchone() != (None,):
        applied = dict(connection.execute("SELECT name, sha256 FROM schema_migration").fetchall())
    for path in [*sorted((sql_folder() / "migrations").glob("*.sql")), sql_folder() / "seed" / "users.csv"]:
        name = f"{path.parent.name}/{path.name}"
        if name not in applied:
            yield name, path
        elif applied[name] not in (_digest(path), *SUPERSEDED.get(name, ())):
            raise DatabaseError(
                f"{name} was changed after it was applied to this database; "
                "undo the change and write a new migration instead"
            )


def _roles() -> list[str]:
    """The roles that the migrations grant something, which some of them make."""
    texts = [path.read_text(encoding="utf-8") for path in (sql_folder() / "migrations").glob("*.sql")]
    found = [names for text in texts for names in _GRANTED.findall(text)]
    return sorted({name.strip() for names in found for name in names.split(",")})


def _digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def _apply(connection: psycopg.Connection, path: Path, name: str) -> None:
    try:
        with connection.transaction():
            if path.suffix == ".csv":
                _insert_users(connection, path)
            else:
                connection.execute(path.read_bytes())
            connection.execute(
                "INSERT INTO schema_migration (name, sha256) VALUES (%s, %s)", [name, _digest(path)]
            )
            commit_point("up.migration.last_statement")
    except (
        psycopg.errors.InsufficientPrivilege,
        psycopg.errors.DuplicateTable,
        psycopg.errors.DuplicateSchema,
        psycopg.errors.DuplicateObject,
    ) as error:
        raise DatabaseError(
            f"{name} cannot be applied: {told(error)}; nothing of it was kept. The tables need names of their own and an owner:"
            " use a database that nobody else makes tables in, and run `antenna up` as its owner"
        ) from error


def _insert_users(connection: psycopg.Connection, path: Path) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        users = [(row["id"], row["name"], row["email"], int(row["quota"])) for row in csv.DictReader(file)]
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO user_metadata (id, name, email, quota) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
            users,
        )


def require_migrated(connection: psycopg.Connection) -> None:
    """Stop with a clear error if the schema is not there or is older than this package.

    Raises:
        DatabaseError: names the first migration that is missing.
    """
    exists = connection.execute("SELECT to_regclass('schema_migration') IS NOT NULL").fetchone()
    known = set()
    if exists and exists[0]:
        known = {name for (name,) in connection.execute("SELECT name FROM schema_migration").fetchall()}
    for path in sorted((sql_folder() / "migrations").glob("*.sql")):
        if f"migrations/{path.name}" not in known:
            raise DatabaseError(
                f"the database lacks migration {path.name}; `antenna up` applies it, also to an external PostgreSQL"
            )
