"""Notices for tests, and channels without a deliverer."""

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import psycopg

from antenna_assets.ledger.outbox import Level, NewNotice, write_notices


def add_channel(
    connection: psycopg.Connection,
    name: str,
    *,
    kind: str = "log",
    levels: Sequence[str] | None = None,
    kinds: Sequence[str] | None = None,
) -> None:
    connection.execute(
        "INSERT INTO alert_channel (name, kind, levels, kinds) VALUES (%s, %s, %s, %s)",
        [name, kind, levels and list(levels), kinds and list(kinds)],
    )


def notice(
    id: str | None = None, *, kind: str = "quota.raised", level: Level = "warning", **more: Any
) -> NewNotice:
    body = more.pop("body", {"type": kind, "summary": "80 % is used"})
    return NewNotice(id or f"n-{uuid4().hex}", kind, level, body, **more)


def write(connection: psycopg.Connection, *ids: str, **more: Any) -> None:
    """Write notices with these ids."""
    write_notices(connection, [notice(id, **more) for id in ids])


def owed(connection: psycopg.Connection, state: str | None = None) -> list[tuple[str, str]]:
    """The ids that are owed to channels, with the channel, in order."""
    return connection.execute(
        "SELECT id, channel FROM delivery JOIN outbox ON number = outbox"
        " WHERE state = coalesce(%s, state) ORDER BY number, channel",
        [state],
    ).fetchall()
