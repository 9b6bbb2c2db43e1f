"""Merging small files: which files of `ledger.file` may become one, and the transaction that replaces them.

`streaming/merge_files.py` writes the merged file, `streaming/merger.py` decides when. Why no generation, and
no statement about a batch, changes: decision 30.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row

from antenna_assets.clients.clock import host_now
from antenna_assets.domain.hours import hour_key
from antenna_assets.domain.lifetimes import require_young
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.batch import AttemptFile
from antenna_assets.ledger.errors import LedgerError
from antenna_assets.ledger.head import lock_heads
from antenna_assets.ledger.lake_identity import require_same_lake
from antenna_assets.storage.attempt import lake_errors, require_files

FILES_PER_MERGE = (32, 8, 8)
"""How many files are merged into one: of those that landed, of those merged once, and of those merged twice.

No row is written again more than three times, and at 12,000 micro-batches an hour some 50 files are left."""

SMALL_BYTES = 2**20
SMALL_ROWS = 50_000
"""A larger file stays as it is."""

MERGED_BYTES = 8 * SMALL_BYTES
MERGED_ROWS = 8 * SMALL_ROWS
"""The most that is merged at once: what is written is held in memory."""

RECENT_BATCHES = 4_096
"""How far back rejected files are looked for; they belong to no hour that would limit them."""


class FilesChanged(LedgerError):
    """Files to merge were sealed, expired or rewritten meanwhile. Nothing was changed."""


@dataclass(frozen=True)
class Group:
    """What files must have in common to be merged.

    Attributes:
        hour: None for rejected messages.
        read: of rejected messages the hour in which they were read, None for accepted ones.
        topic_id: offsets are unique within it.
        merges: how often their rows were merged before.
        late: whether their batches were committed after the hour had closed.
        passed: whether the watermark had passed the hour by then.
    """

    hour: datetime | None
    read: datetime | None
    topic_id: str
    merges: int
    late: bool
    passed: bool


@dataclass(frozen=True)
class SmallFile:
    """A file that may be merged, as the ledger has it."""

    path: str
    rows: int
    bytes: int
    size: int
    batch: int
    hour: datetime | None
    read: datetime | None
    topic_id: str
    merges: int
    late: bool
    passed: bool

    @property
    def group(self) -> Group:
        """What it has in common with those that it may be merged with."""
        return Group(self.hour, self.read, self.topic_id, self.merges, self.late, self.passed)


# Only batches of the stream: the rows of a replay have coordinates that its batch does not cover. The topic's
# id is that of any of the batch's ranges. A rejected message may be large, whatever its file's size.
_SMALL = """
    SELECT file.path, file.rows, file.bytes, file.size, file.batch, file.hour, file.merges,
        of_batch.topic_id, of_file.read, of_file.late, of_file.passed
    FROM ledger.file JOIN ledger.batch USING (batch)
    LEFT JOIN ledger.hour ON hour.hour = file.hour
    LEFT JOIN ledger.hour_generation AS sealed
        ON (sealed.hour, sealed.generation) = (hour.hour, hour.generation)
    CROSS JOIN LATERAL
        (SELECT topic_id FROM ledger.batch_offset WHERE batch_offset.batch = file.batch LIMIT 1) AS of_batch
    CROSS JOIN LATERAL (SELECT
        CASE WHEN file.hour IS NULL
            THEN date_bin('1 hour', batch.committed_at, '2000-01-01 00:00:00+00'::timestamptz) END AS read,
        coalesce(batch.committed_at > hour.closed_at, false) AS late,
        coalesce(batch.low_watermark >= hour.hour + interval '1 hour', false) AS passed
    ) AS of_file
    WHERE batch.kind = 'stream' AND file.batch > coalesce(sealed.up_to_batch, 0) AND file.merges < %(most)s
        AND file.size < %(size)s AND file.rows < %(rows)s
        AND (file.kind = 'landed' OR file.bytes < %(size)s)
