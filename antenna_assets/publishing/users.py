"""The users as parquet files for the engines, with the quotas that hours are judged by, and their version.

An hour is judged by the quota in force at its last instant. All hours of a run share one file of users, with
the quotas of the newest hour; those whose quota was another at the end of an earlier hour are in a second
file, which few hours have.

Where few of many users have events in the hours, only these are read, so that a small hour beside ten million
users is a small run (decision 10).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import ceil

import psycopg
import pyarrow as pa
from psycopg import sql

from antenna_assets.clients.postgres import snapshot
from antenna_assets.domain.hours import HOUR, MICROSECOND
from antenna_assets.domain.schema import QUOTA_OF_THEN, RAW_PARQUET, USERS
from antenna_assets.engines.contract import Dataset, Engine
from antenna_assets.errors import AntennaError, EngineError
from antenna_assets.publishing.csv_rows import rows_of, write_parquet
from antenna_assets.storage.disk import write_failure_message
from antenna_assets.storage.paths import file_errors

MANY_USERS = 200_000
"""Users that are always read as a whole: it takes half a second."""

READ_IN_A_ROW = 10
"""Users that are read as a whole in the time of one that is looked up by its id."""

MOST_NAMED = 500_000
"""Ids that users are looked up by: a statement of 20 MB."""


class UsersUnwritable(AntennaError):
    """The files of users cannot be written; no hour was joined with them."""


@dataclass(frozen=True)
class Users:
    """The users of one snapshot as parquet files; from `write_users`.

    Attributes:
        version: the users' version.
        file: all users, or at least those of the hours' events, with the quotas at the end of the newest
            hour.
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


class UsersOfRun:
    """Who the users of a run's hours are: all that there are, read once, or the few that events name.

    Args:
        folder, judged_at: as for `write_users`; the files are of the hours that were asked for last.
        hours: all hours of the run.
    """

    def __init__(
        self,
        connection: psycopg.Connection,
        folder: str,
        hours: Sequence[datetime],
        *,
        judged_at: datetime | None = None,
    ) -> None:
        self._connection = connection
        self._folder = folder
        self._hours = hours
        self._judged_at = judged_at
        self._all: Users | None = None

    @property
    def version(self) -> int:
        """The version that the next users are of, or an earlier one."""
        return users_version(self._connection) if self._all is None else self._all.version

    def of(self, hours: Sequence[datetime], files: Sequence[str], engine: Engine) -> Users:
        """The users of some hours, given with their files of `raw_parquet`.

        Raises:
            UsersUnwritable: see `write_users`.
        """
        if self._all is None:
            # The other hours of the run would look theirs up as well, while all are read once.
            times = ceil(len(self._hours) / len(hours))
            ids = few_ids(self._connection, lambda most: _ids_in(engine, files, most), times=times)
            if ids is not None:
                return self._write(hours, ids)
            self._all = self._write(self._hours, None)
        return self._all

    def _write(self, hours: Sequence[datetime], ids: Sequence[str] | None) -> Users:
        return write_users(self._connection, self._folder, hours, judged_at=self._judged_at, ids=ids)


def _ids_in(engine: Engine, files: Sequence[str], most: int) -> list[str] | None:
    select = f"SELECT DISTINCT id FROM raw_parquet LIMIT {most}"  # noqa: S608
    try:
        ids = engine.read(
            select, {"raw_parquet": Dataset(files, RAW_PARQUET)}, pa.schema([RAW_PARQUET.field("id")])
        )
    except EngineError:
        # A file that cannot be read is an error of its hour, when that is joined, and of no other.
        return None
    return ids["id"].to_pylist()


def few_ids(
    connection: psycopg.Connection, ids_in: Callable[[int], list[str] | None], *, times: int = 1
) -> list[str] | None:
    """The users to look up by their ids; None: to read all of them takes less time.

    Args:
        ids_in: gives the distinct ids that are of interest, of many of them any so many; None if it cannot.
        times: how often as many are going to be looked up, where all would be read once.
    """
    if not _more_users_than(connection, MANY_USERS):
        return None
    ids = ids_in(MOST_NAMED + 1)
    if ids is None or len(ids) > MOST_NAMED:
        return None
    return ids if _more_users_than(connection, READ_IN_A_ROW * len(ids) * times) else None


def _more_users_than(connection: psycopg.Connection, number: int) -> bool:
    query = "SELECT EXISTS (SELECT FROM user_metadata OFFSET %s)"
    return connection.execute(query, [number]).fetchall() == [(True,)]


def write_users(
    connection: psycopg.Connection,
    folder: str,
    hours: Sequence[datetime],
    *,
    judged_at: datetime | None = None,
    ids: Sequence[str] | None = None,
) -> Users:
    """Write users, with the quotas that hours are judged by.

    Users, quotas and version come from one snapshot. The users pass through memory a block at a time.

    Args:
        folder: path or URI of a folder that exists; existing files are replaced.
        hours: those that are to be published; at least one.
        judged_at: judge all hours by the quotas of this instant instead of those of then.
        ids: of the users to write; None: all. The second file may have more.

    Raises:
        UsersUnwritable: a file cannot be written, because the disk is full for example.
    """
    newest = judged_at or last_instant(max(hours))
    target = file = f"{folder}/users.parquet"
    quotas: dict[datetime, str] = {}
    with snapshot(connection):
        version = users_version(connection)
        try:
            write_users_of_snapshot(connection, file, newest, ids)
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


def write_users_of_snapshot(
    connection: psycopg.Connection, target: str, judged_at: datetime, ids: Sequence[str] | None
) -> None:
    """Write users in the caller's snapshot, with the hourly quotas that were in force at an instant.

    Args:
        ids: of the users to write; None: all.
    """
    named = sql.SQL("") if ids is None else sql.SQL(" WHERE id = ANY({}::text[])").format(sql.Literal([*ids]))
    select = sql.SQL(
        "SELECT id, name, email, CASE WHEN settled THEN quota"
        "  ELSE (SELECT of_then.quota FROM ledger.quota_at(users.id, 'hour', {at}) AS of_then) END AS quota"
        " FROM ledger.users_since({at}) AS users{named}"
    ).format(at=sql.Literal(judged_at), named=named)
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
