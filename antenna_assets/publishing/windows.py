"""The windows of a day: that of the billing zone, and those of users with a zone of their own, as files."""

from dataclasses import dataclass
from datetime import date, datetime

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
        inputs: of the transformation.
    """

    zone: str
    begins: datetime
    ends: datetime
    own: dict[str, int | str]
    change: int
    inputs: dict[str, Dataset]

    @property
    def content(self) -> dict[str, object]:
        """What a certificate says of them."""
        return {
            "zone": self.zone,
            "begins": self.begins.isoformat(),
            "ends": self.ends.isoformat(),
            "own_windows": self.own,
        }


def write_windows(connection: psycopg.Connection, day: date, folder: str) -> Windows:
    """Write the windows of a day, of one snapshot, as parquet files; no row passes through Python.

    Args:
        folder: of the caller, who removes it.
    """
    with snapshot(connection):
        ((zone, begins, ends, change),) = connection.execute(
            "SELECT zone, ledger.period_start('day', %(day)s, zone),"
            " ledger.period_start('day', %(day)s + 1, zone),"
            " (SELECT coalesce(max(number), 0) FROM user_zone_change) FROM ledger.billing_zone",
            {"day": day},
        ).fetchall()
        select = sql.SQL("SELECT id, begins, ends FROM ledger.user_windows({})").format(sql.Literal(day))
        ((users,),) = connection.execute(
            sql.SQL("SELECT count(*) FROM ({}) AS own").format(select)
        ).fetchall()
        sha256 = copied_sha256(
            connection,
            sql.SQL('COPY ({} ORDER BY id COLLATE "C") TO STDOUT (FORMAT csv, FORCE_QUOTE *)').format(select),
        )
        own = []
        if users:
            own = [f"{folder}/own_windows.parquet"]
            write_parquet(own[0], rows_of(connection, select, OWN_WINDOWS), OWN_WINDOWS)
    billing = pa.RecordBatch.from_arrays(
        [pa.array([instant], WINDOW.field(0).type) for instant in (begins, ends)], schema=WINDOW
    )
    write_parquet(f"{folder}/billing_window.parquet", [billing], WINDOW)
    inputs = {
        "own_window": Dataset(own, OWN_WINDOWS),
        "billing_window": Dataset([f"{folder}/billing_window.parquet"], WINDOW),
    }
    return Windows(zone, begins, ends, {"users": users, CSV_SHA256: sha256}, change, inputs)


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