"""

_OF_HOUR = f"{_SMALL} AND file.kind = 'landed' AND file.hour = %(hour)s ORDER BY file.batch, file.path"
_REJECTED = f"{_SMALL} AND file.kind = 'rejected' AND file.batch > %(after)s ORDER BY file.batch, file.path"
_NAMED = f"{_SMALL} AND file.path = ANY(%(paths)s) ORDER BY file.batch, file.path"


def small_files(connection: psycopg.Connection, hour: datetime | None) -> list[SmallFile]:
    """The files of an hour that may be merged, by batch and path: those beyond its newest generation.

    Args:
        hour: None for the rejected files of the newest batches.
    """
    if hour is not None:
        return _small(connection, _OF_HOUR, hour=hour)
    return _small(connection, _REJECTED, after=_newest_batch(connection) - RECENT_BATCHES)


def files_waiting(connection: psycopg.Connection) -> dict[datetime | None, int]:
    """How many files of the newest batches are not merged, by hour; under None those of rejected messages."""
    return dict(
        connection.execute(
            "SELECT hour, count(*) FROM ledger.file WHERE batch > %s AND merges = 0 GROUP BY hour",
            [_newest_batch(connection) - RECENT_BATCHES],
        ).fetchall()
    )


def files_to_merge(found: Sequence[SmallFile]) -> list[SmallFile]:
    """The first files to merge into one, those that were merged least; none if no group has enough of them.

    Args:
        found: by batch.
    """
    groups: defaultdict[Group, list[SmallFile]] = defaultdict(list)
    for file in found:
        groups[file.group].append(file)
    for group, files in sorted(groups.items(), key=lambda one: one[0].merges):
        if len(files) >= FILES_PER_MERGE[group.merges]:
            return _at_once(files)
    return []


def _at_once(files: Sequence[SmallFile]) -> list[SmallFile]:
    """As many of the files, from the first on, as may be merged at once: several, as each is small."""
    rows = size = value_bytes = 0
    for number, file in enumerate(files):
        rows, size = rows + file.rows, size + file.size
        # The bytes of accepted events are a sum over what was transferred, not a size.
        value_bytes += file.bytes if file.hour is None else 0
        if rows > MERGED_ROWS or size > MERGED_BYTES or value_bytes > MERGED_BYTES:
            return list(files[:number])
    return list(files)


def commit_merge(
    connection: psycopg.Connection,
    lake: str,
    files: Sequence[SmallFile],
    merged: AttemptFile,
    *,
    begun: datetime,
    before_commit: Callable[[], None] = lambda: None,
) -> None:
    """Replace the ledger's rows of small files by that of the file into which they were merged.

    The merged file is on the disk, and was read back, before it begins. Within the transaction:

    1. Lock the ledger's head: no batch commits meanwhile, no user's rows are swapped, and a sweep waits.
    2. Require that the merged file is there, in the ledger's own lake.
    3. Lock the hour: none of its generations is sealed meanwhile.
    4. Require that the files still are what they were, and beyond the newest generation.
    5. Replace their rows. The files stay for a grace period, then a sweep removes them.

    Args:
        files: by batch, from `files_to_merge`.
        begun: when the merged file was begun, by the clock of this host.
        before_commit: called when only the COMMIT is left.

    Raises:
        FilesChanged: another process was faster.
        AttemptTooOld: the merged file was begun so long ago that a sweep may have removed it, or is missing.
        WrongLake: the lake no longer belongs to this ledger.
            After each of these, nothing was written.
    """
    paths = [file.path for file in files]
    with connection.transaction():
        # 1. Lock the head.
        lock_heads(connection)
        # 2. The merged file is there.
        require_young(f"the merge into {merged.path}", begun=begun, now=host_now())
        with lake_errors(lake):
            require_same_lake(connection, lake)
            require_files(lake, {merged.path: merged.size})
        # 3. Lock the hour.
        connection.execute("SELECT FROM ledger.hour WHERE hour = %s FOR UPDATE", [merged.hour])
        # 4. The files are what they were.
        if _small(connection, _NAMED, paths=paths) != list(files):
            where = "rejected messages" if merged.hour is None else hour_key(merged.hour)
            raise FilesChanged(
                f"{len(files)} small files of {where} are no longer to be merged: they were sealed, expired "
                "or rewritten meanwhile, so nothing was changed"
            )
        # 5. Replace their rows.
        connection.execute(_REPLACE, {"paths": paths, "path": merged.path, "size": merged.size})
        connection.execute("UPDATE ledger.head SET merges = merges + 1")
        commit_point("stream.merge.last_statement")
        before_commit()
    commit_point("stream.merge.committed")


_REPLACE = """
    WITH replaced AS (DELETE FROM ledger.file WHERE path = ANY(%(paths)s) RETURNING *),
    noted AS (INSERT INTO ledger.replaced_file (path, merged) SELECT path, true FROM replaced)
    INSERT INTO ledger.file (path, kind, hour, rows, bytes, size, batch, merges, batches)
    SELECT %(path)s, min(kind), min(hour), sum(rows), sum(bytes), %(size)s, max(batch), max(merges) + 1,
        range_agg(coalesce(batches, int8multirange(int8range(batch, batch, '[]'))))
    FROM replaced
"""


def _small(connection: psycopg.Connection, query: str, **values: object) -> list[SmallFile]:
    limits = {"most": len(FILES_PER_MERGE), "size": SMALL_BYTES, "rows": SMALL_ROWS}
    with connection.cursor(row_factory=class_row(SmallFile)) as cursor:
        return cursor.execute(query.encode(), {**limits, **values}).fetchall()


def _newest_batch(connection: psycopg.Connection) -> int:
    return connection.execute("SELECT coalesce(max(batch), 0) FROM ledger.head").fetchall()[0][0]
