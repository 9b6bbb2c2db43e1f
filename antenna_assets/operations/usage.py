"""A user's bytes, hour by hour: from PostgreSQL, and from the lake where the users' hours were dropped."""

from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import psycopg

from antenna_assets.domain.hours import EPOCH, HOUR, MICROSECOND
from antenna_assets.ledger.user_hours import hours_without_users
from antenna_assets.publishing.lake import Lake, LakeError
from antenna_assets.verify.parquet import Parquet


@dataclass(frozen=True)
class UserHour:
    """A user's bytes in an hour.

    Attributes:
        source: `hourly` as published, `lake` as published and read from the lake, `live` so far.
    """

    hour: datetime
    bytes: int
    source: Literal["hourly", "lake", "live"]


def usage_of(
    connection: psycopg.Connection, lake: Lake, user: str, hours: Sequence[datetime]
) -> list[UserHour]:
    """The hours of a range in which the user has bytes, ascending.

    Args:
        hours: ascending, without a gap.

    Raises:
        LakeError: an hour that is in the lake alone cannot be read.
    """
    rows = connection.execute(
        "SELECT hour, bytes, source FROM usage_by_user WHERE id = %s AND hour >= %s AND hour < %s",
        [user, hours[0], hours[-1] + HOUR],
    )
    found = [UserHour(*row) for row in rows]
    dropped = hours_without_users(connection, hours)
    if dropped:
        found += _from_lake(lake, user, dropped)
    return sorted(found, key=lambda one: one.hour)


def hours_not_known(connection: psycopg.Connection, hours: Sequence[datetime]) -> int:
    """Of how many hours of a range not all users' bytes are known: they are not published, and have no live
    sums, or had none at first.

    Args:
        hours: ascending, without a gap.
    """
    return connection.execute(
        "SELECT count(*) FROM ledger.hour AS landed WHERE hour >= %(first)s AND hour < %(end)s AND rows > 0"
        " AND NOT EXISTS (SELECT FROM ledger.publication_head AS head"
        "  WHERE head.asset = 'bytes_agg_user_1h' AND head.hour = landed.hour)"
        " AND (NOT EXISTS (SELECT FROM bytes_agg_user AS live"
        "   WHERE live.date >= landed.hour AND live.date < landed.hour + interval '1 hour')"
        "  OR hour < (SELECT kept_from FROM ledger.live_table WHERE name = 'bytes_agg_user'))",
        {"first": hours[0], "end": hours[-1] + HOUR},
    ).fetchall()[0][0]


def _from_lake(lake: Lake, user: str, hours: Collection[datetime]) -> list[UserHour]:
    snapshots = lake.hours("enriched_usage", hours).values()
    files = [file for snapshot in snapshots for file in snapshot.files]
    with closing(Parquet()) as parquet:
        try:
            rows = parquet.rows(
                f"SELECT epoch_us(timestamp) // {HOUR // MICROSECOND} AS hour, sum(bytes)"  # noqa: S608
                " FROM read_parquet(?, hive_partitioning = false) WHERE id = ? GROUP BY hour",
                files,
                user,
            )
        except parquet.errors as error:
            raise LakeError(f"the users of hours in the lake cannot be read: {error}") from error
    return [UserHour(EPOCH + hour * HOUR, int(bytes_), "lake") for hour, bytes_ in rows]
