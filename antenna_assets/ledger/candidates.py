"""The closed hours that the sensor could ask for now, read from the ledger; and those that it can never ask for.

Which of them it asks for is the policy in `defs/sensor_policy.py`.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row

from antenna_assets.ledger.failing_hours import MOST_ATTEMPTS

_CANDIDATES = """
    WITH todo AS (
        SELECT * FROM ledger.hour_to_publish AS asked
        WHERE hour >= %(first)s AND hour < %(end)s AND hour <> ALL (%(running)s)
            AND (attempts = 0
                -- A failure of the future is a clock that was set back.
                OR ((next_attempt <= %(now)s OR ended > %(now)s)
                    AND (attempts < %(most)s OR EXISTS (
                        SELECT FROM ledger.file WHERE file.hour = asked.hour AND file.batch > asked.tried_batch))))
    ), chosen AS (
        (SELECT * FROM todo WHERE attempts = 0 AND NOT again ORDER BY hour LIMIT %(limit)s)
        UNION ALL (SELECT * FROM todo WHERE attempts > 0 ORDER BY hour LIMIT %(limit)s)
        UNION ALL SELECT * FROM todo WHERE again
        UNION ALL SELECT * FROM todo WHERE hour = %(newest)s
    )
    SELECT DISTINCT ON (chosen.hour) chosen.hour, chosen.attempts,
        coalesce((SELECT max(batch) FROM ledger.file WHERE file.hour = chosen.hour), chosen.up_to_batch, 0) AS up_to_batch,
        coalesce(sealed.rows, 0) AS published_rows, coalesce(chosen.rows - sealed.rows, 0) AS late_rows,
        CASE WHEN again THEN ledger.rows_since(chosen.hour, chosen.up_to_batch) END AS late_since,
        CASE WHEN sealed.generation > 1 THEN sealed.sealed_at END AS again_at
    FROM chosen LEFT JOIN ledger.hour_generation AS sealed
        ON chosen.again AND sealed.hour = chosen.hour AND sealed.generation = chosen.generation
    ORDER BY chosen.hour
"""

LEFT_OUT = ("before the first partition", "in the future")
"""Why hours are left out."""


@dataclass(frozen=True)
class Candidate:
    """A closed hour that is not wholly published, that Dagster knows, that no run covers, and that does not wait for a retry.

    Attributes:
        attempts: how many runs failed since it was last published.
        published_rows: what is published of it; 0 if it waits for its first publication, or for the end of another one.
        late_rows: those that came since, the first of them at `late_since`.
        again_at: when it was last published again for late rows; None if it never was.
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
    """Hours that are not published and cannot be asked for: how many, and the first few as text, whatever they are."""

    reason: str
    count: int
    hours: list[str]


def newest_closed_hour(connection: psycopg.Connection, *, first: datetime, end: datetime) -> datetime | None:
    """The newest hour that is closed, of those from `first` on that begin before `end`; None if none is."""
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
    """The hours from `first` on, before `end`, that could be asked for now, ascending, as many as one tick can choose from.

    These are the oldest of those that were never published and of those that failed before, all that are to be published
    again, and the newest. One that fails and waits for its next attempt is none, so that it hides no other; one that is stuck
    only if it has rows that no attempt was for.

    Args:
        running: hours that a run in progress covers; they are left to it.
        newest: the newest closed hour.
        limit: the most hours that one tick asks for.
    """
    with connection.cursor(row_factory=class_row(Candidate)) as cursor:
        return cursor.execute(
            _CANDIDATES,
            {
                "first": first,
                "end": end,
                "running": list(running),
                "newest": newest,
                "now": now,
                "most": MOST_ATTEMPTS,
                # One more than a tick asks for tells that some wait.
                "limit": limit + 1,
            },
        ).fetchall()


def unpublished(connection: psycopg.Connection, *, limit: int) -> tuple[int, int, float | None]:
    """How many hours are to publish, up to a limit; how many of them again, for late rows; and since when the oldest is.

    That is its end, or the time when the first of its late rows came, in seconds since 1970. Hours that are left out are
    counted by themselves.
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
    """The published hours that rows came for since, ascending, whether they wait or are due; but for those left out."""
    with connection.cursor(row_factory=class_row(Candidate)) as cursor:
        return cursor.execute(
            "SELECT late.hour, late.up_to_batch, sealed.rows AS published_rows, late.rows - sealed.rows AS late_rows,"
            " ledger.rows_since(late.hour, late.up_to_batch) AS late_since,"
            " CASE WHEN sealed.generation > 1 THEN sealed.sealed_at END AS again_at"
            " FROM ledger.hour_to_publish AS late JOIN ledger.hour_generation AS sealed USING (hour, generation)"
            " WHERE late.again AND NOT EXISTS (SELECT FROM ledger.left_out_hour WHERE left_out_hour.hour = late.hour)"
            " ORDER BY late.hour"
        ).fetchall()


def record_left_out(connection: psycopg.Connection, *, first: datetime, end: datetime) -> None:
    """Note the hours that are not published and that Dagster does not know: those before `first`, and from `end` on."""
    outside = {"first": first, "end": end}
    with connection.transaction():
        connection.execute(
            "DELETE FROM ledger.left_out_hour AS known WHERE (known.hour >= %(first)s AND known.hour < %(end)s)"
            " OR NOT EXISTS (SELECT FROM ledger.hour_to_publish AS asked WHERE asked.hour = known.hour)",
            outside,
        )
        connection.execute(
            "INSERT INTO ledger.left_out_hour AS known (hour, reason)"
            " SELECT hour, CASE WHEN hour < %(first)s THEN 'before the first partition' ELSE 'in the future' END"
            " FROM ledger.hour_to_publish WHERE hour < %(first)s OR hour >= %(end)s"
            " ON CONFLICT (hour) DO UPDATE SET reason = excluded.reason WHERE known.reason <> excluded.reason",
            outside,
        )


def read_left_out(connection: psycopg.Connection) -> list[LeftOut]:
    """The hours that the sensor left out at its last tick, by reason."""
    with connection.cursor(row_factory=class_row(LeftOut)) as cursor:
        # As text: they may be in years that Python does not know.
        return cursor.execute(
            "SELECT reason, count(*) AS count,"
            " (array_agg(to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD-HH24:MI') ORDER BY hour))[1:5] AS hours"
            " FROM ledger.left_out_hour GROUP BY reason ORDER BY reason"
        ).fetchall()
