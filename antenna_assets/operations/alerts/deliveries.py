"""The SQL of the deliverer: its channels, what is due, and what became of it. The clock is PostgreSQL's."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg

from antenna_assets.operations.alerts.channels import Channel
from antenna_assets.operations.alerts.outcome import Next, Notice, Outcome, after

REMOVED = "the channel was removed from the file of channels"


@dataclass(frozen=True)
class Due:
    """A delivery whose row is locked until the end of the transaction.

    Attributes:
        number: that of the notice in `outbox`.
        attempts: those that were made before.
        since_first: the time since the first of them.
    """

    number: int
    notice: Notice
    attempts: int
    since_first: timedelta


def record_channels(connection: psycopg.Connection, channels: Mapping[str, Channel]) -> None:
    """Record the channels that there are. A new one, and one that comes back, gets what is written from now
    on; what waits for one that is not there any more is dead."""
    names = list(channels)
    with connection.transaction():
        for name, channel in channels.items():
            connection.execute(
                "INSERT INTO alert_channel AS known (name, kind, levels, kinds) VALUES (%s, %s, %s, %s)"
                " ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, levels = excluded.levels,"
                " kinds = excluded.kinds, removed_at = NULL, added_at = CASE WHEN known.removed_at IS NULL"
                " THEN known.added_at ELSE excluded.added_at END",
                [name, channel.kind, _listed(channel.levels), _listed(channel.kinds)],
            )
        connection.execute(
            "UPDATE alert_channel SET removed_at = clock_timestamp() WHERE removed_at IS NULL"
            " AND name <> ALL(%s)",
            [names],
        )
    # After it, as this waits for what is being sent, whose transaction may change the channel as well.
    connection.execute(
        "UPDATE delivery SET state = 'dead', last_error = %s WHERE state = 'waiting' AND channel <> ALL(%s)",
        [REMOVED, names],
    )


def _listed(values: tuple[str, ...] | None) -> list[str] | None:
    return None if values is None else list(values)


def take(connection: psycopg.Connection, channel: str, *, until: datetime | None = None) -> Due | None:
    """Lock the channel's next due delivery, in the caller's transaction; None if none is due, the channel
    pauses, or others have them all.

    Args:
        until: leave those that are due later; None: now.
    """
    row = connection.execute(
        "SELECT number, id, outbox.kind, level, created_at, body, clock_timestamp(), attempts,"
        " coalesce(clock_timestamp() - first_attempt, '0')"
        " FROM delivery JOIN outbox ON number = outbox"
        " WHERE channel = %(channel)s AND state = 'waiting'"
        " AND next_attempt <= coalesce(%(until)s::timestamptz, now())"
        " AND NOT EXISTS (SELECT FROM alert_channel WHERE name = %(channel)s AND paused_until > now())"
        " ORDER BY next_attempt, outbox LIMIT 1 FOR UPDATE OF delivery SKIP LOCKED",
        {"channel": channel, "until": until},
    ).fetchone()
    if row is None:
        return None
    number, *notice, attempts, since_first = row
    return Due(number, Notice(*notice), attempts, since_first)


def record(connection: psycopg.Connection, channel: str, due: Due, outcome: Outcome) -> Next:
    """Record what became of an attempt, in the transaction that took it; returns what follows."""
    # Not for secrets.
    chance = random.random()
    following = after(outcome, attempts=due.attempts + 1, since_first=due.since_first, chance=chance)
    connection.execute(
        "UPDATE delivery SET state = %(state)s, attempts = attempts + 1,"
        " first_attempt = coalesce(first_attempt, %(now)s), next_attempt = clock_timestamp() + %(wait)s,"
        " last_error = nullif(%(error)s, ''), status_code = %(code)s,"
        " delivered_at = CASE %(state)s WHEN 'delivered' THEN clock_timestamp() END"
        " WHERE outbox = %(number)s AND channel = %(channel)s",
        {
            "state": following.state,
            "now": due.notice.now,
            "wait": following.wait,
            "error": outcome.error,
            "code": outcome.code,
            "number": due.number,
            "channel": channel,
        },
    )
    if outcome.pause is not None:
        connection.execute(
            "UPDATE alert_channel SET paused_until = clock_timestamp() + %s WHERE name = %s",
            [outcome.pause, channel],
        )
    return following
