"""Create the containers' logins in PostgreSQL, each a member of one role (docs/roles.md), and Superset's
database.

`python logins.py FOLDER`: names and passwords are those in the folder's addresses `postgres_*`; the database
is that of ANTENNA_POSTGRES_URL, whose owner runs this. Idempotent: passwords are set again.
"""

import sys
from pathlib import Path

import psycopg
from psycopg import sql

from antenna_assets.clients.migrations import migrate
from antenna_assets.clients.postgres import connect
from antenna_assets.clients.postgres_address import parts
from antenna_assets.settings import load_settings
from antenna_assets.stack.services import postgres_url

ROLES = {
    "stream": "antenna_stream",
    "publisher": "antenna_publisher",
    "dashboards": "antenna_dashboards",
    "administrator": "antenna_administrator",
    "alerts": "antenna_alerts",
    "watch": "antenna_watch",
}
SUPERSET = "superset"
LEAST_CHARACTERS = 32


def main(folder: Path) -> None:
    """Migrate the schema, and create the logins."""
    with connect(postgres_url(load_settings()), application="antenna logins") as connection:
        migrate(connection)
        for name, role in ROLES.items():
            _login(connection, folder / f"postgres_{name}", name)
            connection.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(role), sql.Identifier(name)))
        _login(connection, folder / f"postgres_{SUPERSET}", SUPERSET)
        if connection.execute("SELECT FROM pg_database WHERE datname = %s", [SUPERSET]).fetchone() is None:
            name = sql.Identifier(SUPERSET)
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, name))


def _login(connection: psycopg.Connection, address: Path, name: str) -> None:
    password = parts(address.read_text(encoding="utf-8").strip()).get("password", "")
    if len(password) < LEAST_CHARACTERS:
        raise SystemExit(
            f"{address}: expected a password of {LEAST_CHARACTERS} or more characters, found {len(password)};"
            " docker/make_secrets.py creates one"
        )
    if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [name]).fetchone() is None:
        connection.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(name)))
    login = sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(name), sql.Literal(password))
    connection.execute(login)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
