"""Publications: what each asset has published of an hour, and the fence that only newer versions pass.

`publishing/` writes the lake and the serving tables.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from antenna_assets.domain.hours import hour_key
from antenna_assets.errors import Superseded, Version
from antenna_assets.ledger.errors import ForgottenMeanwhile


@dataclass(frozen=True)
class Publication:
    """A publication of an hour by an asset.

    Attributes:
        users_version: None where no user is looked up.
        lake_version: the Delta version; of a lake table, like `attempt` and `lake_table`.
        content: the digests of the files or rows, see `publishing/digests.py`.
        attempt: the number from `begin_publication`.
        lake_table: Delta's id of the table.
    """

    asset: str
    hour: datetime
    generation: int
    rows: int
    bytes: int
    users_version: int | None
    run_id: str
    lake_version: int | None = None
    content: Mapping[str, Any] | None = None
    attempt: int | None = None
    lake_table: str | None = None


def begin_publications(
    connection: psycopg.Connection, asset: str, hours: Sequence[datetime], users_version: int | None
) -> dict[datetime, int]:
    """Begin an attempt to publish each hour in the lake; returns their numbers. The latest attempt wins.

    An hour is not fully published until this attempt or a later one is recorded: lake and ledger have no
    common transaction, so after a crash between the two the hour is published again.
    """
    return dict(
        connection.execute(
            "WITH taken AS ("
            "  SELECT hour, nextval('ledger.publication_attempt') AS attempt"
            "  FROM unnest(%(hours)s::timestamptz[]) AS hour ORDER BY hour"
            # In the order of the hours, as every writer of these rows: no deadlock.
            "), held AS ("
            "  SELECT hour FROM ledger.publication_head"
            "  WHERE asset = %(asset)s AND hour = ANY(%(hours)s) ORDER BY hour FOR UPDATE"
            "), marked AS ("
            "  UPDATE ledger.publication_head AS head SET begun = taken.attempt,"
            "   asked_users_version = greatest(asked_users_version, %(users)s::bigint)"
            "  FROM taken JOIN held USING (hour) WHERE head.asset = %(asset)s AND head.hour = taken.hour"
            ") SELECT hour, attempt FROM taken",
            {"asset": asset, "hours": list(hours), "users": users_version},
        ).fetchall()
    )


def begin_publication(
    connection: psycopg.Connection, asset: str, hour: datetime, users_version: int | None
) -> int:
    """Begin an attempt to publish one hour, as `begin_publications`."""
    return begin_publications(connection, asset, [hour], users_version)[hour]


def abandon_publication(connection: psycopg.Connection, asset: str, hour: datetime, attempt: int) -> None:
    """End an attempt without a publication, because the lake has a newer version."""
    connection.execute(
        "UPDATE ledger.publication_head SET begun = NULL WHERE asset = %s AND hour = %s AND begun = %s",
        [asset, hour, attempt],
    )


def require_nobody_forgotten(connection: psycopg.Connection) -> None:
    """The fence of `antenna forget-user`: a session that may have read the user before cannot commit.

    Call it in the transaction that commits, after its first write: forgetting waits for transactions that
    have written.

    Raises:
        ForgottenMeanwhile: a user was forgotten since the connection was opened.
    """
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM ledger.fenced_session AS fenced JOIN pg_stat_activity AS own USING (pid)"
        "  WHERE pid = pg_backend_pid() AND coalesce(fenced.backend_start = own.backend_start, true))"
    ).fetchone()
    if row != (False,):
        raise ForgottenMeanwhile(
            "a user was forgotten in the meantime, and data that was read before may name them: nothing was "
            "committed; run it again"
        )


def record_publication(connection: psycopg.Connection, publication: Publication) -> None:
    """Pass the fence and record the publication, in the caller's transaction.

    Raises:
        Superseded: a newer generation of the hour is published, or a newer users' version of the same one.
    """
    move_publication_head(connection, publication)
    insert_publication(connection, publication)


def move_publication_head(connection: psycopg.Connection, publication: Publication) -> None:
    """The fence: move the asset's head of the hour to this version, and lock it until the transaction ends.

    Raises:
        Superseded: a newer generation of the hour is published, or a newer users' version of the same one.
    """
    fence = connection.execute(
        "INSERT INTO ledger.publication_head AS head"
        " (asset, hour, generation, users_version, asked_users_version, uncertified)"
        " VALUES (%(asset)s, %(hour)s, %(generation)s, %(users)s, %(users)s, true)"
        " ON CONFLICT (asset, hour) DO UPDATE SET generation = excluded.generation,"
        "  users_version = excluded.users_version,"
        "  asked_users_version = greatest(head.asked_users_version, excluded.users_version),"
        "  begun = CASE WHEN head.begun > %(attempt)s::bigint THEN head.begun END, uncertified = true"
        " WHERE (head.generation, coalesce(head.users_version, 0))"
        "  <= (excluded.generation, coalesce(excluded.users_version, 0)) RETURNING generation",
        {
            "asset": publication.asset,
            "hour": publication.hour,
            "generation": publication.generation,
            "users": publication.users_version,
            "attempt": publication.attempt,
        },
    ).fetchone()
    if fence is None:
        held = connection.execute(
            "SELECT generation, coalesce(users_version, 0) FROM ledger.publication_head"
            " WHERE asset = %s AND hour = %s",
            [publication.asset, publication.hour],
        ).fetchall()[0]
        what = f"{publication.asset} of {hour_key(publication.hour)}"
        raise Superseded(
            what, Version(publication.generation, publication.users_version or 0), Version(*held)
        )


def insert_publication(connection: psycopg.Connection, publication: Publication) -> None:
    """Insert the row of a publication whose head was moved in this transaction."""
    content = None if publication.content is None else Jsonb(dict(publication.content))
    connection.execute(
        "INSERT INTO ledger.publication"
        " (asset, hour, generation, rows, bytes, users_version, run_id, lake_version, content, attempt,"
        "  lake_table, shown_with_users)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, false)",
        [
            publication.asset,
            publication.hour,
            publication.generation,
            publication.rows,
            publication.bytes,
            publication.users_version,
            publication.run_id,
            publication.lake_version,
            content,
            publication.attempt,
            publication.lake_table,
        ],
    )
