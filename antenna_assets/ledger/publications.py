"""The ledger: what was read from Kafka, where it landed, and the generations and publications of each hour.

Functions take an open connection in autocommit mode. The stream's own transaction, which writes offsets, files and
live sums together, is `streaming.commit`; nothing here writes to a table that people read.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from antenna_assets.domain.hours import hour_key
from antenna_assets.errors import AntennaError, Superseded, Version
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.landing import remember_landing


class LedgerError(AntennaError):
    """The ledger does not allow what was asked for; the message says what it holds."""


class HourNotClosed(LedgerError):
    """The hour is still open, or nothing is known of it."""


class HourExpired(LedgerError):
    """The hour's landed files are past their retention: it is published, and never built again."""


class ForgottenMeanwhile(LedgerError):
    """A user was forgotten since the session began: what it has read before may name them. Nothing was committed."""


@dataclass(frozen=True)
class Generation:
    """A snapshot of an hour: its landed files of all batches up to `up_to_batch`."""

    hour: datetime
    generation: int
    up_to_batch: int
    rows: int
    bytes: int


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


@dataclass(frozen=True)
class HourToPublish:
    """A closed hour that is not wholly published: `ledger.hour_state` says what that means."""

    hour: datetime
    up_to_batch: int
    generation: int


def committed_offsets(
    connection: psycopg.Connection, topic_id: str, partitions: Iterable[int]
) -> dict[int, int]:
    """The offset to read next, of each partition that was read before."""
    # One index look-up a partition, however many batches there were.
    rows = connection.execute(
        "SELECT partition, until_offset FROM unnest(%s::int[]) AS asked (partition) CROSS JOIN LATERAL ("
        "  SELECT until_offset FROM ledger.batch_offset AS o"
        "  WHERE o.topic_id = %s AND o.partition = asked.partition ORDER BY until_offset DESC LIMIT 1"
        ") AS newest",
        [list(partitions), topic_id],
    )
    return dict(rows.fetchall())


def lock_heads(connection: psycopg.Connection) -> None:
    """Wait for the batches that are being committed, and keep others away until the caller's transaction ends."""
    connection.execute("SELECT FROM ledger.head ORDER BY topic FOR UPDATE")


def require_closed(connection: psycopg.Connection, hours: Sequence[datetime]) -> None:
    """Stop unless each of the hours is closed.

    Raises:
        HourNotClosed: names the first that is not.
    """
    rows = connection.execute(
        "SELECT hour, closed_at IS NOT NULL FROM ledger.hour WHERE hour = ANY(%s)", [list(hours)]
    ).fetchall()
    closed: dict[datetime, bool] = dict(rows)
    for hour in hours:
        if not closed.get(hour):
            raise HourNotClosed(
                f"hour {hour_key(hour)} is {'still open' if hour in closed else 'not known to the ledger'}: only a "
                "closed hour has results; `antenna status` lists the closed ones"
            )


def seal(connection: psycopg.Connection, hour: datetime) -> Generation:
    """The hour's newest generation, after sealing the next one if landed files reach beyond it, with what landed for it.

    Raises:
        HourNotClosed: the hour is open or unknown.
        HourExpired: landed files of the hour are past their retention, so that a generation would be a part of it.
    """
    with connection.transaction():
        row = connection.execute(
            "SELECT closed_at IS NOT NULL, generation, rows FROM ledger.hour WHERE hour = %s FOR UPDATE",
            [hour],
        ).fetchone()
        if row is None or not row[0]:
            raise HourNotClosed(f"hour {hour_key(hour)} is not closed")
        _, generation, rows = row
        newest = read_generation(connection, hour, generation) if generation else None
        if newest is None or newest.rows < rows:
            require_unexpired(connection, [hour])
            generation += 1
            connection.execute(
                "INSERT INTO ledger.hour_generation (hour, generation, up_to_batch, rows, bytes)"
                " SELECT %s, %s, coalesce(max(batch), 0), coalesce(sum(rows), 0), coalesce(sum(bytes), 0)"
                " FROM ledger.file WHERE kind = 'landed' AND hour = %s",
                [hour, generation, hour],
            )
            connection.execute("UPDATE ledger.hour SET generation = %s WHERE hour = %s", [generation, hour])
            commit_point("publish.seal.last_statement")
    sealed = (
        newest
        if newest and newest.generation == generation
        else read_generation(connection, hour, generation)
    )
    # Not in the transaction: it holds the hour's row, which the stream writes.
    remember_landing(connection, sealed)
    return sealed


