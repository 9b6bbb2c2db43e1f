"""The ledger: what was read from Kafka, where it landed, and the generations and publications of each hour.

Functions take an open connection in autocommit mode. The stream's own transaction, which writes offsets, files and
live sums together, is `streaming.commit`; nothing here writes to a table that people read.
"""

from collections.abc import Mapping
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
    """One publication of an hour by an asset. `users_version` is None where no user was looked up.

    Of a lake table `attempt` is what `begin_publication` gave, `lake_version` the Delta version and `lake_table` Delta's id of
    the table. `content` is what `publishing/digests.py` says of the files or rows.
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


def begin_publication(
    connection: psycopg.Connection, asset: str, hour: datetime, users_version: int | None
) -> int:
    """The number of an attempt to publish an hour in the lake: a later one wins over an earlier one of the same version.

    From here on the hour is not wholly published until this attempt or a later one is recorded: the lake and the ledger
    have no common transaction, and whoever dies between the two leaves the hour to be asked for again.
    """
    return connection.execute(
        "WITH taken AS (SELECT nextval('ledger.publication_attempt') AS attempt), marked AS ("
        "  UPDATE ledger.publication_head SET begun = taken.attempt,"
        "   asked_users_version = greatest(asked_users_version, %(users)s::bigint)"
        "  FROM taken WHERE asset = %(asset)s AND hour = %(hour)s"
        ") SELECT attempt FROM taken",
        {"asset": asset, "hour": hour, "users": users_version},
    ).fetchall()[0][0]


def end_superseded(connection: psycopg.Connection, asset: str, hour: datetime, attempt: int) -> None:
    """Nothing came of an attempt in the lake, which holds something newer."""
    connection.execute(
        "UPDATE ledger.publication_head SET begun = NULL WHERE asset = %s AND hour = %s AND begun = %s",
        [asset, hour, attempt],
    )


def require_nobody_forgotten(connection: psycopg.Connection) -> None:
    """The fence of `antenna forget-user`: a session that may have read a user before they were forgotten commits nothing.

    Call it within the transaction that commits, after its first write: whoever forgets waits for those that wrote.

    Raises:
        ForgottenMeanwhile: a user was forgotten since the connection was opened.
    """
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM ledger.fenced_session AS fenced JOIN pg_stat_activity AS own USING (pid)"
        "  WHERE pid = pg_backend_pid() AND coalesce(fenced.backend_start = own.backend_start, true))"
    ).fetchone()
    if row != (False,):
        raise ForgottenMeanwhile(
            "a user was forgotten meanwhile, and what was read before that may name them: nothing was committed; run it again"
        )


def record_publication(connection: psycopg.Connection, publication: Publication) -> None:
    """Move the publication's head and write its row, in the caller's transaction. The head's row is the fence.

    Raises:
        Superseded: a newer generation of the hour is published, or a newer users' version of the same one.
    """
    move_head(connection, publication)
    insert_publication(connection, publication)


def move_head(connection: psycopg.Connection, publication: Publication) -> None:
    """The fence: bring the asset's head of the hour to this generation and users' version, and hold it to the transaction's end.

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
            "SELECT generation, coalesce(users_version, 0) FROM ledger.publication_head WHERE asset = %s AND hour = %s",
            [publication.asset, publication.hour],
        ).fetchall()[0]
        what = f"{publication.asset} of {hour_key(publication.hour)}"
        raise Superseded(
            what, Version(publication.generation, publication.users_version or 0), Version(*held)
        )


def insert_publication(connection: psycopg.Connection, publication: Publication) -> None:
    """Write the row of a publication whose head was moved in this transaction."""
    content = None if publication.content is None else Jsonb(dict(publication.content))
    connection.execute(
        "INSERT INTO ledger.publication"
        " (asset, hour, generation, rows, bytes, users_version, run_id, lake_version, content, attempt, lake_table)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
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
