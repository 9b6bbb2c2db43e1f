"""How DuckDB reads and writes files in an object store, through fsspec."""

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from antenna_assets.settings import STORES, is_local
from antenna_assets.storage.paths import _scheme, file_errors, filesystem, in_parallel

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


# DuckDB's: the newest listings are kept, and refreshed before they are used.
_LISTING: dict[str, dict[str, Any]] = {
    scheme: {"use_listings_cache": True, "max_paths": 10_000} for scheme in STORES
}


def register_stores(connection: "DuckDBPyConnection", places: Iterable[str]) -> None:
    """Let a database read and write these files and folders, with none of DuckDB's extensions.

    Ask again before each query: the folders of the files are listed now. DuckDB asks the store seven times for the size
    and the time of a file that is in no listing; measured, 400 questions for the sums of nine landed files, and 10 so.

    Raises:
        StoreError: as `filesystem`.
    """
    folders: dict[str, set[str]] = {}
    for place in places:
        if not is_local(place):
            folders.setdefault(_scheme(place), set()).add(place.rpartition("/")[0])
    for scheme, of_scheme in folders.items():
        listing = filesystem(scheme, **_LISTING.get(scheme, {}))
        if not connection.filesystem_is_registered(scheme):
            connection.register_filesystem(listing)

        def refresh(folder: str, listing: Any = listing) -> None:
            # What is wrong with a place, the query will say.
            with suppress(*file_errors()):
                listing.ls(folder, refresh=True)

        in_parallel(refresh, of_scheme)
