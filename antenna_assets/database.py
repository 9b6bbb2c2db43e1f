"""How PostgreSQL is opened and how its schema comes to be: connections, migrations and the seed.

What the tables mean is not here: the ledger's are in `ledger.py`, those that people read in `serving.py`.
"""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict

from antenna_assets.crash import commit_point
from antenna_assets.errors import AntennaError
from antenna_assets.project_files import sql_folder

# One lock for all migrations of a database, whoever runs them.
_MIGRATION_LOCK = 0x616E74656E6E61


# Each end sees after 25 s that the other has vanished, and not after the two hours of the system's default: a vanished
# client's locks are free again, and nobody waits for an answer of a machine that is gone.
_SERVER_KEEPALIVES = "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"


class DatabaseError(AntennaError):
    """PostgreSQL cannot be used; the message says where it was looked for and what to do."""


def connect(url: str, *, application: str = "antenna") -> psycopg.Connection:
    """Open a connection in autocommit mode whose time zone is UTC.

    Raises:
        DatabaseError: PostgreSQL does not answer within 5 seconds or refuses us. The message holds no password.
    """
    try:
        return psycopg.connect(
            url,
            autocommit=True,
            connect_timeout=5,
            application_name=application,
            options=f"-c timezone=UTC {_SERVER_KEEPALIVES}",
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
        )
    except psycopg.ProgrammingError:
        raise DatabaseError(
            "expected an address such as postgresql://user:password@host:5432/antenna in ANTENNA_POSTGRES_URL, "
            "found one that PostgreSQL's client cannot read"
        ) from None  # Its text repeats the address, and Dagster stores the causes of an error with it.
    except psycopg.OperationalError as error:
        raise DatabaseError(
            f"PostgreSQL at {_place(url)} cannot be used: {str(error).strip().splitlines()[-1]}; "
            "start it with `antenna up`, or correct ANTENNA_POSTGRES_URL"
        ) from error


@contextmanager
def snapshot(connection: psycopg.Connection) -> Iterator[None]:
    """A block that changes nothing and in which all statements see the database as it is at its first one."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield


def _place(url: str) -> str:
    parts = conninfo_to_dict(url)
    return f"{parts.get('host', 'localhost')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"


def dagster_url(url: str) -> str:
    """The same database, entered in the same way, with Dagster's own schema as the search path."""
    schema = urlencode({"options": "-c search_path=dagster"}, quote_via=quote)
    return f"{url}{'&' if '?' in url else '?'}{schema}"


def migrate(connection: psycopg.Connection) -> list[str]:
    """Apply the migrations and the seed that were not applied yet, each in one transaction; returns their names.

    Raises:
        DatabaseError: a migration that was applied has changed since.
    """
    applied_now = []
    connection.execute("SELECT pg_advisory_lock(%s)", [_MIGRATION_LOCK])
    try:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migration "
            "(name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
        )
        applied: dict[str, str] = dict(
            connection.execute("SELECT name, sha256 FROM schema_migration").fetchall()
        )
        for path in [
            *sorted((sql_folder() / "migrations").glob("*.sql")),
            sql_folder() / "seed" / "users.csv",
        ]:
            name = f"{path.parent.name}/{path.name}"
            text = path.read_text(encoding="utf-8")
            digest = sha256(text.encode()).hexdigest()
            if name not in applied:
                with connection.transaction():
                    if path.suffix == ".csv":
                        _insert_users(connection, path)
                    else:
                        connection.execute(text.encode())
                    connection.execute(
                        "INSERT INTO schema_migration (name, sha256) VALUES (%s, %s)", [name, digest]
                    )
                    commit_point("up.migration.last_statement")
                applied_now.append(name)
            elif applied[name] != digest:
                raise DatabaseError(
                    f"{name} was changed after it was applied to this database; "
                    "undo the change and write a new migration instead"
                )
    finally:
        connection.execute("SELECT pg_advisory_unlock(%s)", [_MIGRATION_LOCK])
    return applied_now


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
