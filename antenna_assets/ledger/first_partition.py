"""The first hourly partition: recorded once in the ledger and copied to the state directory.

Dagster's definitions are loaded without a database: they take it from the settings, which read the state
directory.
"""

from datetime import UTC, datetime, timedelta

import psycopg

from antenna_assets.domain.counted import counted
from antenna_assets.domain.hours import hour_key, hour_of
from antenna_assets.errors import AntennaError
from antenna_assets.settings import FIRST_START, Settings, start_file
from antenna_assets.storage.atomic_files import replacing


class StartTooLate(AntennaError):
    """The ledger has hours before the first partition; the message says which and what to do."""


def first_partition(made: datetime, horizon: timedelta) -> datetime:
    """The start of the month in which a ledger was created, minus the horizon; not before `FIRST_START`."""
    month = made.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    # A horizon of a century does not need a century of partitions.
    return max(FIRST_START, hour_of(month - min(horizon, month - FIRST_START)))


def record_first_partition(connection: psycopg.Connection, settings: Settings) -> datetime:
    """Record the first partition, unless it is recorded, and copy it to the state directory; returns it.

    A ledger that has hours but no record is from an older version: its partitions begin where they did.
    """
    ((now, oldest),) = connection.execute(
        "SELECT clock_timestamp(), (SELECT min(hour) FROM ledger.hour)"
    ).fetchall()
    begin = first_partition(now, settings.horizon) if oldest is None else min(FIRST_START, oldest)
    connection.execute(
        "INSERT INTO ledger.first_partition (hour) VALUES (%s) ON CONFLICT DO NOTHING", [begin]
    )
    ((recorded,),) = connection.execute("SELECT hour FROM ledger.first_partition").fetchall()
    file = start_file(settings.home)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as new:
        new.write_text(f"{recorded.astimezone(UTC).isoformat()}\n", encoding="utf-8")
    return recorded


def require_start(connection: psycopg.Connection, start: datetime) -> None:
    """Require that the ledger has no hours before the first partition: they could not be published again.

    Raises:
        StartTooLate: names the oldest such hour.
    """
    ((oldest, count),) = connection.execute(
        "SELECT min(hour), count(*) FROM ledger.hour WHERE hour < %s", [start]
    ).fetchall()
    if count:
        raise StartTooLate(
            f"ANTENNA_START: expected {hour_key(oldest)} or earlier, the oldest of the "
            f"{counted(count, 'hour')} that the ledger has before it, found {hour_key(start)}; "
            "those hours could not be published any more; unset it, and run `antenna up`, which "
            "copies the recorded one to the state directory"
        )
