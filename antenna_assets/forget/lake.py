"""A user's id in the lake: which files have it, and writing these anew without it.

Files that the ledger or a table names are replaced by others, never changed.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

from antenna_assets.certificate import publications
from antenna_assets.contents import files_content
from antenna_assets.delta_litter import LOG, recent_files
from antenna_assets.engines.contract import Dataset, Engine
from antenna_assets.engines.output import new_folder
from antenna_assets.errors import AntennaError, Superseded
from antenna_assets.forget.identity import IDENTITY, Identity
from antenna_assets.forget.spelled import replaced
from antenna_assets.hours import EPOCH, hour_key
from antenna_assets.lake import SCRATCH, Lake
from antenna_assets.lake_files import lake_path, name_within, reason_of
from antenna_assets.ledger import Publication, begin_publication, end_superseded, record_publication
from antenna_assets.litter import everything_under, remove_files, remove_tree
from antenna_assets.orphans import LANDING
from antenna_assets.schema import HOUR_PARTITION, LAKE_TABLES, LANDED
from antenna_assets.streaming.landed import REJECTED_FOLDER
from antenna_assets.verify.parquet import Parquet

if TYPE_CHECKING:
    from antenna_assets.lake_files import LakePath

RUN = "forget-user"
"""In place of a run's id, in publications that forgetting a user made."""


@dataclass(frozen=True)
class Swap:
    """A landed or rejected file, and the one in its place; paths are relative to the lake's root."""

    old: str
    new: str
    size: int


def files_with(lake: Lake, users: Sequence[str]) -> dict[str, int]:
    """The files anywhere in the lake that have one of these ids, and in how many rows; paths are relative to its root.

    Raises:
        AntennaError: a file cannot be read, so that nobody knows.
    """
    root = lake_path(lake.root)
    found: dict[str, int] = {}
    for folder in (LANDING, SCRATCH, *LAKE_TABLES):
        files = [one.path for one in everything_under(root / folder) if one.path.suffix == ".parquet"]
        paths = sorted(name_within(root, path) for path in files if LOG not in path.parts)
        if folder == SCRATCH:  # What a run hands to its engine: users, and things that are none.
            paths = [path for path in paths if "id" in _columns(root / path)]
        found |= rows_with(lake, paths, users)
    return found


def _columns(path: "LakePath") -> list[str]:
    with path.open("rb") as file:
        return pq.read_schema(file).names


def rows_with(lake: Lake, paths: Sequence[str], users: Sequence[str]) -> dict[str, int]:
    """Those of the files that have one of these ids, and in how many rows. The files are all landed, or all of one table.

    Raises:
        AntennaError: a file cannot be read, so that nobody knows.
    """
    root = lake_path(lake.root)
    rejected = [path for path in paths if _is_rejected(path)]
    events = [str(root / path) for path in paths if not _is_rejected(path)]
    with closing(Parquet()) as parquet:
        try:
            rows = parquet.rows(
                "SELECT filename, count(*) FROM read_parquet($1, filename = true, hive_partitioning = false)"
                " WHERE id IN (SELECT unnest($2)) GROUP BY filename",
                events,
                list(users),
            )
            found = {path.removeprefix(f"{lake.root}/"): count for path, count in rows}
            found |= {path: count for path in rejected if (count := _rejected_rows(root / path, users))}
        except parquet.errors as error:
            reason = reason_of(error)
            raise AntennaError(
                f"the lake cannot be searched: {reason}; if a run or a sweep has just removed the file, try again"
            ) from error
    return found


def _is_rejected(path: str) -> bool:
    return path.startswith(f"{LANDING}/") and path.split("/")[2] == REJECTED_FOLDER


def _rejected_rows(path: "LakePath", users: Sequence[str]) -> int:
    with path.open("rb") as file:
        values = pq.read_table(file, columns=["value"])["value"].to_pylist()
    return sum(_without(value, user, "") != value for value in values for user in users)


def _without(value: bytes | None, old: str, new: str) -> bytes | None:
    return None if value is None else replaced(value, old, new)


