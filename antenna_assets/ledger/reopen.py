"""`antenna reopen`: the repair after a wrong clock of PostgreSQL closed hours that had not ended.

It changes only the ledger, in one transaction, while no stream runs. Publications stay; an hour that gets
more rows is published again as its next generation.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import psycopg

from antenna_assets.clients.clock import database_now
from antenna_assets.domain.hours import hour_key, hour_of
from antenna_assets.ledger.errors import LedgerError
from antenna_assets.ledger.generations import expired_before
from antenna_assets.ledger.head import Head, move_head, read_head
from antenna_assets.ledger.stream_lock import only_stream


@dataclass(frozen=True)
class Reopening:
    """What a repair changes: closed hours that are opened again, and hours without rows that are removed."""

    hour: datetime
    watermark: datetime | None
    reopened: Sequence[datetime]
    removed: Sequence[datetime]

    def __bool__(self) -> bool:
        return bool(self.reopened or self.removed) or (
            self.watermark is not None and self.watermark > self.hour
        )

    def __str__(self) -> str:
        before = "nothing" if self.watermark is None else f"{self.watermark:%Y-%m-%d %H:%M:%S} UTC"
        return (
            f"{len(self.reopened):,} closed hours from {hour_key(self.hour)} on are opened again, "
            f"{len(self.removed):,} without a row are removed, "
            f"and the low watermark is set back from {before} to {hour_key(self.hour)}"
        )


def plan_reopening(
    connection: psycopg.Connection, topic: str, hour: datetime, horizon: timedelta
) -> Reopening:
    """What `reopen` would change.

    Raises:
        LedgerError: the hour is past the horizon or has not begun, or the ledger has no such topic.
    """
    head = read_head(connection, topic)
    now = database_now(connection)
    oldest = max(now - horizon, expired_before(connection) or now - horizon)
    if hour < oldest:
        raise LedgerError(
            f"expected an hour within the horizon, which begins at {oldest:%Y-%m-%d %H:%M:%S} UTC, found "
            f"{hour_key(hour)}: its events are rejected as too old, so nothing could be added; choose a "
            "later hour"
        )
    if hour > hour_of(now):
        raise LedgerError(
            f"expected an hour that has begun, found {hour_key(hour)}: PostgreSQL's clock is at "
            f"{now:%Y-%m-%d %H:%M:%S} UTC, and the hours in between would stay closed; "
            f"--from {hour_key(hour_of(now))} opens all hours that have not ended"
        )
    # Generations are never removed, so only hours that have none and no row are.
    rows = connection.execute(
        "SELECT hour, rows = 0 AND generation = 0 FROM ledger.hour"
        " WHERE closed_at IS NOT NULL AND hour >= %s ORDER BY hour",
        [hour],
    ).fetchall()
    return Reopening(
        hour,
        head.low_watermark,
        reopened=[one for one, empty in rows if not empty],
        removed=[one for one, empty in rows if empty],
    )


def reopen(
    connection: psycopg.Connection, topic: str, hour: datetime, *, horizon: timedelta, reason: str
) -> Reopening:
    """Open the hours from this one on again, set the watermark back to it, and record both.

    Raises:
        StreamRunning: a stream runs on this ledger.
        LedgerError: as `plan_reopening`.
    """
    with only_stream(connection), connection.transaction():
        # Replays and runs that seal wait for this lock.
        head = read_head(connection, topic, lock=True)
        found = plan_reopening(connection, topic, hour, horizon)
        if found:
            _execute(connection, head, found, reason)
    return found


def _execute(connection: psycopg.Connection, head: Head, found: Reopening, reason: str) -> None:
    changed = [*found.reopened, *found.removed]
    connection.execute("DELETE FROM ledger.failing_hour WHERE hour = ANY(%s)", [changed])
    # In the order of the hours, as every writer of these rows.
    connection.execute("SELECT FROM ledger.hour WHERE hour = ANY(%s) ORDER BY hour FOR UPDATE", [changed])
    connection.execute(
        "UPDATE ledger.hour SET closed_at = NULL, closed_by = NULL WHERE hour = ANY(%s)", [found.reopened]
    )
    connection.execute("DELETE FROM ledger.hour WHERE hour = ANY(%s)", [found.removed])
    state = head.state
    # What was observed by the wrong clock is void; the next observation starts anew.
    void = replace(
        state,
        looked_at=None,
        watched_since=None,
        low_watermark=None if state.low_watermark is None else min(state.low_watermark, found.hour),
        event_times={partition: min(time, found.hour) for partition, time in state.event_times.items()},
        silent_since={},
        mark={},
        mark_at=None,
        read_past=None,
    )
    move_head(connection, replace(head, state=void), held_by=None, host_clock=None)
    connection.execute(
        "INSERT INTO ledger.reopening (from_hour, watermark_before, hours_reopened, hours_removed, reason)"
        " VALUES (%s, %s, %s, %s, %s)",
        [found.hour, found.watermark, len(found.reopened), len(found.removed), reason],
    )
