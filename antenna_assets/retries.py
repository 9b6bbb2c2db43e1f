"""The hours whose runs failed, as the sensor saw them at its last tick, for `antenna status`.

When they are asked for again is decided in `requests.py`.
"""

from collections.abc import Sequence

import psycopg
from psycopg.rows import class_row

from antenna_assets.requests import FailingHour


def record_failing_hours(connection: psycopg.Connection, failing: Sequence[FailingHour]) -> None:
    """Make these the hours that fail, and no others. Nothing is written if they are the known ones."""
    if read_failing_hours(connection) == sorted(failing, key=lambda one: one.hour):
        return
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute("DELETE FROM ledger.failing_hour")
        cursor.executemany(
            "INSERT INTO ledger.failing_hour (hour, batch, attempts, run_id, ended, next_attempt)"
            " VALUES (%s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (hour) DO NOTHING",
            [(one.hour, one.batch, one.attempts, one.run_id, one.ended, one.next_attempt) for one in failing],
        )


def read_failing_hours(connection: psycopg.Connection) -> list[FailingHour]:
    """The hours that failed at the sensor's last tick, ascending."""
    with connection.cursor(row_factory=class_row(FailingHour)) as cursor:
        return cursor.execute(
            "SELECT hour, batch, attempts, run_id, ended, next_attempt FROM ledger.failing_hour ORDER BY hour"
        ).fetchall()
