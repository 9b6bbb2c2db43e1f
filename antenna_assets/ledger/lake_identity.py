"""Which lake and which ledger belong together: one random id in both, compared by whatever writes or sweeps.

The first writer claims a lake for its ledger; a person may adopt another one. What is in the files is no matter of this.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg

from antenna_assets.domain.schema import LAKE_TABLES
from antenna_assets.errors import AntennaError
from antenna_assets.failpoints import commit_point
from antenna_assets.settings import is_local
from antenna_assets.storage.files import everything_under, remove_files
from antenna_assets.storage.paths import StoreError, file_errors, lake_path, reason_of, require_store, sync

if TYPE_CHECKING:
    from antenna_assets.storage.paths import LakePath

ID_FILE = "lake-id"
"""At the lake's root; a backup of the lake has it, too."""

_CLAIM_LOCK = 0x636C61696D
# So many of the oldest and of the newest files show whether a ledger's files are in a lake.
_SAMPLE = 5
_FOLDERS = ("landing", *LAKE_TABLES)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_ADOPT = "if this very lake is meant, `antenna adopt-lake` says what it lacks and binds it to this database"


class WrongLake(AntennaError):
    """This lake is not the one that the ledger is about; the message says what was expected and found. Nothing was
    written or removed."""


@dataclass(frozen=True)
class Known:
    """What the ledger knows of its lake. `place` is where it was when it was claimed; an id that is not `confirmed` is of
    a claim that did not come to its end."""

    id: str
    place: str
    confirmed: bool


@dataclass(frozen=True)
class Evidence:
    """Files that the ledger names, and how many of them are in the lake: the oldest and the newest few."""

    named: int
    found: int


def require_own_lake(connection: psycopg.Connection, lake: str) -> None:
    """Stop unless the lake is the ledger's. One that nobody has claimed is claimed for it, if the ledger's files are there.

    Of two that claim at once one waits for the other. Whoever dies in between leaves a claim that the next one finishes.

    Raises:
        WrongLake: the lake is another ledger's, or the ledger's is another one.
    """
    known, found = _known(connection), found_id(lake)
    if known is not None and known.confirmed and known.id == found:
        return
    with _claiming(connection):
        known, found = _known(connection), found_id(lake)
        _require_fit(connection, lake, known, found)
        if known is not None and known.confirmed:
            return
        if found is not None and (known is None or known.id != found):
            # The ledger is a backup from before it had an id: its files are here.
            _record(connection, Known(found, lake, confirmed=False))
        elif known is None or known.id != found:
            # Another claim may have come as far as another lake: its id is not used again.
            known = Known(str(uuid4()), lake, confirmed=False)
            _record(connection, known)
            commit_point("claim.recorded")
            if not _write_once(lake_path(lake) / ID_FILE, known.id):
                raise WrongLake(f"the lake {lake} was claimed by another ledger in this moment; {_ADOPT}")
            commit_point("claim.lake_written")
        connection.execute("UPDATE ledger.lake SET claimed_at = clock_timestamp(), place = %s", [lake])


def require_not_anothers(connection: psycopg.Connection, lake: str) -> None:
    """As `require_own_lake`, for those who leave no mark: a lake that nobody has claimed stays so.

    Raises:
        WrongLake: the lake is another ledger's, or the ledger's is another one.
    """
    _require_fit(connection, lake, _known(connection), found_id(lake))


def require_same_lake(connection: psycopg.Connection, lake: str) -> None:
    """Stop if the lake has another id than the ledger: what a writer asks that had claimed it before. Cheap.

    Raises:
        WrongLake: it has another one, or none any more.
    """
    known, found = _known(connection), found_id(lake)
    if (known.id if known is not None else None) != found:
        raise _wrong(lake, known, found)


def adopt(connection: psycopg.Connection, lake: str) -> None:
    """Bind the lake to the ledger with a new id, whatever either was bound to. Another copy of either fits no more.

    Ask only while nothing writes.
    """
    with _claiming(connection):
        known = Known(str(uuid4()), lake, confirmed=False)
        _record(connection, known)
        commit_point("adopt.recorded")
        path = lake_path(lake) / ID_FILE
        remove_files([path])
        if not _write_once(path, known.id):
            raise WrongLake(f"the lake {lake} was claimed by another ledger in this moment; adopt it again")
        commit_point("adopt.lake_written")
        connection.execute("UPDATE ledger.lake SET claimed_at = clock_timestamp()")


def evidence(connection: psycopg.Connection, lake: str) -> Evidence:
    """Whether files that the ledger names are in the lake, by a sample."""
    root = lake_path(lake)
    paths = _sample(connection)
    return Evidence(len(paths), sum((root / path).exists() for path in paths))


