"""`antenna reopen`: the recorded repair after a wrong clock of PostgreSQL closed hours that had not ended.

It changes the ledger alone, in one transaction, while no stream runs. What is published stays; an hour that was published
and gets rows once it has really ended is published again, as its next generation.
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
    """What a repair changes: closed hours that are open again, and those without rows that are not known any more."""

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
            f"{len(self.reopened):,} closed hours from {hour_key(self.hour)} on are opened again, {len(self.removed):,} "
            f"without a row are forgotten, and the low watermark, which is {before}, goes back to {hour_key(self.hour)}"
        )


def planned(connection: psycopg.Connection, topic: str, hour: datetime, horizon: timedelta) -> Reopening:
    """What `reopen` would change.

    Raises:
        LedgerError: the hour is past the horizon or has not begun, or the ledger knows no such topic.
    """
    head = read_head(connection, topic)
    now = database_now(connection)
    oldest = max(now - horizon, expired_before(connection) or now - horizon)
    if hour < oldest:
        raise LedgerError(
            f"expected an hour within the horizon, which begins at {oldest:%Y-%m-%d %H:%M:%S} UTC, found {hour_key(hour)}: "
            "its events are rejected as too old, so it would close as it is; choose a later hour"
        )
    if hour > hour_of(now):
        raise LedgerError(
            f"expected an hour that has begun, found {hour_key(hour)}: by PostgreSQL's clock it is {now:%Y-%m-%d %H:%M:%S} UTC, "
            f"and the hours in between would stay closed; --from {hour_key(hour_of(now))} opens all that have not ended"
        )
    # What was sealed is a fact that stays: of an hour that never had a row, only the row in the ledger goes.
    rows = connection.execute(
        "SELECT hour, rows = 0 AND generation = 0 FROM ledger.hour WHERE closed_at IS NOT NULL AND hour >= %s ORDER BY hour",
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
    """Open the hours from this one on again, lower the watermark to it, and record both.

    Raises:
        StreamRunning: a stream runs on this ledger.
        LedgerError: as `planned`.
    """
    with only_stream(connection), connection.transaction():
        # Replays and runs that seal wait for it.
        head = read_head(connection, topic, lock=True)
        found = planned(connection, topic, hour, horizon)
        if found:
            _carry_out(connection, head, found, reason)
    return found


def _carry_out(connection: psycopg.Connection, head: Head, found: Reopening, reason: str) -> None:
    changed = [*found.reopened, *found.removed]
    connection.execute("DELETE FROM ledger.failing_hour WHERE hour = ANY(%s)", [changed])
    # As every writer of these rows: in the order of the hours.
    connection.execute("SELECT FROM ledger.hour WHERE hour = ANY(%s) ORDER BY hour FOR UPDATE", [changed])
    connection.execute(
        "UPDATE ledger.hour SET closed_at = NULL, closed_by = NULL WHERE hour = ANY(%s)", [found.reopened]
    )
    connection.execute("DELETE FROM ledger.hour WHERE hour = ANY(%s)", [found.removed])
    state = head.state
    # What the wrong clock knew of the time from the hour on is void; the next look begins anew.
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