def read_generation(connection: psycopg.Connection, hour: datetime, generation: int) -> Generation:
    """A generation that was sealed before.

    Raises:
        LedgerError: it was not.
    """
    with connection.cursor(row_factory=class_row(Generation)) as cursor:
        found = cursor.execute(
            "SELECT hour, generation, up_to_batch, rows, bytes FROM ledger.hour_generation"
            " WHERE hour = %s AND generation = %s",
            [hour, generation],
        ).fetchone()
    if found is None:
        raise LedgerError(
            f"the ledger names generation {generation} of {hour_key(hour)} but does not hold it"
        )
    return found


def landed_files(connection: psycopg.Connection, generation: Generation) -> list[str]:
    """Paths of the generation's files, relative to the lake's root. They stay for `GRACE` at least.

    Raises:
        HourExpired: some of them are past their retention.
    """
    # One statement, so that no file expires between the two looks.
    rows = connection.execute(
        "SELECT path, false AS expired, batch FROM ledger.file WHERE kind = 'landed' AND hour = %(hour)s AND batch <= %(batch)s"
        " UNION ALL SELECT path, true, batch FROM ledger.expired_file WHERE hour = %(hour)s AND batch <= %(batch)s"
        " UNION ALL SELECT '', true, 0 FROM ledger.expired_hour WHERE hour = %(hour)s"
        " ORDER BY batch, path",
        {"hour": generation.hour, "batch": generation.up_to_batch},
    ).fetchall()
    if any(expired for _, expired, _ in rows):
        raise _hour_expired(generation.hour)
    return [path for path, _, _ in rows]


def require_unexpired(connection: psycopg.Connection, hours: Sequence[datetime]) -> None:
    """Stop if landed files of one of the hours are past their retention.

    Raises:
        HourExpired: names the first such hour.
    """
    row = connection.execute(
        "SELECT min(hour) FROM (SELECT hour FROM ledger.expired_file WHERE hour = ANY(%(hours)s)"
        " UNION ALL SELECT hour FROM ledger.expired_hour WHERE hour = ANY(%(hours)s)) AS expired",
        {"hours": list(hours)},
    ).fetchone()
    if row is not None and row[0] is not None:
        raise _hour_expired(row[0])


def expired_before(connection: psycopg.Connection) -> datetime | None:
    """The end of the newest hour that is past its retention: no event before it is accepted any more."""
    row = connection.execute(
        "SELECT greatest((SELECT max(hour) FROM ledger.expired_file), (SELECT max(hour) FROM ledger.expired_hour))"
        " + interval '1 hour'"
    ).fetchone()
    return row[0] if row else None


FULL_HOUR_BYTES = 2**62
"""An hour that holds so many takes no more events: every sum of an hour stays within 64 bits.

No network comes near: it is 1,000 times the world's mobile traffic. The other half of what 64 bits hold is for the two
micro-batches that may be under way when an hour gets there; one holds at most 2^56 bytes.
"""


def full_hours(connection: psycopg.Connection) -> list[datetime]:
    """The hours that hold `FULL_HOUR_BYTES` or more, ascending; nearly always none."""
    # The number as it stands in the index `hour_full`.
    rows = connection.execute("SELECT hour FROM ledger.hour WHERE bytes >= 4611686018427387904 ORDER BY hour")
    return [hour for (hour,) in rows.fetchall()]


def _hour_expired(hour: datetime) -> HourExpired:
    return HourExpired(
        f"the landed files of {hour_key(hour)} are past the horizon and were swept: the hour stays as it is published "
        "and is not built again from a part of itself"
    )


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


_TO_PUBLISH = """
    WITH todo AS (
        SELECT hour, generation, up_to_batch FROM ledger.hour_state WHERE closed_at IS NOT NULL AND NOT published
    ), asked AS (
        (SELECT * FROM todo ORDER BY hour LIMIT %s)
        UNION SELECT * FROM todo WHERE hour = (SELECT max(hour) FROM ledger.hour WHERE closed_at IS NOT NULL)
    )
    SELECT hour, generation,
        coalesce((SELECT max(batch) FROM ledger.file WHERE file.hour = asked.hour), up_to_batch, 0) AS up_to_batch
    FROM asked ORDER BY hour
"""


def hours_to_publish(connection: psycopg.Connection, *, limit: int) -> list[HourToPublish]:
    """The oldest `limit` closed hours that are dirty or not wholly published, and the newest closed one if it is; ascending.

    What it means to be wholly published is said once, in the view `ledger.hour_state`.
    """
    with connection.cursor(row_factory=class_row(HourToPublish)) as cursor:
        return cursor.execute(_TO_PUBLISH, [limit]).fetchall()


def wholly_published(connection: psycopg.Connection, hour: datetime) -> bool:
    """Whether nothing is left to do for an hour."""
    row = connection.execute("SELECT published FROM ledger.hour_state WHERE hour = %s", [hour]).fetchone()
    return row is not None and row[0]