def found_id(lake: str) -> str | None:
    """The id in the lake; None if it has none.

    Raises:
        WrongLake: it cannot be read, or is none of ours.
        StoreError: the lake's object store cannot be reached, or lets us not in.
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
            # To the question for one name a store answers without a reason, to that for a listing with it.
            require_store(lake)
        raise WrongLake(f"{path} cannot be read: {reason_of(error)}") from error


def known_lake(connection: psycopg.Connection) -> Known | None:
    """What the ledger knows of its lake; None before the first claim."""
    return _known(connection)


def _require_fit(connection: psycopg.Connection, lake: str, known: Known | None, found: str | None) -> None:
    if known is not None and known.id == found:
        return
    if known is not None and known.confirmed:
        raise _wrong(lake, known, found)
    # The ledger has no lake yet: the files must say whether they belong together.
    seen = evidence(connection, lake)
    if found is not None and not seen.found:
        raise _wrong(lake, known, found)
    if seen.named and not seen.found:
        raise WrongLake(
            f"the lake {lake} has none of the files that the ledger names ({seen.named} were looked for): expected the lake "
            f"in which they landed; set ANTENNA_LAKE to it, or ANTENNA_POSTGRES_URL to the database of this lake; {_ADOPT}"
        )
    if not seen.named and (name := _data(lake_path(lake))) is not None:
        raise WrongLake(
            f"the lake {lake} holds data, such as {name}, and the ledger names no file: expected an empty lake, or the "
            f"database of this lake; correct ANTENNA_POSTGRES_URL or ANTENNA_LAKE; {_ADOPT}"
        )


def _wrong(lake: str, known: Known | None, found: str | None) -> WrongLake:
    of_lake = f"found {lake} with the id {found}" if found else f"found {lake}, which has no id"
    if known is None or not known.confirmed:
        expected = "the ledger has no lake yet and expected one that no other ledger has claimed"
    else:
        expected = f"the ledger expected its lake {known.id}, which was claimed at {known.place}"
    return WrongLake(
        f"lake and ledger do not belong together: {expected}, but {of_lake}; correct ANTENNA_LAKE or "
        f"ANTENNA_POSTGRES_URL, which every service must have alike; {_ADOPT}"
    )


def _known(connection: psycopg.Connection) -> Known | None:
    row = connection.execute("SELECT id, place, claimed_at IS NOT NULL FROM ledger.lake").fetchone()
    return None if row is None else Known(*row)


def _record(connection: psycopg.Connection, known: Known) -> None:
    connection.execute(
        "INSERT INTO ledger.lake (id, place) VALUES (%s, %s) ON CONFLICT (only_row) DO UPDATE"
        " SET id = excluded.id, place = excluded.place, claimed_at = NULL",
        [known.id, known.place],
    )


@contextmanager
def _claiming(connection: psycopg.Connection) -> Iterator[None]:
    """One claim of a ledger at a time; the lock goes with the session."""
    connection.execute("SELECT pg_advisory_lock(%s)", [_CLAIM_LOCK])
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute("SELECT pg_advisory_unlock(%s)", [_CLAIM_LOCK])


def _sample(connection: psycopg.Connection) -> list[str]:
    """Paths of files that the ledger names, relative to the lake's root."""
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
    # All of them are past the horizon; what was published is not.
    rows = connection.execute(
        "SELECT asset, content->'files' FROM ledger.publication"
        " WHERE lake_version IS NOT NULL AND content->'files' <> '[]' ORDER BY number DESC LIMIT %s",
        [_SAMPLE],
    ).fetchall()
    return [f"{asset}/{file['path']}" for asset, files in rows for file in files]


def _data(root: "LakePath") -> str | None:
    """A file of events or of a table's log under the root, if there is one."""
    for folder in _FOLDERS:
        for one in everything_under(root / folder):
            if one.path.suffix == ".parquet" or (one.path.suffix == ".json" and not one.is_folder):
                return str(one.path)
    return None


def _write_once(path: "LakePath", text: str) -> bool:
    """Write a file that does not exist yet, whole or not at all, and bring it to the disk; False if it exists."""
    data = f"{text}\n".encode()
    if not isinstance(path, Path):
        return _put_once(path, data)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}-{uuid4().hex}")
    try:
        new.write_bytes(data)
        sync([new])
        try:
            os.link(new, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # A file system without links: nobody else claims for this ledger meanwhile.
            if path.exists():
                return False
            new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    sync([path.parent, path.parent.parent])
    return True


def _put_once(path: Any, data: bytes) -> bool:
    try:
        path.fs.pipe_file(path.path, data, mode="create")
    except FileExistsError:
        return False
    except file_errors() as error:
        # Stores say it in their own ways, and one that is away says nothing.
        with suppress(*file_errors()):
            if path.exists():
                return False
        raise StoreError(f"{path} cannot be written: {reason_of(error)}") from error
    return True
