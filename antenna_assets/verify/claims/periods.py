"""The claim on a published day: its sums are those of its hours.

Where no boundary cuts an hour, they are compared with `bytes_agg_user_1h`; for the other users, and where the
hours of users are no longer kept, with the events in `raw_parquet`, which the day was not computed from.
"""

from contextlib import closing
from datetime import date, datetime

import psycopg
import pyarrow as pa
from psycopg import sql

from antenna_assets.domain.counted import counted
from antenna_assets.domain.hours import hours_between
from antenna_assets.domain.schema import RAW_PARQUET
from antenna_assets.errors import AntennaError
from antenna_assets.ledger.period_generations import PeriodGeneration, read_period_generation
from antenna_assets.ledger.user_hours import hours_without_users
from antenna_assets.publishing.csv_rows import rows_of
from antenna_assets.publishing.days import certified_files
from antenna_assets.publishing.lake import Lake
from antenna_assets.verify.claims.verdict import Verdict
from antenna_assets.verify.parquet import Parquet
from antenna_assets.verify.period_events import load_events, load_windows


class DayNotPublished(AntennaError):
    """The day was never published: there is nothing to check."""


def quota_periods_add_up(connection: psycopg.Connection, lake: Lake, day: date) -> Verdict:
    """Whether the bytes of each user on a day are those of its hours. Call it in one snapshot.

    A day is not compared while one of its hours has a newer certificate, or is being published again.

    Raises:
        DayNotPublished: there is no such day.
        LakeError: the events cannot be read.
    """
    state = connection.execute(
        "SELECT generation, dirty OR EXISTS (SELECT FROM ledger.unsettled_publication AS again"
        "  WHERE again.hour >= first_hour AND again.hour < end_hour)"
        " FROM ledger.period_state WHERE period = 'day' AND day = %s",
        [day],
    ).fetchone()
    if state is None:
        raise DayNotPublished(f"bytes_agg_user_1d does not hold {day} yet; materialize it first")
    generation, changing = state
    if changing:
        return Verdict(
            False, "not compared: an hour of the day was published again", {"compared": 0}, only_warns=True
        )
    sealed = read_period_generation(connection, "day", day, generation)
    first, end = sealed.first_hour, sealed.end_hour
    if first is None or end is None:
        raise psycopg.DataError(f"generation {generation} of {day} has no hours")
    dropped = bool(hours_without_users(connection, hours_between(first, end)))
    by_hours, wrong = (0, 0) if dropped else _by_hours(connection, day, first, end)
    by_events, wrong_events = _by_events(connection, lake, sealed, everybody=dropped)
    wrong += wrong_events
    metrics = {"users_by_hours": by_hours, "users_by_events": by_events, "users_wrong": wrong}
    if wrong:
        users = counted(wrong, "user has", "users have")
        return Verdict(False, f"{users} other bytes on {day} than in its hours", metrics)
    users = counted(by_hours, "user has", "users have")
    return Verdict(True, f"{users} the bytes of their hours, {by_events:,} those of their events", metrics)


_BY_HOURS = """
    WITH billing AS (
        SELECT ledger.period_start('day', %(day)s, zone) AS begins,
            ledger.period_start('day', %(day)s + 1, zone) AS ends
        FROM ledger.billing_zone
    ), own AS MATERIALIZED (
        SELECT * FROM ledger.user_windows(%(day)s)
    ), days AS (
        SELECT id, sum_user_bytes FROM bytes_agg_user_1d WHERE day = %(day)s
    ), hours AS (
        SELECT used.id, sum(used.sum_user_bytes) AS sum_user_bytes
        FROM bytes_agg_user_1h AS used CROSS JOIN billing LEFT JOIN own USING (id)
        WHERE used.date >= %(first)s AND used.date < %(end)s
            AND used.date >= coalesce(own.begins, billing.begins)
            AND used.date < coalesce(own.ends, billing.ends)
        GROUP BY used.id
    ), both_ AS (
        SELECT days.sum_user_bytes IS DISTINCT FROM hours.sum_user_bytes AS differ,
            coalesce(own.begins, billing.begins) AS begins, coalesce(own.ends, billing.ends) AS ends
        FROM days FULL JOIN hours USING (id) LEFT JOIN own USING (id) CROSS JOIN billing
    )
    SELECT count(*), count(*) FILTER (WHERE differ) FROM both_
    -- Users whose hours no boundary cuts.
    WHERE date_trunc('hour', begins, 'UTC') = begins AND date_trunc('hour', ends, 'UTC') = ends
"""


