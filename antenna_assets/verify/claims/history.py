"""Claims on an hour in the context of others: hours are published in time, and each has its usual volume.

Both read the ledger. Dagster's own freshness is a property of an asset: materializing any old hour turns it
green.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from statistics import median

import psycopg

from antenna_assets.domain.counted import counted
from antenna_assets.domain.hours import HOUR, hour_key, hour_of
from antenna_assets.verify.claims.verdict import Verdict

LONGEST_DELAY = timedelta(minutes=30)
"""From the end of an hour to its certificate."""

WEEK = timedelta(days=7)
EARLIER_WEEKS, LEAST_WEEKS = 4, 2
USUAL = (0.5, 2.0)
"""Shares of the median of the same hour in earlier weeks."""


def hours_are_fresh(connection: psycopg.Connection, now: datetime) -> Verdict:
    """Every hour that ended `LONGEST_DELAY` ago is closed and wholly published, by `ledger.hour_state`.

    An hour that is due and missing in the ledger counts as open: the stream is behind.
    """
    due = hour_of(now - LONGEST_DELAY) - HOUR
    newest, open_, unpublished, oldest = connection.execute(
        "SELECT max(hour) FILTER (WHERE closed_at IS NOT NULL), count(*) FILTER (WHERE closed_at IS NULL),"
        " count(*) FILTER (WHERE closed_at IS NOT NULL AND NOT certified),"
        " min(hour) FILTER (WHERE NOT certified)"
        # PostgreSQL has years that Python's datetime has not.
        " FROM ledger.hour_state WHERE hour <= %s AND hour > '0001-01-02'",
        [due],
    ).fetchall()[0]
    if newest is None and not open_:
        return Verdict(True, "the ledger holds no hour that is due", {"hours_behind": 0})
    behind = max(0, (due - newest) // HOUR) if newest else open_
    message = (
        f"{hour_key(due)} is due: the newest closed hour is {hour_key(newest) if newest else 'none'},"
        f" {unpublished:,} closed hours are not published"
    )
    if oldest is not None:
        message += f", the oldest unfinished one is {hour_key(oldest)}"
    return Verdict(
        behind == 0 and open_ == 0 and unpublished == 0,
        message,
        {"hours_behind": behind, "open_hours": open_, "unpublished_hours": unpublished},
    )


def volume_is_usual(connection: psycopg.Connection, hours: Sequence[datetime]) -> dict[datetime, Verdict]:
    """An hour's bytes are between half and twice the median of the same hour in the last four weeks."""
    compared = {hour: [hour - week * WEEK for week in range(EARLIER_WEEKS + 1)] for hour in hours}
    rows = connection.execute(
        "SELECT hour, bytes FROM ledger.hour WHERE closed_at IS NOT NULL AND hour = ANY(%s)",
        [sorted({one for hours_ in compared.values() for one in hours_})],
    ).fetchall()
    bytes_of: dict[datetime, int] = dict(rows)
    return {
        hour: _volume(bytes_of.get(hour, 0), [bytes_of[one] for one in earlier if one in bytes_of])
        for hour, (_, *earlier) in compared.items()
    }


def _volume(bytes_: int, earlier: Sequence[int]) -> Verdict:
    if len(earlier) < LEAST_WEEKS:
        message = f"{bytes_:,} bytes; not compared: {len(earlier)} of at least {LEAST_WEEKS} earlier weeks"
        return Verdict(True, message, {"bytes": bytes_, "compared": 0})
    usual = median(earlier)
    share = bytes_ / usual if usual else (1.0 if not bytes_ else float(bytes_))
    weeks = counted(len(earlier), "week")
    message = f"{bytes_:,} bytes, {share:.2f}x the median of {usual:,.0f} at this hour ({weeks})"
    return Verdict(
        USUAL[0] <= share <= USUAL[1],
        message,
        {"bytes": bytes_, "usual_bytes": usual, "of_usual": share, "compared": 1},
    )
