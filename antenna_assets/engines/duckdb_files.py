"""Object stores for DuckDB, through fsspec."""

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from antenna_assets.settings import STORES, is_local
from antenna_assets.storage.paths import _scheme, file_errors, filesystem, in_parallel

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


# Listings are cached for DuckDB, and refreshed before each query.
_LISTING: dict[str, dict[str, Any]] = {
    scheme: {"use_listings_cache": True, "max_paths": 10_000} for scheme in STORES
}


def register_stores(connection: "DuckDBPyConnection", places: Iterable[str]) -> None:
    """Let a database read and write these files and folders of object stores, without DuckDB's extensions.

    Call it before each query: it lists the folders of the files. For a file that is in no listing DuckDB asks
    the store seven times for its size and time: measured, the sums of nine landed files took 400 requests,
    and take 10.

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
            # If something is wrong with a place, the query reports it.
            with suppress(*file_errors()):
                listing.ls(folder, refresh=True)

        in_parallel(refresh, of_scheme)
