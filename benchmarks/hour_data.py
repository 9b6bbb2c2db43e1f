"""The data of an hour as the stream lands it, made by DuckDB from nothing but numbers: the same for every run.

Users are as uneven as the simulator's: the weight of the user of rank r is 1 / (r + 4).
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb

HOUR = datetime(2026, 11, 22, 10, tzinfo=UTC)
ROWS_PER_FILE = 150_000
"""A micro-batch of 300,000 messages on two cores lands two files an hour."""
UNKNOWN_SHARE = 0.01
ANTENNAS = 1_000
APPS = 50


@dataclass(frozen=True)
class HourData:
    """An hour on the disk: landed files and the users."""

    landed: list[str]
    users: str


def uniform(stream: int, number: str = "i") -> str:
    """SQL of a random number from 0 to 1 for the event of this number: the same in every run, another for each stream."""
    return f"(hash({number} * 64 + {stream}) / 18446744073709551616.0)"


def events_select(first: int, count: int, *, users: int, hour: datetime = HOUR) -> str:
    """SELECT of the events `first` to `first + count`, with the columns of landed files."""
    rank = f"CAST(floor(4 * (pow(({users} + 4) / 4.0, {uniform(1)}) - 1)) AS BIGINT)"
    return f"""
        SELECT make_timestamptz({int(hour.timestamp()) * 1_000_000} + CAST(floor({uniform(0)} * 3600e6) AS BIGINT)) AS timestamp,
            'app-' || CAST(floor({APPS} * pow({uniform(2)}, 2)) AS INTEGER) AS app,
            CASE WHEN {uniform(3)} < {UNKNOWN_SHARE} THEN 'ffffffff-ffff-ffff-ffff-' ELSE '00000000-0000-0000-0000-' END
                || lpad(CAST({rank} + 1 AS VARCHAR), 12, '0') AS id,
            '00000000-1111-1111-1111-' || lpad(CAST(CAST(floor({ANTENNAS} * {uniform(4)}) AS INTEGER) AS VARCHAR), 12, '0')
                AS antenna_id,
            CAST(floor(40000 * (pow({uniform(5)}, 2) + 0.1)) AS BIGINT) AS bytes,
            CAST(i % 4 AS INTEGER) AS kafka_partition, CAST(i // 4 AS BIGINT) AS kafka_offset
        FROM range({first}, {first + count}) AS numbers (i)"""


def users_select(users: int) -> str:
    """SELECT of the users, with the columns of `user_metadata`; quotas that about one in ten goes over."""
    return f"""
        SELECT '00000000-0000-0000-0000-' || lpad(CAST(i + 1 AS VARCHAR), 12, '0') AS id, 'user' || (i + 1) AS name,
            'user' || (i + 1) || '@example.com' AS email,
            CAST(1000000 * (1 + i % 20) AS BIGINT) AS quota
        FROM range({users}) AS numbers (i)"""


def make_hour(folder: Path, *, events: int, users: int) -> HourData:
    """Write an hour's files below a new folder."""
    folder.mkdir(parents=True)
    landed = []
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for number, first in enumerate(range(0, events, ROWS_PER_FILE)):
            path = folder / f"landed-{number:04}.parquet"
            select = events_select(first, min(ROWS_PER_FILE, events - first), users=users)
            connection.execute(f"COPY ({select}) TO '{path}' (FORMAT parquet, COMPRESSION zstd)")
            landed.append(str(path))
        connection.execute(
            f"COPY ({users_select(users)}) TO '{folder / 'users.parquet'}' (FORMAT parquet, COMPRESSION zstd)"
        )
    return HourData(landed, str(folder / "users.parquet"))
