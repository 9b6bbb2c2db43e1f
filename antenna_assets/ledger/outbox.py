"""Writing notices: rows of `outbox`, in the transaction that makes them true.

Nothing is sent here. `antenna alerts deliver` does it later, in a process of its own (`operations/alerts/`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import psycopg

Level = Literal["info", "warning", "critical"]

LEVELS: tuple[Level, ...] = get_args(Level)
"""All levels, the most urgent last."""

TEST = "test"
"""The kind of the notices of `antenna alerts send-test`."""


@dataclass(frozen=True)
class NewNotice:
    """A notice to write.

    Attributes:
        id: its idempotency key: at most 100 letters, digits, `_` and `-`. It must not name a user: mail
            servers and logs see it.
        kind: what it is, such as `quota.raised`; channels select by it.
        body: what is sent, as a JSON object. `summary`, if there is one, is the subject of mails.
        user: the id of the user whom id or body name; `antenna forget-user` removes the user's notices by it.
        only_channel: the one channel that it is for; None: all of its level and kind.
    """

    id: str
    kind: str
    level: Level
    body: Mapping[str, Any]
    user: str | None = None
    only_channel: str | None = None


def write_notices(connection: psycopg.Connection, notices: Sequence[NewNotice]) -> int:
    """Write notices, in the caller's transaction; returns how many are new. One whose id is there stays as it
    was.

    What is owed to the channels in use is written by a trigger, in the same transaction. The login needs
    INSERT on `outbox` and no other right.
    """
    if not notices:
        return 0
    columns = zip(
        *((one.id, one.kind, one.level, as_json(one.body), one.user, one.only_channel) for one in notices),
        strict=True,
    )
    # A conflict target would ask for the right to read.
    return connection.execute(
        "INSERT INTO outbox (id, kind, level, body, user_id, only_channel)"
        " SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[])"
        " ON CONFLICT DO NOTHING",
        [list(column) for column in columns],
    ).rowcount


def as_json(body: Mapping[str, Any]) -> str:
    """The text of a body: compact, in the order of its keys, and with letters beyond ASCII as they are."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