def write_without(lake: Lake, engine: Engine, path: str, identity: Identity, identity_file: str) -> Swap:
    """Write a landed or rejected file anew, with the pseudonym. What an earlier try left there goes."""
    root = lake_path(lake.root)
    source, target = root / path, root / place_without(path, identity)
    remove_tree(target.parent, within=root / LANDING)
    if _is_rejected(path):
        with source.open("rb") as file:
            table = pq.read_table(file)
        values = [_without(value, identity.id, identity.pseudonym) for value in table["value"].to_pylist()]
        index = table.schema.get_field_index("value")
        changed = table.set_column(index, table.schema.field(index), pa.array(values, pa.binary()))
        with new_folder(str(target.parent)), target.open("wb") as file:
            pq.write_table(changed, file, compression="zstd")
    else:
        inputs = {"usage": Dataset([str(source)], LANDED), "identity": Dataset([identity_file], IDENTITY)}
        (written,) = engine.write(_select(LANDED), inputs, LANDED, str(target.parent))
        if written.path != str(target):
            raise AntennaError(f"expected the engine to write {target}, found {written.path}")
    return Swap(path, name_within(root, target), target.stat().st_size)


def place_without(path: str, identity: Identity) -> str:
    """Where the file goes that takes this one's place: known from the path, so that a later run finds both."""
    landing, attempt, *rest = path.removesuffix(".parquet").split("/")
    return "/".join([landing, f"{attempt}-{identity.pseudonym}", *rest, "part-0.parquet"])


def replace_hours(
    connection: psycopg.Connection,
    lake: Lake,
    engine: Engine,
    hour: datetime,
    identity_file: str,
) -> None:
    """Replace an hour of both tables of the lake by the same rows with the pseudonym, at the generation that it has.

    Raises:
        Superseded: a run published a newer generation meanwhile; nothing was changed.
    """
    for table, schema in LAKE_TABLES.items():
        if not lake.hour(table, hour).files:
            continue
        # Before the files are read that are written anew: a run that began earlier does not bring the user back.
        attempt = begin_publication(connection, table, hour, None)
        snapshot = lake.hour(table, hour)
        if snapshot.generation is None:
            raise AntennaError(f"{table} has lost {hour_key(hour)} meanwhile; forget the user again")
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
            end_superseded(connection, table, hour, attempt)
            raise
        # A run that died before it recorded its files, or those of other users, is run again with what landed.
        before = publications(connection, hour, snapshot.generation).get(table)
        if before is None or before["users_version"] != snapshot.tags.get("users_version"):
            continue
        content = {**(before["content"] or {}), "files": files_content(lake.location(table), files)}
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
    """The rows of `usage`, with the pseudonym where they are of the user. An unknown user gets no name and no e-mail."""
    changed = {
        "id": "coalesce(identity.new_id, usage.id) AS id",
        "name": "CASE WHEN usage.name IS NULL THEN NULL ELSE coalesce(identity.new_name, usage.name) END AS name",
        "email": "CASE WHEN usage.email IS NULL THEN NULL ELSE coalesce(identity.new_email, usage.email) END AS email",
    }
    columns = ", ".join(changed.get(name, f"usage.{name}") for name in schema.names)
    return f"SELECT {columns} FROM usage LEFT JOIN identity ON usage.id = identity.id"  # noqa: S608


def hours_with(lake: Lake, users: Sequence[str]) -> set[datetime]:
    """The hours of which the newest version of a table has one of these users."""
    found = set()
    for table in LAKE_TABLES:
        paths = [f"{table}/{path}" for path in sorted(lake.paths(table))]
        for path in rows_with(lake, paths, users):
            values = dict(part.split("=") for part in path.split("/") if "=" in part)
            year, month, day, hour = (int(values[name]) for name in HOUR_PARTITION)
            found.add(datetime(year, month, day, hour, tzinfo=UTC))
    return found


def remove_replaced(
    connection: psycopg.Connection, lake: Lake, paths: Sequence[str], identity: Identity
) -> None:
    """Remove those of the files that were replaced, or are past their time.

    An older version of a table cannot be read any more for the hours that are changed. A file that nothing has named
    yet may be of a run under way, and stays.
    """
    root = lake_path(lake.root)
    named = {table: recent_files(root / table, EPOCH) - lake.paths(table) for table in LAKE_TABLES}
    rows = connection.execute(
        "SELECT path FROM ledger.file WHERE path = ANY(%(new)s)"
        " UNION ALL SELECT path FROM ledger.expired_file WHERE path = ANY(%(old)s)",
        {
            "old": list(paths),
            "new": [place_without(path, identity) for path in paths if path.startswith(LANDING)],
        },
    ).fetchall()
    gone = {path for (path,) in rows}
    going = []
    for path in paths:
        folder, _, within = path.partition("/")
        if folder in LAKE_TABLES:
            goes = within in named[folder]
        else:
            goes = path in gone or (folder == LANDING and place_without(path, identity) in gone)
        if goes:
            going.append(root / path)
    remove_files(going)
