"""Object stores for DuckDB, through fsspec."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from antenna_assets.settings import STORES, is_local
from antenna_assets.storage.paths import file_errors, filesystem, in_parallel, scheme_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


# Listings are cached for DuckDB, and refreshed before each query.
_LISTING: dict[str, dict[str, Any]] = {
    scheme: {"use_listings_cache": True, "max_paths": 10_000} for scheme in STORES
}


_LONGEST_CLOSE = 60.0
"""Seconds that a file which was written in part may take to be closed."""

# The files that DuckDB has opened for writing and that Python still holds.
_WRITTEN: WeakSet[Any] = WeakSet()


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
            folders.setdefault(scheme_of(place), set()).add(place.rpartition("/")[0])
    for scheme, of_scheme in folders.items():
        listing = filesystem(scheme, **_LISTING.get(scheme, {}))
        if not connection.filesystem_is_registered(scheme):
            _track_writes(listing)
            connection.register_filesystem(listing)

        def refresh(folder: str, listing: Any = listing) -> None:
            # If something is wrong with a place, the query reports it.
            with suppress(*file_errors()):
                listing.ls(folder, refresh=True)

        in_parallel(refresh, of_scheme)


@contextmanager
def writes_ended(target: str) -> Iterator[None]:
    """After a block that failed, wait until DuckDB has closed each file in a store that it wrote below
    `target`.

    A thread of DuckDB may still be closing a file, which uploads it, after the query has failed; a clean-up
    that lists the files at that moment would miss it.
    """
    try:
        yield
    except BaseException:
        deadline = time.monotonic() + _LONGEST_CLOSE
        while any(_is_open(file, target) for file in list(_WRITTEN)) and time.monotonic() < deadline:
            time.sleep(0.005)
        raise


def _track_writes(filesystem: Any) -> None:
    if "open" in vars(filesystem):
        return  # Tracked already: the databases of a process share the instance.
    opened = filesystem.open

    def tracked(path: str, mode: str = "rb", *arguments: Any, **options: Any) -> Any:
        file = opened(path, mode, *arguments, **options)
        if "w" in mode:
            _WRITTEN.add(file)
        return file

    filesystem.open = tracked


def _is_open(file: Any, target: str) -> bool:
    return not file.closed and str(file.path).startswith(target.partition("://")[2])
