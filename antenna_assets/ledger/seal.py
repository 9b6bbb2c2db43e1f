"""Sealing the next generation of a closed hour, if it has rows beyond the newest one."""

from datetime import datetime

import psycopg

from antenna_assets.domain.hours import hour_key
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.errors import HourNotClosed
from antenna_assets.ledger.generations import Generation, read_generation, require_unexpired
from antenna_assets.ledger.landing import record_landing


def seal(connection: psycopg.Connection, hour: datetime) -> Generation:
    """Seal the next generation if the hour has rows beyond the newest one; returns the newest.

    Raises:
        HourNotClosed: the hour is open or unknown.
        HourExpired: landed files of the hour are past their retention, so a generation would be incomplete.
    """
    with connection.transaction():
        row = connection.execute(
            "SELECT closed_at IS NOT NULL, generation, rows FROM ledger.hour WHERE hour = %s FOR UPDATE",
            [hour],
        ).fetchone()
        if row is None or not row[0]:
            raise HourNotClosed(f"hour {hour_key(hour)} is not closed")
        _, generation, rows = row
        newest = read_generation(connection, hour, generation) if generation else None
        if newest is None or newest.rows < rows:
            require_unexpired(connection, [hour])
            generation += 1
            connection.execute(
                "INSERT INTO ledger.hour_generation (hour, generation, up_to_batch, rows, bytes)"
                " SELECT %s, %s, coalesce(max(batch), 0), coalesce(sum(rows), 0), coalesce(sum(bytes), 0)"
                " FROM ledger.file WHERE kind = 'landed' AND hour = %s",
                [hour, generation, hour],
            )
            connection.execute("UPDATE ledger.hour SET generation = %s WHERE hour = %s", [generation, hour])
            commit_point("publish.seal.last_statement")
    sealed = (
        newest
        if newest and newest.generation == generation
        else read_generation(connection, hour, generation)
    )
    # After the transaction, which locks the hour's row: the stream writes it.
    record_landing(connection, sealed)
    return sealed
