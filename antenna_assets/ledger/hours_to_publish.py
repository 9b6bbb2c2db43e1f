"""Closed hours with something left to publish: candidates for the sensor, late hours, excluded hours.

What "published" means is defined by the view `ledger.hour_state`; which candidates the sensor asks for, by
`defs/sensor_policy.py`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg

from antenna_assets.clients.rows import rows_of
from antenna_assets.ledger.failing import MOST_ATTEMPTS

_CANDIDATES = """
    -- The planner expects a third of all hours here, and would read whole tables to go with them. So they are
    -- materialized, and what belongs to each is looked up.
    WITH unpublished AS MATERIALIZED (
        SELECT * FROM ledger.hour_to_publish WHERE hour >= %(first)s AND hour < %(end)s
    ), todo AS (
        SELECT * FROM unpublished
        WHERE hour <> ALL (%(running)s)
            AND (attempts = 0
                -- A failure in the future: the clock was set back.
                OR ((next_attempt <= %(now)s OR ended > %(now)s)
                    AND (attempts < %(most)s OR EXISTS (
                        SELECT FROM ledger.file
                        WHERE file.hour = unpublished.hour AND file.batch > unpublished.tried_batch))))
    ), chosen AS (
        (SELECT * FROM todo WHERE attempts = 0 AND NOT again ORDER BY hour LIMIT %(limit)s)
        UNION ALL (SELECT * FROM todo WHERE attempts > 0 ORDER BY hour LIMIT %(limit)s)
        UNION ALL SELECT * FROM todo WHERE again
        UNION ALL SELECT * FROM todo WHERE hour = %(newest)s
    )
    SELECT DISTINCT ON (chosen.hour) chosen.hour, chosen.attempts,
        coalesce((SELECT max(batch) FROM ledger.file WHERE file.hour = chosen.hour), chosen.up_to_batch, 0)
            AS up_to_batch,
        coalesce(sealed.rows, 0) AS published_rows, coalesce(chosen.rows - sealed.rows, 0) AS late_rows,
        CASE WHEN again THEN ledger.rows_since(chosen.hour, chosen.up_to_batch) END AS late_since,
        CASE WHEN sealed.generation > 1 THEN sealed.sealed_at END AS again_at
    FROM chosen LEFT JOIN LATERAL (
        SELECT * FROM ledger.hour_generation
        WHERE (hour, generation) = (chosen.hour, chosen.generation) LIMIT 1
    ) AS sealed ON chosen.again
    ORDER BY chosen.hour
"""

LEFT_OUT = ("before the first partition", "in the future")
"""Why the sensor leaves hours out."""


@dataclass(frozen=True)
class Candidate:
    """A closed hour to publish: a partition of Dagster's, in no running run and not waiting for a retry.

    Attributes:
        attempts: the runs that failed since it was last published.
        published_rows: the rows of its publication; 0 before the first one, or if a publication was not
            finished.
        late_rows: the rows since then, the first of them at `late_since`.
        again_at: when it was last published again for late rows; None if never.
    """

    hour: datetime
    up_to_batch: int
    attempts: int = 0
    published_rows: int = 0
    late_rows: int = 0
    late_since: datetime | None = None
    again_at: datetime | None = None


@dataclass(frozen=True)
class LeftOut:
    """Hours to publish that are no partitions of Dagster's: their number, and the first few as text."""

    reason: str
    count: int
    hours: list[str]


def newest_closed_hour(connection: psycopg.Connection, *, first: datetime, end: datetime) -> datetime | None:
    """The newest closed hour from `first` on that begins before `end`; None if there is none."""
    return connection.execute(
        "SELECT max(hour) FROM ledger.hour WHERE closed_at IS NOT NULL AND hour >= %s AND hour < %s",
        [first, end],
    ).fetchall()[0][0]


def candidates(
    connection: psycopg.Connection,
    *,
    first: datetime,
    end: datetime,
    running: Collection[datetime] = (),
    newest: datetime | None,
    now: datetime,
    limit: int,
) -> list[Candidate]:
    """The hours from `first` to before `end` that a tick can choose from, ascending.

    These are the oldest unpublished and the oldest failed hours, all that are to be published again, and the
    newest. Hours that wait for a retry are not among them, so they hide no others; stuck hours only if they
    have new rows.

    Args:
        running: hours of runs in progress, which are excluded.
        newest: the newest closed hour.
        limit: the most hours that a tick asks for.
    """
    values = {
        "first": first,
        "end": end,
        "running": list(running),
        "newest": newest,
        "now": now,
        "most": MOST_ATTEMPTS,
        # One more than a tick asks for shows that some are left.
        "limit": limit + 1,
    }
    return rows_of(connection, Candidate, _CANDIDATES, values)


