"""Which live tables the stream keeps (`ANTENNA_LIVE`), written down for those who read them."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import psycopg

from antenna_assets.domain.schema import LIVE_TABLES

_NOTE = """
INSERT INTO ledger.live_table AS known (name, left_out)
SELECT name, NOT name = ANY(%(kept)s) FROM unnest(%(all)s::text[]) AS name
ON CONFLICT (name) DO UPDATE SET left_out = excluded.left_out,
    kept_from = CASE WHEN known.left_out THEN date_trunc('hour', now(), 'UTC') + interval '1 hour'
        ELSE known.kept_from END
WHERE known.left_out <> excluded.left_out
"""


_WINDOWS = """
INSERT INTO ledger.live_window (name, length) SELECT * FROM unnest(%s::text[], %s::interval[])
ON CONFLICT (name, length) DO UPDATE SET used_at = excluded.used_at
"""


def note_live_tables(connection: psycopg.Connection, kept: Mapping[str, timedelta]) -> None:
    """Write down which live tables this stream keeps, before it commits anything.

    Args:
        kept: the length of the windows of each.
    """
    connection.execute(_NOTE, {"kept": list(kept), "all": list(LIVE_TABLES)})
    connection.execute(_WINDOWS, [list(kept), list(kept.values())])


def live_tables_left_out(connection: psycopg.Connection) -> set[str]:
    """The live tables that the newest stream leaves out."""
    return {name for (name,) in connection.execute("SELECT name FROM ledger.live_table WHERE left_out")}


def live_table_kept_from(connection: psycopg.Connection, name: str) -> datetime | None:
    """The first hour of which a live table has every event; None if it is left out."""
    row = connection.execute(
        "SELECT left_out, kept_from FROM ledger.live_table WHERE name = %s", [name]
    ).fetchone()
    left_out, kept_from = row or (False, None)
    return None if left_out else kept_from or datetime.min.replace(tzinfo=UTC)
