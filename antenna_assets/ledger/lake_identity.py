"""The identity of a lake: a random id in lake and ledger, compared before anything is written or swept.

The first writer claims a lake for its ledger; a person may adopt another one.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import psycopg

from antenna_assets.clients.advisory_locks import CLAIM, locked
from antenna_assets.domain.schema import LAKE_TABLES
from antenna_assets.errors import AntennaError
from antenna_assets.failpoints import commit_point
from antenna_assets.settings import is_local
from antenna_assets.storage.atomic_files import create_file
from antenna_assets.storage.files import remove_files, walk
from antenna_assets.storage.paths import file_errors, lake_path, reason_of, require_store

if TYPE_CHECKING:
    from antenna_assets.storage.paths import LakePath

ID_FILE = "lake-id"
"""The file at the lake's root with the id; a backup of the lake contains it."""

# How many of the oldest and of the newest files are checked to see whether a ledger's files are in a lake.
_SAMPLE = 5
_FOLDERS = ("landing", *LAKE_TABLES)
_ADOPT = "if this is the right lake, `antenna adopt-lake` shows what it lacks and binds it to this database"


class WrongLake(AntennaError):
    """The lake and the ledger do not belong together. Nothing was written or removed."""


@dataclass(frozen=True)
class ClaimedLake:
    """The ledger's record of its lake: `place` is its root; an interrupted claim is not `confirmed`."""

    id: str
    place: str
    confirmed: bool


@dataclass(frozen=True)
class Evidence:
    """A sample of the files that the ledger names, and how many of them are in the lake."""

    named: int
    found: int


def require_own_lake(connection: psycopg.Connection, lake: str) -> None:
    """Require that the lake is the ledger's. An unclaimed lake is claimed, if the ledger's files are in it.

    Concurrent claims are serialized. A claim that a crash interrupted is completed by the next one.

    Raises:
        WrongLake: the lake is another ledger's, or the ledger's is another one.
    """
    known, found = claimed_lake(connection), id_of_lake(lake)
    if known is not None and known.confirmed and known.id == found:
        return
    with locked(connection, CLAIM):
        known, found = claimed_lake(connection), id_of_lake(lake)
        _require_fit(connection, lake, known, found)
        if known is not None and known.confirmed:
            return
        if found is not None and (known is None or known.id != found):
            # The ledger was restored from a backup before its claim, and its files are here.
            _record(connection, ClaimedLake(found, lake, confirmed=False))
        elif known is None or known.id != found:
            # An interrupted claim may have written its id into another lake, so it is not reused.
            known = ClaimedLake(str(uuid4()), lake, confirmed=False)
            _record(connection, known)
            commit_point("claim.recorded")
            if not create_file(lake_path(lake) / ID_FILE, f"{known.id}\n"):
                raise WrongLake(f"the lake {lake} has just been claimed by another ledger; {_ADOPT}")
            commit_point("claim.lake_written")
        connection.execute("UPDATE ledger.lake SET claimed_at = clock_timestamp(), place = %s", [lake])


def require_matching_lake(connection: psycopg.Connection, lake: str) -> None:
    """Like `require_own_lake`, but leaves an unclaimed lake unclaimed.

    Raises:
        WrongLake: the lake is another ledger's, or the ledger's is another one.
    """
    _require_fit(connection, lake, claimed_lake(connection), id_of_lake(lake))


def require_same_lake(connection: psycopg.Connection, lake: str) -> None:
    """Require that the lake still has the ledger's id; a cheap check for a writer that has claimed it before.

    Raises:
        WrongLake: it has another id, or none.
    """
    known, found = claimed_lake(connection), id_of_lake(lake)
    if (known.id if known is not None else None) != found:
        raise _wrong(lake, known, found)


def adopt(connection: psycopg.Connection, lake: str) -> None:
    """Bind the lake to the ledger with a new id, whatever either was bound to; older copies then differ.

    Call it only while nothing writes.
    """
    with locked(connection, CLAIM):
        known = ClaimedLake(str(uuid4()), lake, confirmed=False)
        _record(connection, known)
        commit_point("adopt.recorded")
        path = lake_path(lake) / ID_FILE
        remove_files([path])
        if not create_file(path, f"{known.id}\n"):
            raise WrongLake(f"the lake {lake} has just been claimed by another ledger; adopt it again")
        commit_point("adopt.lake_written")
        connection.execute("UPDATE ledger.lake SET claimed_at = clock_timestamp()")


