"""Hours of the ledger and rows of the serving tables, written as they would be after a run: for tests of what reads them."""

from datetime import datetime

import psycopg
from psycopg import sql

from antenna_assets.domain.hours import HOUR
from antenna_assets.ledger.user_hours import make_user_days

JUAN, FEDE = (f"00000000-0000-0000-0000-{number:012}" for number in (3, 4))
"""Known users with quotas of 100,000 and 5,000 bytes an hour."""


def hour(
    connection: psycopg.Connection, start: datetime, *generations: int, landed: int | None = None, closed=True
) -> None:
    """An hour of the ledger, with the bytes of each generation; a row has ten bytes."""
    bytes_ = landed if landed is not None else generations[-1] if generations else 0
    closed_at, closed_by = (start + HOUR, "watermark") if closed else (None, None)
    connection.execute(
        "INSERT INTO ledger.hour (hour, rows, bytes, closed_at, closed_by, generation) VALUES (%s, %s, %s, %s, %s, %s)",
        [start, bytes_ // 10, bytes_, closed_at, closed_by, len(generations)],
    )
    for number, of in enumerate(generations, start=1):
        connection.execute(
            "INSERT INTO ledger.hour_generation (hour, generation, up_to_batch, rows, bytes) VALUES (%s, %s, 0, %s, %s)",
            [start, number, of // 10, of],
        )


def publish(
    connection: psycopg.Connection, table: str, start: datetime, generation: int, *rows: tuple
) -> None:
    connection.execute(
        "INSERT INTO ledger.publication_head (asset, hour, generation) VALUES (%s, %s, %s)"
        " ON CONFLICT (asset, hour) DO UPDATE SET generation = excluded.generation",
        [table, start, generation],
    )
    insert(connection, table, *((start, *row) for row in rows))


def insert(connection: psycopg.Connection, table: str, *rows: tuple) -> None:
    if table == "bytes_agg_user_1h":
        make_user_days(connection, [row[0] for row in rows])
    for row in rows:
        connection.execute(
            sql.SQL("INSERT INTO {} VALUES ({})").format(
                sql.Identifier(table), sql.SQL(", ").join([sql.Placeholder()] * len(row))
            ),
            row,
        )


def quota_since_ever(connection: psycopg.Connection, quota: int | None, *users: str) -> int:
    """As if these users, or all of them, had never had another quota; returns the users' version since."""
    connection.execute(
        "UPDATE user_quota_change SET quota = %s WHERE period = 'hour' AND NOT ended AND (id = ANY(%s) OR %s)",
        [quota, list(users), not users],
    )
    return connection.execute("SELECT version FROM ledger.users_version").fetchall()[0][0]


def certify(
    connection: psycopg.Connection, start: datetime, number: int, generation: int, issued: datetime
) -> None:
    connection.execute(
        "INSERT INTO ledger.certificate (number, hour, generation, users_version, issued_at, text, previous_sha256, sha256)"
        " VALUES (%s, %s, %s, 1, %s, '', '', '')",
        [number, start, generation, issued],
    )
