"""The first hourly partition: recorded once in the ledger, and in the state directory for all that has no database at hand.

Dagster's definitions are loaded without one: they take it from the settings, which read the state directory.
"""

import os
from datetime import UTC, datetime, timedelta

import psycopg

from antenna_assets.domain.hours import hour_key, hour_of
from antenna_assets.errors import AntennaError
from antenna_assets.settings import FIRST_START, Settings, start_file


class StartTooLate(AntennaError):
    """Hours are there that begin before the first partition; the message says which and what to do."""


def first_partition(made: datetime, horizon: timedelta) -> datetime:
    """The beginning of the month in which a state directory was made, minus the horizon; never before `FIRST_START`."""
    month = made.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    # A horizon of a century is no reason for a century of partitions.
    return max(FIRST_START, hour_of(month - min(horizon, month - FIRST_START)))


def record_first_partition(connection: psycopg.Connection, settings: Settings) -> datetime:
    """Write down where the partitions begin, if it is not known yet, and bring it to the state directory.

    A ledger that has hours already is from before this was recorded: its partitions begin where they did.
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
    written = file.with_name(f"{file.name}.{os.getpid()}")
    written.write_text(f"{recorded.astimezone(UTC).isoformat()}\n", encoding="utf-8")
    written.replace(file)
    return recorded


def require_start(connection: psycopg.Connection, start: datetime) -> None:
    """Stop if the ledger has hours before the first partition: nobody could publish them again, or their late rows.

    Raises:
        StartTooLate: names the oldest such hour.
    """
    ((oldest, count),) = connection.execute(
        "SELECT min(hour), count(*) FROM ledger.hour WHERE hour < %s", [start]
    ).fetchall()
    if count:
        raise StartTooLate(
            f"ANTENNA_START: expected {hour_key(oldest)} or earlier, the oldest of the {count:,} hours that the ledger has before "
            f"it, found {hour_key(start)}; those hours could not be published any more. Unset it, and `antenna up` brings what was "
            "recorded to the state directory"
        )
