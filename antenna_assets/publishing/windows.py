"""The windows of a day: that of the billing zone, and those of users with a zone of their own, as files."""

from dataclasses import dataclass
from datetime import UTC, date, datetime

import psycopg
import pyarrow as pa
from psycopg import sql

from antenna_assets.clients.advisory_locks import ZONES
from antenna_assets.clients.postgres import snapshot
from antenna_assets.domain.schema import OWN_WINDOWS, WINDOW
from antenna_assets.engines.contract import Dataset
from antenna_assets.errors import AntennaError
from antenna_assets.publishing.csv_rows import CSV_SHA256, copied_sha256, rows_of, write_parquet


class ZonesChanged(AntennaError):
    """The zone of a user or of billing changed while a day was computed. Nothing was published."""


@dataclass(frozen=True)
class Windows:
    """The windows of a day.

    Attributes:
        begins, ends: in the billing zone.
        own: how many users have another window, and the digest of these as CSV, in the order of the ids.
        change: the newest change of a user's zone.
    """

    zone: str
    begins: datetime
    ends: datetime
    own: dict[str, int | str]
    change: int

    @property
    def content(self) -> dict[str, object]:
        """What a certificate says of them."""
        return {
            "zone": self.zone,
            "begins": self.begins.astimezone(UTC).isoformat(),
            "ends": self.ends.astimezone(UTC).isoformat(),
            "own_windows": self.own,
        }


def windows_of(connection: psycopg.Connection, day: date) -> Windows:
    """The windows of a day, in the caller's snapshot."""
    ((zone, begins, ends, change, users),) = connection.execute(
        "SELECT zone, ledger.period_start('day', %(day)s, zone),"
        " ledger.period_start('day', %(day)s + 1, zone),"
        " (SELECT coalesce(max(number), 0) FROM user_zone_change),"
        " (SELECT count(*) FROM ledger.user_windows(%(day)s)) FROM ledger.billing_zone",
        {"day": day},
    ).fetchall()
    copy = sql.SQL('COPY ({} ORDER BY id COLLATE "C") TO STDOUT (FORMAT csv, FORCE_QUOTE *)')
    sha256 = copied_sha256(connection, copy.format(select_own_windows(day)))
    return Windows(zone, begins, ends, {"users": users, CSV_SHA256: sha256}, change)


def select_own_windows(day: date) -> sql.Composed:
    """The SELECT of the windows of users, with the columns `OWN_WINDOWS`."""
    return sql.SQL("SELECT id, begins, ends FROM ledger.user_windows({})").format(sql.Literal(day))


def write_windows(
    connection: psycopg.Connection, day: date, folder: str
) -> tuple[Windows, dict[str, Dataset]]:
    """Write the windows of a day, of one snapshot, as parquet files; no row passes through Python.

    Args:
        folder: of the caller, who removes it.

    Returns:
        The windows, and the inputs of the transformation.
    """
    with snapshot(connection):
        windows = windows_of(connection, day)
        own = []
        if windows.own["users"]:
            own = [f"{folder}/own_windows.parquet"]
            write_parquet(own[0], rows_of(connection, select_own_windows(day), OWN_WINDOWS), OWN_WINDOWS)
    billing = pa.RecordBatch.from_arrays(
        [pa.array([instant], WINDOW.field(0).type) for instant in (windows.begins, windows.ends)],
        schema=WINDOW,
    )
    write_parquet(f"{folder}/billing_window.parquet", [billing], WINDOW)
    return windows, {
        "own_window": Dataset(own, OWN_WINDOWS),
        "billing_window": Dataset([f"{folder}/billing_window.parquet"], WINDOW),
    }


def hold_zones(connection: psycopg.Connection, windows: Windows) -> None:
    """Keep zones from being changed until the end of the caller's transaction.

    Raises:
        ZonesChanged: one was, since the windows were written.
    """
    connection.execute("SELECT pg_advisory_xact_lock_shared(%s)", [ZONES])
    now = connection.execute(
        "SELECT zone, (SELECT coalesce(max(number), 0) FROM user_zone_change) FROM ledger.billing_zone"
    ).fetchone()
    if now != (windows.zone, windows.change):
        raise ZonesChanged(
            "the time zone of a user or of billing was changed meanwhile; publish the day again"
        )
