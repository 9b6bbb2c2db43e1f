"""Paths of a lake on a disk or in an object store, with the same methods, and how DuckDB is let into a store.

On a disk a path is pathlib's, in a store it is universal_pathlib's over fsspec. What the two do differently when files are
listed, removed and synced is in `litter.py` and `engines/output.py`.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from antenna_assets.errors import AntennaError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from upath import UPath

    LakePath: TypeAlias = Path | UPath

STORES = ("s3",)
"""The object stores that are supported, by the scheme of their URIs."""

# What others write must be seen at once.
_OPTIONS: dict[str, dict[str, Any]] = {"s3": {"use_listings_cache": False}}


class StoreError(AntennaError):
    """The object store cannot be used from here; the message says what to do."""


def is_local(place: str) -> bool:
    """Whether this is a path and not a URI."""
    return "://" not in place


def lake_path(place: str) -> "LakePath":
    """A place of the lake as a path: pathlib's, or one in an object store.

    Raises:
        StoreError: there is no such store, or its package is not installed.
    """
    if is_local(place):
        return Path(place)
    from upath import UPath

    scheme = _scheme(place)
    filesystem(scheme)
    return UPath(place, **_OPTIONS.get(scheme, {}))


def name_within(folder: "LakePath", path: "LakePath") -> str:
    """A path relative to a folder that it lies in, with slashes."""
    return str(path).removeprefix(f"{folder}/")


def filesystem(scheme: str) -> Any:
    """The file system of fsspec for a store. Credentials are found as that cloud's own programs find them.

    Raises:
        StoreError: there is none, or its package is not installed.
    """
    import fsspec  # type: ignore[import-untyped]

    try:
        return fsspec.filesystem(scheme, **_OPTIONS.get(scheme, {}))
    except (ImportError, ValueError) as error:
        advice = f"; pip install 'antenna-assets[{scheme}]'" if scheme in STORES else ""
        raise StoreError(f"{scheme}:// is reached through fsspec: {error}{advice}") from error


def let_duckdb_in(connection: "DuckDBPyConnection", places: Iterable[str]) -> None:
    """Let a database read and write these places, with none of DuckDB's extensions.

    Raises:
        StoreError: as `filesystem`.
    """
    for scheme in {_scheme(place) for place in places if not is_local(place)}:
        if not connection.filesystem_is_registered(scheme):
            connection.register_filesystem(filesystem(scheme))


def file_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """What an operation on a file raises when the disk or the store fails, and the others; to be asked for in `except`."""
    # Looked up and not imported: whoever has no store has no such error either.
    botocore = sys.modules.get("botocore.exceptions")
    stores = () if botocore is None else (botocore.BotoCoreError,)
    return (OSError, StoreError, *stores, *others)


def without_traceback(text: str) -> str:
    """What a failure says: DuckDB passes on what a store's file system raised as the text of its whole traceback."""
    return text.splitlines()[-1] if "Traceback (most recent call last)" in text else text


def reason_of(error: BaseException) -> str:
    """What a failure of files says, in one line."""
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return without_traceback(text).splitlines()[0]


def _scheme(place: str) -> str:
    return place.partition("://")[0]