def _by_hours(connection: psycopg.Connection, day: date, first: datetime, end: datetime) -> tuple[int, int]:
    """How many users were compared by their hours, and how many differ."""
    return connection.execute(_BY_HOURS.encode(), {"day": day, "first": first, "end": end}).fetchall()[0]


_CUT = (
    "(epoch_us(coalesce(own_window.begins, billing_window.begins)) % 3600000000 <> 0"
    " OR epoch_us(coalesce(own_window.ends, billing_window.ends)) % 3600000000 <> 0)"
)

_BY_EVENTS = f"""
    WITH events AS (
        SELECT id, sum(bytes) AS bytes
        FROM raw_parquet CROSS JOIN billing_window LEFT JOIN own_window USING (id)
        WHERE timestamp >= coalesce(own_window.begins, billing_window.begins)
            AND timestamp < coalesce(own_window.ends, billing_window.ends) AND (? OR {_CUT})
        GROUP BY id
    ), days AS (
        SELECT id, sum_user_bytes AS bytes
        FROM stored_day CROSS JOIN billing_window LEFT JOIN own_window USING (id) WHERE ? OR {_CUT}
    )
    SELECT count(*), count(*) FILTER (WHERE days.bytes IS DISTINCT FROM events.bytes)
    FROM days FULL JOIN events USING (id)
"""  # noqa: S608

_STORED = pa.schema([pa.field("id", pa.string()), pa.field("sum_user_bytes", pa.decimal128(38, 0))])


def _by_events(
    connection: psycopg.Connection, lake: Lake, sealed: PeriodGeneration, *, everybody: bool
) -> tuple[int, int]:
    """How many users were compared by their events, and how many differ.

    Args:
        everybody: not only those whose hours a boundary cuts.
    """
    cut = connection.execute(
        "SELECT EXISTS (SELECT FROM (SELECT begins, ends FROM ledger.user_windows(%(day)s) UNION ALL"
        "  SELECT ledger.period_start('day', %(day)s, zone), ledger.period_start('day', %(day)s + 1, zone)"
        "  FROM ledger.billing_zone) AS bounds (begins, ends)"
        " WHERE date_trunc('hour', begins, 'UTC') <> begins OR date_trunc('hour', ends, 'UTC') <> ends)",
        {"day": sealed.day},
    ).fetchone()
    if not everybody and cut == (False,):
        return 0, 0
    files = certified_files(connection, lake, "raw_parquet", sealed.certificates)
    select = sql.SQL("SELECT id, sum_user_bytes FROM bytes_agg_user_1d WHERE day = {}").format(
        sql.Literal(sealed.day)
    )
    with closing(Parquet()) as parquet:
        load_windows(connection, parquet, sealed.day)
        rows = pa.RecordBatchReader.from_batches(_STORED, rows_of(connection, select, _STORED))
        parquet.connection.register("rows", rows)
        parquet.connection.execute("CREATE TEMP TABLE stored_day AS SELECT * FROM rows")
        try:
            load_events(parquet, "raw_parquet", RAW_PARQUET, files)
            return parquet.connection.execute(_BY_EVENTS, [everybody, everybody]).fetchall()[0]
        except parquet.errors as error:
            raise AntennaError(f"the events of {sealed.day} cannot be read: {error}") from error
