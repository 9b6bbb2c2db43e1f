"""The users as parquet files for the engines, with the quotas that hours are judged by, and their version.

An hour is judged by the quota in force at its last instant. All hours of a run share one file of users, with
the quotas of the newest hour; those whose quota was another at the end of an earlier hour are in a second
file, which few hours have.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import psycopg
import pyarrow as pa
from psycopg import sql

from antenna_assets.clients.postgres import snapshot
from antenna_assets.domain.hours import HOUR, MICROSECOND
from antenna_assets.domain.schema import QUOTA_OF_THEN, USERS
from antenna_assets.engines.contract import Dataset
from antenna_assets.errors import AntennaError
from antenna_assets.publishing.csv_rows import rows_of, write_parquet
from antenna_assets.storage.disk import write_failure_message
from antenna_assets.storage.paths import file_errors


class UsersUnwritable(AntennaError):
    """The files of users cannot be written; nothing was published."""


@dataclass(frozen=True)
class Users:
    """The users of one snapshot as parquet files; from `write_users`.

    Attributes:
        version: the users' version.
        file: all users, with the quotas at the end of the newest hour.
        quotas: of hours at whose end some users had another quota, the file of these.
    """

    version: int
    file: str
    quotas: Mapping[datetime, str] = field(default_factory=dict)

    def inputs(self, hour: datetime) -> dict[str, Dataset]:
        """The inputs of `enriched_usage` that say who the users of an hour are."""
        quotas = [self.quotas[hour]] if hour in self.quotas else []
        return {
            "user_metadata": Dataset([self.file], USERS),
            "quota_of_then": Dataset(quotas, QUOTA_OF_THEN),
        }


def write_users(
    connection: psycopg.Connection,
    folder: str,
    hours: Sequence[datetime],
    *,
    judged_at: datetime | None = None,
) -> Users:
    """Write all users, with the quotas that hours are judged by.

    Users, quotas and version come from one snapshot. The users pass through memory a block at a time.

    Args:
        folder: path or URI of a folder that exists; existing files are replaced.
        hours: those that are to be published; at least one.
        judged_at: judge all hours by the quotas of this instant instead of those of then.

    Raises:
        UsersUnwritable: a file cannot be written, because the disk is full for example.
    """
    newest = judged_at or last_instant(max(hours))
    target = file = f"{folder}/users.parquet"
    quotas: dict[datetime, str] = {}
    with snapshot(connection):
        version = users_version(connection)
        try:
            write_users_of_snapshot(connection, file, newest)
            if judged_at is None:
                for number, alike in enumerate(_hours_judged_alike(connection, hours, newest)):
                    target = f"{folder}/quotas-{number}.parquet"
                    write_parquet(target, _other_quotas(connection, alike[0], newest), QUOTA_OF_THEN)
                    quotas |= dict.fromkeys(alike, target)
        except file_errors() as error:
            raise UsersUnwritable(write_failure_message("the file of users", target, error)) from error
    return Users(version, file, quotas)


def last_instant(hour: datetime) -> datetime:
    """The instant whose quota an hour is judged by; `ledger.last_instant` is the same."""
    return hour + HOUR - MICROSECOND


def users_version(connection: psycopg.Connection) -> int:
    """The version of the users in the caller's snapshot."""
    row = connection.execute("SELECT version FROM ledger.users_version").fetchone()
    if row is None:
        raise psycopg.DataError("ledger.users_version is empty: expected its one row")
    return row[0]


def write_users_of_snapshot(connection: psycopg.Connection, target: str, judged_at: datetime) -> None:
    """Write all users in the caller's snapshot, with the hourly quotas that were in force at an instant."""
    select = sql.SQL(
        "SELECT id, name, email, CASE WHEN settled THEN quota"
        "  ELSE (SELECT of_then.quota FROM ledger.quota_at(users.id, 'hour', {at}) AS of_then) END AS quota"
        " FROM ledger.users_since({at}) AS users"
    ).format(at=sql.Literal(judged_at))
    write_parquet(target, rows_of(connection, select, USERS), USERS)


def _hours_judged_alike(
    connection: psycopg.Connection, hours: Sequence[datetime], newest: datetime
) -> list[list[datetime]]:
    """Hours with quotas that changed between their end and the newest one's, in groups without a change."""
    rows = connection.execute(
        "SELECT array_agg(hour) FROM ("
        "  SELECT hour, (SELECT count(*) FROM user_quota_change"
        "    WHERE period = 'hour' AND valid_from > ledger.last_instant(hour) AND valid_from <= %(newest)s)"
        "   + (SELECT count(*) FROM user_plan_change"
        "    WHERE valid_from > ledger.last_instant(hour) AND valid_from <= %(newest)s)"
        "   + (SELECT count(*) FROM plan_quota_change WHERE period = 'hour'"
        "    AND valid_from > ledger.last_instant(hour) AND valid_from <= %(newest)s) AS changes"
        "  FROM unnest(%(hours)s::timestamptz[]) AS hour"
        ") AS counted WHERE changes > 0 GROUP BY changes",
        {"hours": list(hours), "newest": newest},
    )
    return [alike for (alike,) in rows]


def _other_quotas(
    connection: psycopg.Connection, hour: datetime, newest: datetime
) -> Iterator[pa.RecordBatch]:
    """The quotas at the end of an hour, of all users whose quotas changed between then and the newest end."""
    select = sql.SQL(
        "SELECT id, of_then.quota"
        " FROM ledger.quotas_changed('hour', {of}, {newest}) JOIN user_metadata USING (id)"
        " CROSS JOIN LATERAL ledger.quota_at(id, 'hour', {of}) AS of_then"
    ).format(of=sql.Literal(last_instant(hour)), newest=sql.Literal(newest))
    return rows_of(connection, select, QUOTA_OF_THEN)