def unpublished(connection: psycopg.Connection, *, limit: int) -> tuple[int, int, float | None]:
    """Count the hours to publish, up to a limit, and those with late rows; and since when the oldest waits.

    It waits since its end or since its first late row, in seconds since 1970. Hours that are left out do not
    count.
    """
    return connection.execute(
        "SELECT count(*), count(*) FILTER (WHERE again),"
        " extract(epoch FROM min(coalesce(since, hour + interval '1 hour')))::float8"
        " FROM (SELECT hour, again, CASE WHEN again THEN ledger.rows_since(hour, up_to_batch) END AS since"
        "  FROM ledger.hour_to_publish WHERE NOT EXISTS"
        "  (SELECT FROM ledger.left_out_hour WHERE left_out_hour.hour = hour_to_publish.hour)"
        "  ORDER BY hour LIMIT %s) AS counted",
        [limit],
    ).fetchall()[0]


def late_hours(connection: psycopg.Connection) -> list[Candidate]:
    """Published hours with late rows, due or waiting, ascending; without those that are left out."""
    return rows_of(
        connection,
        Candidate,
        "SELECT late.hour, late.up_to_batch, sealed.rows AS published_rows,"
        " late.rows - sealed.rows AS late_rows,"
        " ledger.rows_since(late.hour, late.up_to_batch) AS late_since,"
        " CASE WHEN sealed.generation > 1 THEN sealed.sealed_at END AS again_at"
        " FROM ledger.hour_to_publish AS late"
        " JOIN ledger.hour_generation AS sealed USING (hour, generation)"
        " WHERE late.again AND NOT EXISTS"
        "  (SELECT FROM ledger.left_out_hour WHERE left_out_hour.hour = late.hour)"
        " ORDER BY late.hour",
    )


def record_left_out(connection: psycopg.Connection, *, first: datetime, end: datetime) -> None:
    """Record the hours to publish that Dagster has no partition for: before `first`, and from `end` on."""
    outside = {"first": first, "end": end}
    with connection.transaction():
        connection.execute(
            "DELETE FROM ledger.left_out_hour AS known"
            " WHERE (known.hour >= %(first)s AND known.hour < %(end)s) OR NOT EXISTS"
            "  (SELECT FROM ledger.hour_to_publish AS asked WHERE asked.hour = known.hour)",
            outside,
        )
        connection.execute(
            "INSERT INTO ledger.left_out_hour AS known (hour, reason)"
            " SELECT hour,"
            "  CASE WHEN hour < %(first)s THEN 'before the first partition' ELSE 'in the future' END"
            " FROM ledger.hour_to_publish WHERE hour < %(first)s OR hour >= %(end)s"
            " ON CONFLICT (hour) DO UPDATE SET reason = excluded.reason"
            "  WHERE known.reason <> excluded.reason",
            outside,
        )


def read_left_out(connection: psycopg.Connection) -> list[LeftOut]:
    """The hours that the sensor left out at its last tick, by reason."""
    # As text: their years may be out of the range of Python's datetime.
    return rows_of(
        connection,
        LeftOut,
        "SELECT reason, count(*) AS count,"
        " (array_agg(to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD-HH24:MI') ORDER BY hour))[1:5] AS hours"
        " FROM ledger.left_out_hour GROUP BY reason ORDER BY reason",
    )


@dataclass(frozen=True)
class HourToPublish:
    """A closed hour with something left to publish."""

    hour: datetime
    up_to_batch: int
    generation: int


_TO_PUBLISH = """
    WITH todo AS (
        SELECT hour, generation, up_to_batch FROM ledger.hour_to_publish
    ), asked AS (
        (SELECT * FROM todo ORDER BY hour LIMIT %s)
        UNION SELECT * FROM todo WHERE hour = (SELECT max(hour) FROM ledger.hour WHERE closed_at IS NOT NULL)
    )
    SELECT hour, generation,
        coalesce((SELECT max(batch) FROM ledger.file WHERE file.hour = asked.hour), up_to_batch, 0)
            AS up_to_batch
    FROM asked ORDER BY hour
"""


def hours_to_publish(connection: psycopg.Connection, *, limit: int) -> list[HourToPublish]:
    """The oldest `limit` hours to publish, and the newest closed hour if it is one of them; ascending."""
    return rows_of(connection, HourToPublish, _TO_PUBLISH, [limit])


def wholly_published(connection: psycopg.Connection, hour: datetime) -> bool:
    """Whether an hour is closed, certified and not dirty."""
    row = connection.execute("SELECT published FROM ledger.hour_state WHERE hour = %s", [hour]).fetchone()
    return row is not None and row[0]


def ask_for_hours_again(connection: psycopg.Connection, hours: Sequence[datetime]) -> None:
    """Have published hours published again with the users of now: the sensor asks for them until they are."""
    connection.execute(
        # In the order of the hours, as every writer of these rows: no deadlock.
        "WITH held AS ("
        "  SELECT hour FROM ledger.publication_head"
        "  WHERE asset = 'enriched_usage' AND hour = ANY(%s) ORDER BY hour FOR UPDATE"
        ") UPDATE ledger.publication_head AS head SET asked_users_version = users.version"
        " FROM held, ledger.users_version AS users"
        " WHERE head.asset = 'enriched_usage' AND head.hour = held.hour",
        [list(hours)],
    )
