"""Rewriting the files of the lake that hold a user's id, with the pseudonym.

Files that the ledger or a table references are replaced by new ones, never changed. The search is in
`lake_search.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

from antenna_assets.domain.hours import EPOCH, hour_key
from antenna_assets.domain.schema import LAKE_TABLES, LANDED_SCHEMA
from antenna_assets.engines.contract import Dataset, Engine
from antenna_assets.engines.output import new_folder
from antenna_assets.errors import AntennaError, Superseded
from antenna_assets.ledger.certificate import publications
from antenna_assets.ledger.publications import (
    Publication,
    abandon_publication,
    begin_publication,
    record_publication,
)
from antenna_assets.operations.forget.identity import IDENTITY
from antenna_assets.operations.forget.lake_search import DROPPED, DROPPED_FOR, REWRITTEN, is_rejected
from antenna_assets.operations.forget.replace_text import Search
from antenna_assets.operations.sweep.orphans import LANDING
from antenna_assets.publishing.delta_files import recent_files
from antenna_assets.publishing.digests import files_manifest
from antenna_assets.publishing.lake import Lake
from antenna_assets.storage.attempt import attempt_folder
from antenna_assets.storage.files import remove_files, remove_if_empty
from antenna_assets.storage.parquet_file import read_table
from antenna_assets.storage.paths import lake_path, name_within

RUN = "forget-user"
"""The run id of publications that forgetting a user made."""


@dataclass(frozen=True)
class Swap:
    """A landed or rejected file and its replacement; paths are relative to the lake's root.

    Attributes:
        dropped: rejected messages that were dropped from it.
    """

    old: str
    new: str
    size: int
    dropped: int = 0


def write_without(
    lake: Lake, engine: Engine, path: str, search: Search, identity_file: str, *, drop: bool
) -> Swap:
    """Rewrite a landed or rejected file with the pseudonym, into a folder that nothing else uses.

    Args:
        drop: replace messages that cannot be judged by a text that says so.
    """
    root = lake_path(lake.root)
    _, attempt, *rest = path.removesuffix(".parquet").split("/")
    source = root / path
    target = root / "/".join([attempt_folder(int(attempt.split("-")[0])), *rest, "part-0.parquet"])
    dropped = 0
    if is_rejected(path):
        table = read_table(source)
        changed, dropped = _without_user(table, search, drop=drop)
        with new_folder(str(target.parent)), target.open("wb") as file:
            pq.write_table(changed, file, compression="zstd")
    else:
        inputs = {
            "usage": Dataset([str(source)], LANDED_SCHEMA),
            "identity": Dataset([identity_file], IDENTITY),
        }
        (written,) = engine.write(_select(LANDED_SCHEMA), inputs, LANDED_SCHEMA, str(target.parent))
        if written.path != str(target):
            raise AntennaError(f"expected the engine to write {target}, found {written.path}")
    return Swap(path, name_within(root, target), target.stat().st_size, dropped)


def _without_user(table: pa.Table, search: Search, *, drop: bool) -> tuple[pa.Table, int]:
    """Return rejected messages without the user, and how many were dropped. Rows keep their place and
    reason."""
    values, details, dropped = [], [], 0
    for value, detail in zip(table["value"].to_pylist(), table["detail"].to_pylist(), strict=True):
        if value is None or value == DROPPED:
            values.append(value)
            details.append(detail)
            continue
        judged = search.judge(value)
        # The rest is judged again: a message may hold the id in one place and be unclear in another.
        unclear = search.judge(judged.value).unclear
        if drop and unclear is not None:
            value, detail = DROPPED, DROPPED_FOR + unclear
            dropped += 1
        elif judged.found or (detail is not None and search.judge(detail.encode()).found):
            # The detail quotes the message, perhaps a part of the id.
            value, detail = judged.value, REWRITTEN
        values.append(value)
        details.append(detail)
    for name, column in (
        ("value", pa.array(values, pa.binary())),
        ("detail", pa.array(details, pa.string())),
    ):
        index = table.schema.get_field_index(name)
        table = table.set_column(index, table.schema.field(index), column)
    return table, dropped


def replace_hours(
    connection: psycopg.Connection,
    lake: Lake,
    engine: Engine,
    hour: datetime,
    identity_file: str,
) -> None:
    """Replace an hour of both lake tables by the same rows with the pseudonym, at its present generation.

    Raises:
        Superseded: a run published a newer generation meanwhile; nothing was changed.
    """
    for table, schema in LAKE_TABLES.items():
        if not lake.hour(table, hour).files:
            continue
        # Before the files are read: a run that began earlier cannot bring the user back.
        attempt = begin_publication(connection, table, hour, None)
        snapshot = lake.hour(table, hour)
        if snapshot.generation is None:
            raise AntennaError(f"{table} lost {hour_key(hour)} meanwhile; forget the user again")
        inputs = {"usage": Dataset(snapshot.files, schema), "identity": Dataset([identity_file], IDENTITY)}
        folder = lake.new_folder(table, hour, snapshot.generation)
        files = engine.write(_select(schema), inputs, schema, folder)
        try:
            version = lake.replace_hour(
                table,
                hour,
                snapshot.generation,
                files,
                tags=snapshot.tags,
                metadata={"reason": RUN},
                attempt=attempt,
            )
        except Superseded:
            abandon_publication(connection, table, hour, attempt)
            raise
        # A run that was killed before it recorded these files, or used other users, is run again from what
        # landed.
        before = publications(connection, {hour: snapshot.generation})[hour].get(table)
        if before is None or before["users_version"] != snapshot.tags.get("users_version"):
            continue
        content = {**(before["content"] or {}), "files": files_manifest(lake.location(table), files)}
        with connection.transaction():
            record_publication(
                connection,
                Publication(
                    table,
                    hour,
                    snapshot.generation,
                    before["rows"],
                    before["bytes"],
                    before["users_version"],
                    RUN,
                    version,
                    content,
                    attempt,
                    snapshot.table_id,
                ),
            )


def _select(schema: pa.Schema) -> str:
    """Return the SQL for the rows of `usage` with the pseudonym. An unknown user gets no name and no
    e-mail."""
    known = "CASE WHEN usage.{0} IS NULL THEN NULL ELSE coalesce(identity.new_{0}, usage.{0}) END AS {0}"
    changed = {
        "id": "coalesce(identity.new_id, usage.id) AS id",
        "name": known.format("name"),
        "email": known.format("email"),
    }
    columns = ", ".join(changed.get(name, f"usage.{name}") for name in schema.names)
    return f"SELECT {columns} FROM usage LEFT JOIN identity ON usage.id = identity.id"  # noqa: S608


def remove_replaced(
    connection: psycopg.Connection, lake: Lake, found: Mapping[str, datetime], *, before: datetime
) -> None:
    """Remove the files with the user that are no longer needed.

    - In landing: files that were replaced or have expired. Another one may belong to a batch or a merge in
      progress.
    - In the tables: files that the newest version does not reference. Older versions of the changed hours are
      unreadable afterwards.
    - Attempts of runs in the tables, and files in scratch, if they are older than the fence: those runs
      cannot commit.

    Args:
        found: the files with the user, and when each was written.
        before: an instant by the same clock, before the fence was raised.
    """
    root = lake_path(lake.root)
    # Files that were merged into others have their readers, unless the user is in them.
    replaced = {
        path
        for (path,) in connection.execute(
            "SELECT path FROM ledger.replaced_file WHERE NOT merged OR path = ANY(%s)", [list(found)]
        ).fetchall()
    }
    expired = connection.execute(
        "SELECT path FROM ledger.expired_file WHERE path = ANY(%s)", [list(found)]
    ).fetchall()
    removable = replaced | {path for (path,) in expired}
    current = {f"{table}/{path}" for table in LAKE_TABLES for path in lake.paths(table)}
    referenced = {f"{table}/{path}" for table in LAKE_TABLES for path in recent_files(root / table, EPOCH)}
    for path, changed in found.items():
        if path.split("/")[0] != LANDING and path not in current and (path in referenced or changed < before):
            removable.add(path)
    remove_files(root / path for path in sorted(removable))
    for path in sorted(removable):
        folder = (root / path).parent
        remove_if_empty(folder)
        if path.split("/")[0] == LANDING:
            remove_if_empty(folder.parent)
    connection.execute("DELETE FROM ledger.replaced_file WHERE path = ANY(%s)", [list(replaced)])