def evidence(connection: psycopg.Connection, lake: str) -> Evidence:
    """Check a sample of the ledger's files in the lake."""
    root = lake_path(lake)
    paths = _sample(connection)
    return Evidence(len(paths), sum((root / path).exists() for path in paths))


def id_of_lake(lake: str) -> str | None:
    """The id in the lake; None if it has none.

    Raises:
        WrongLake: it cannot be read, or is not an id.
        StoreError: the lake's object store does not answer or denies access.
    """
    path = lake_path(lake) / ID_FILE
    try:
        text = path.read_text(encoding="utf-8").strip()
        return str(UUID(text))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        raise WrongLake(
            f"{path} holds no id: expected a line such as {uuid4()}, found {text[:50]!r}; {_ADOPT}"
        ) from None
    except file_errors() as error:
        if not is_local(lake):
            # A store denies a read without a reason, and a listing with it.
            require_store(lake)
        raise WrongLake(f"{path} cannot be read: {reason_of(error)}") from error


def _require_fit(
    connection: psycopg.Connection, lake: str, known: ClaimedLake | None, found: str | None
) -> None:
    if known is not None and known.id == found:
        return
    if known is not None and known.confirmed:
        raise _wrong(lake, known, found)
    # The ledger has no lake yet: the files decide whether they belong together.
    seen = evidence(connection, lake)
    if found is not None and not seen.found:
        raise _wrong(lake, known, found)
    if seen.named and not seen.found:
        raise WrongLake(
            f"the lake {lake} has none of the ledger's files ({seen.named} were checked): expected the lake "
            "in which they landed; set ANTENNA_LAKE to it, or ANTENNA_POSTGRES_URL to the database of this "
            f"lake; {_ADOPT}"
        )
    if not seen.named and (name := _data(lake_path(lake))) is not None:
        raise WrongLake(
            f"the lake {lake} holds data, such as {name}, and the ledger names no file: expected an empty "
            f"lake, or the database of this lake; correct ANTENNA_POSTGRES_URL or ANTENNA_LAKE; {_ADOPT}"
        )


def _wrong(lake: str, known: ClaimedLake | None, found: str | None) -> WrongLake:
    found_lake = f"found {lake} with the id {found}" if found else f"found {lake}, which has no id"
    if known is None or not known.confirmed:
        expected = "the ledger has no lake yet and expected one that no other ledger has claimed"
    else:
        expected = f"the ledger expected its lake {known.id}, which was claimed at {known.place}"
    return WrongLake(
        f"lake and ledger do not belong together: {expected}, but {found_lake}; correct ANTENNA_LAKE or "
        f"ANTENNA_POSTGRES_URL, which must be the same for every service; {_ADOPT}"
    )


def claimed_lake(connection: psycopg.Connection) -> ClaimedLake | None:
    """The lake that the ledger has claimed; None before the first claim."""
    row = connection.execute("SELECT id, place, claimed_at IS NOT NULL FROM ledger.lake").fetchone()
    return None if row is None else ClaimedLake(*row)


def _record(connection: psycopg.Connection, known: ClaimedLake) -> None:
    connection.execute(
        "INSERT INTO ledger.lake (id, place) VALUES (%s, %s) ON CONFLICT (only_row) DO UPDATE"
        " SET id = excluded.id, place = excluded.place, claimed_at = NULL",
        [known.id, known.place],
    )


def _sample(connection: psycopg.Connection) -> list[str]:
    """A sample of the ledger's files: paths relative to the lake's root."""
    landed = [
        path
        for order in ("", "DESC")
        for (path,) in connection.execute(
            f"SELECT path FROM ledger.file ORDER BY batch {order} LIMIT {_SAMPLE}"  # noqa: S608
        )
    ]
    if not landed:
        landed = [
            path
            for (path,) in connection.execute(
                "SELECT path FROM ledger.expired_file WHERE removed_at IS NULL LIMIT %s", [_SAMPLE]
            )
        ]
    if landed:
        return list(dict.fromkeys(landed))
    # All landed files are past the horizon; published ones stay.
    rows = connection.execute(
        "SELECT asset, content->'files' FROM ledger.publication"
        " WHERE lake_version IS NOT NULL AND content->'files' <> '[]' ORDER BY number DESC LIMIT %s",
        [_SAMPLE],
    ).fetchall()
    return [f"{asset}/{file['path']}" for asset, files in rows for file in files]


def _data(root: "LakePath") -> str | None:
    """A file of events or of a table's log under the root; None if there is none."""
    for folder in _FOLDERS:
        for one in walk(root / folder):
            if one.path.suffix == ".parquet" or (one.path.suffix == ".json" and not one.is_folder):
                return str(one.path)
    return None
