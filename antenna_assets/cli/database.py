"""The database of a command: opened with the settings in force, and required to be migrated."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psycopg

    from antenna_assets.settings import Settings


@contextmanager
def database(command: str) -> "Iterator[tuple[Settings, psycopg.Connection]]":
    """The settings, and a connection that PostgreSQL lists as `antenna <command>`.

    Raises:
        ServicesError: no PostgreSQL is running or configured.
        DatabaseError: it cannot be used, or lacks migrations.
    """
    from antenna_assets.clients.migrations import require_migrated
    from antenna_assets.clients.postgres import connect
    from antenna_assets.settings import load_settings
    from antenna_assets.stack.services import postgres_url

    settings = load_settings()
    with connect(postgres_url(settings), application=f"antenna {command}") as connection:
        require_migrated(connection)
        yield settings, connection
