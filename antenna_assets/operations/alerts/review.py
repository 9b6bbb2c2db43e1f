"""Deliveries as a person sees them: listed, tried again, and a test of a channel."""

import time
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

import psycopg
from psycopg.rows import class_row

from antenna_assets.errors import AntennaError
from antenna_assets.ledger.outbox import TEST, NewNotice, write_notices
from antenna_assets.operations.alerts.outcome import State

LOOK_SECONDS = 0.2


class AlertsError(AntennaError):
    """What was asked for is not there; the message says what is."""


@dataclass(frozen=True)
class Delivery:
    """A notice and what became of it in one channel. Times are UTC.

    Attributes:
        next_attempt: None unless it waits.
    """

    id: str
    kind: str
    level: str
    created_at: datetime
    channel: str
    state: State
    attempts: int
    next_attempt: datetime | None
    status_code: int | None
    last_error: str | None
    delivered_at: datetime | None


_COLUMNS = """
    SELECT id, outbox.kind, level, created_at, channel, state, attempts,
        CASE state WHEN 'waiting' THEN greatest(next_attempt, paused_until) END AS next_attempt, status_code,
        last_error, delivered_at
    FROM delivery JOIN outbox ON number = outbox JOIN alert_channel ON name = channel
"""


def listed(
    connection: psycopg.Connection, *, state: State | None = None, channel: str | None = None, limit: int
) -> list[Delivery]:
    """The newest deliveries, newest notice first."""
    # A condition that may be none would keep PostgreSQL from its indexes: 2 s instead of milliseconds with a
    # million deliveries.
    chosen = {"state": state, "channel": channel}
    conditions = [f" AND {column} = %({column})s" for column, value in chosen.items() if value is not None]
    query = f"{_COLUMNS} WHERE true{''.join(conditions)} ORDER BY number DESC, channel LIMIT %(limit)s"
    with connection.cursor(row_factory=class_row(Delivery)) as cursor:
        return cursor.execute(query.encode(), {**chosen, "limit": limit}).fetchall()


def retry(connection: psycopg.Connection, *, id: str | None = None, channel: str | None = None) -> int:
    """Make deliveries due now, as if they were new: those of a notice, of a channel, or all that are dead;
    returns how many.

    Of a notice or a channel those that wait for their next attempt are due as well, and a pause that the
    channel's receiver asked for ends. What was delivered stays so, what is being sent is left alone, and
    channels that are not in use get nothing.

    Raises:
        AlertsError: there is no such notice, or no such channel in use.
    """
    if id is not None and not _exists(connection, "SELECT FROM outbox WHERE id = %s", id):
        raise AlertsError(f"expected the id of a notice, found {id!r}; `antenna alerts list` shows them")
    if channel is not None:
        require_channel(connection, channel)
    with connection.transaction():
        due = connection.execute(
            "WITH chosen AS ("
            " SELECT outbox, channel FROM delivery JOIN outbox ON number = outbox"
            " JOIN alert_channel ON name = channel AND removed_at IS NULL"
            " WHERE (state = 'dead' OR (state = 'waiting' AND coalesce(%(id)s, %(channel)s) IS NOT NULL))"
            " AND id = coalesce(%(id)s, id) AND channel = coalesce(%(channel)s, channel)"
            " FOR UPDATE OF delivery SKIP LOCKED)"
            " UPDATE delivery SET state = 'waiting', attempts = 0, first_attempt = NULL,"
            " next_attempt = clock_timestamp() FROM chosen"
            " WHERE delivery.outbox = chosen.outbox AND delivery.channel = chosen.channel",
            {"id": id, "channel": channel},
        ).rowcount
        if channel is not None:
            connection.execute("UPDATE alert_channel SET paused_until = NULL WHERE name = %s", [channel])
    return due


def try_channel(connection: psycopg.Connection, channel: str, *, patience: float) -> Delivery:
    """Write a notice of the kind `test` for one channel, and wait for its first attempt by the deliverer.

    One that is not delivered is removed again, so that it is neither tried for days nor found dead.

    Returns:
        its delivery after the attempt; `attempts` is 0 if there was none within `patience` seconds.

    Raises:
        AlertsError: there is no such channel in use.
    """
    require_channel(connection, channel)
    id = f"test-{uuid4().hex}"
    body = {"type": TEST, "summary": f"A test of the channel {channel}"}
    write_notices(connection, [NewNotice(id, TEST, "info", body, only_channel=channel)])
    end = time.monotonic() + patience
    try:
        while True:
            found = _delivery(connection, id)
            if found.attempts or time.monotonic() >= end:
                return found
            time.sleep(LOOK_SECONDS)
    finally:
        connection.execute(
            "DELETE FROM outbox WHERE id = %s AND EXISTS"
            " (SELECT FROM delivery WHERE outbox = number AND state <> 'delivered')",
            [id],
        )


def require_channel(connection: psycopg.Connection, channel: str) -> None:
    """Require that a channel is in use.

    Raises:
        AlertsError: it is not; the message names those that are.
    """
    rows = connection.execute(
        "SELECT name FROM alert_channel WHERE removed_at IS NULL ORDER BY name"
    ).fetchall()
    names = [name for (name,) in rows]
    if channel not in names:
        known = f"expected one of {', '.join(names)}" if names else "no channel is known yet"
        raise AlertsError(f"{known}, found {channel!r}; `antenna alerts deliver` records them when it starts")


def _delivery(connection: psycopg.Connection, id: str) -> Delivery:
    with connection.cursor(row_factory=class_row(Delivery)) as cursor:
        found = cursor.execute(f"{_COLUMNS} WHERE id = %s".encode(), [id]).fetchone()
    if found is None:
        raise AlertsError(f"the notice {id} was removed meanwhile")
    return found


def _exists(connection: psycopg.Connection, query: str, value: str) -> bool:
    return connection.execute(query.encode(), [value]).fetchone() is not None
