"""Migrations: the files that create the schema and the seed, each applied once, in one transaction.

Connections are opened in `postgres.py`.
"""

import csv
import re
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import psycopg

from antenna_assets.clients.advisory_locks import MIGRATIONS, unlock
from antenna_assets.clients.postgres_errors import DatabaseError, error_line
from antenna_assets.clients.postgres_fitness import require_fit, require_rights
from antenna_assets.failpoints import commit_point
from antenna_assets.storage.project_files import sql_folder

_LONGEST_MIGRATION = "30 min"


_MIGRATION_TABLE = (
    "CREATE TABLE IF NOT EXISTS schema_migration "
    "(name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
)


SUPERSEDED = {
    # Needed the right to create roles that existed, and granted rights on tables of others.
    "migrations/0013_roles.sql": ("0aacfa0813bcd44a0fa4b6b94a0cae9c1312cc7e05c9a45528120245d078a416",),
}
"""Digests of migrations that were corrected later. Old and corrected ones have the same result."""


# The end of a GRANT statement.
_GRANTED = re.compile(r"\bTO\s+(antenna_\w+(?:\s*,\s*antenna_\w+)*)\s*;")


def migrate(connection: psycopg.Connection) -> list[str]:
    """Apply pending migrations and the seed, each in one transaction; returns their names.

    Raises:
        DatabaseError: an applied migration was changed, or one cannot be applied.
        DatabaseUnfit: the server, the database or the login cannot be used.
    """
    require_fit(connection)
    applied_now: list[str] = []
    with _exclusively(connection):
        for name, path in _pending(connection):
            if not applied_now:
                require_rights(connection, _roles())
                connection.execute(_MIGRATION_TABLE)
            _apply(connection, path, name)
            applied_now.append(name)
    return applied_now


def require_usable(connection: psycopg.Connection) -> None:
    """Require that `antenna up` can migrate this database.

    Raises:
        DatabaseError, DatabaseUnfit: as `migrate`.
    """
    require_fit(connection)
    if next(_pending(connection), None) is not None:
        require_rights(connection, _roles())


@contextmanager
def _exclusively(connection: psycopg.Connection) -> Iterator[None]:
    """Hold the lock of migrations, after waiting up to `_LONGEST_MIGRATION` for another holder."""
    try:
        with connection.transaction():
            connection.execute(f"SET LOCAL lock_timeout = '{_LONGEST_MIGRATION}'")
            connection.execute("SELECT pg_advisory_lock(%s)", [MIGRATIONS])
    except psycopg.errors.LockNotAvailable as error:
        raise DatabaseError(
            f"another `antenna up` has been migrating this database for {_LONGEST_MIGRATION}; if it is "
            "stuck, end it, and run `antenna up` again"
        ) from error
    try:
        yield
    finally:
        unlock(connection, MIGRATIONS)


def _pending(connection: psycopg.Connection) -> Iterator[tuple[str, Path]]:
    """The pending files with their names, in order.

    Raises:
        DatabaseError: an applied one was changed.
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
    """The roles that the migrations grant rights to; some of them create the roles."""
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
    except psycopg.errors.DependentObjectsStillExist as error:
        raise DatabaseError(f"{name} cannot be applied: {error_line(error)}; it was rolled back") from error
    except (
        psycopg.errors.InsufficientPrivilege,
        psycopg.errors.DuplicateTable,
        psycopg.errors.DuplicateSchema,
        psycopg.errors.DuplicateObject,
    ) as error:
        raise DatabaseError(
            f"{name} cannot be applied: {error_line(error)}; it was rolled back. Use a database in which "
            "nobody else creates tables, and run `antenna up` as its owner"
        ) from error


def _insert_users(connection: psycopg.Connection, path: Path) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        users = [(row["id"], row["name"], row["email"], int(row["quota"])) for row in csv.DictReader(file)]
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO user_metadata (id, name, email, quota) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT DO NOTHING",
            users,
        )


def require_migrated(connection: psycopg.Connection) -> None:
    """Require that every migration of this package is applied.

    Raises:
        DatabaseError: names the first one that is not.
    """
    exists = connection.execute("SELECT to_regclass('schema_migration') IS NOT NULL").fetchone()
    known = set()
    if exists and exists[0]:
        known = {name for (name,) in connection.execute("SELECT name FROM schema_migration").fetchall()}
    for path in sorted((sql_folder() / "migrations").glob("*.sql")):
        if f"migrations/{path.name}" not in known:
            raise DatabaseError(
                f"the database lacks migration {path.name}; `antenna up` applies it, also to an external "
                "PostgreSQL"
            )
