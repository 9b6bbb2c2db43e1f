"""Paths of a lake on a disk or in an object store, with the same methods, and how DuckDB is let into a store.

On a disk a path is pathlib's, in a store it is universal_pathlib's over fsspec. What the two do differently when files are
listed and removed is in `files.py` and `engines/output.py`.
"""

import os
import re
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from uuid import uuid4

from antenna_assets.errors import AntennaError
from antenna_assets.settings import STORES, is_local

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from upath import UPath

    LakePath: TypeAlias = Path | UPath


# What others write must be seen at once.
_OPTIONS: dict[str, dict[str, Any]] = {scheme: {"use_listings_cache": False} for scheme in STORES}

_ONCE: dict[str, dict[str, Any]] = {
    "s3": {"config_kwargs": {"connect_timeout": 3, "read_timeout": 3, "retries": {"total_max_attempts": 1}}},
    "gs": {"requests_timeout": 3},
}

_TAKEN = (409, 412)
"""What HTTP answers to a condition that does not hold."""

T = TypeVar("T")
R = TypeVar("R")

_AT_ONCE = 16
"""Questions to an object store at a time: each waits for the network."""

_ERRORS = (
    ("botocore.exceptions", "BotoCoreError"),
    ("aiohttp", "ClientError"),
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
)
_TRACEBACK = "Traceback (most recent call last):"
_TOLD_BY_S3 = re.compile(r"<Message>(.*?)</Message>")


class StoreError(AntennaError):
    """The object store cannot be used from here; the message says what to do."""


def in_parallel(function: Callable[[T], R], values: Iterable[T]) -> list[R]:
    """The function's results, in order; many at a time, for calls that wait for a store.

    Raises:
        What the first that failed raised.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(function, values))


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


def sync(paths: "Iterable[LakePath]") -> None:
    """Bring files, and the names that lead to them, to the disk. In a store they are there as soon as it has answered."""
    for path in paths:
        if isinstance(path, Path):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def filesystem(scheme: str, **options: Any) -> Any:
    """The file system of fsspec for a store. Credentials are found as that cloud's own programs find them.

    Raises:
        StoreError: there is none, or its package is not installed.
    """
    import fsspec  # type: ignore[import-untyped]
    from fsspec.asyn import get_loop  # type: ignore[import-untyped]

    get_loop().set_exception_handler(_say_nothing_twice)
    # Or gcsfs asks over another protocol what kind of bucket it is, for a minute where nobody answers.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    try:
        return fsspec.filesystem(scheme, **{**_OPTIONS.get(scheme, {}), **options})
    except (ImportError, ValueError) as error:
        advice = f"; pip install 'antenna-assets[{scheme}]'" if scheme in STORES else ""
        raise StoreError(f"{scheme}:// is reached through fsspec: {error}{advice}") from error


def _say_nothing_twice(loop: "AbstractEventLoop", context: dict[str, Any]) -> None:
    """A connection that breaks is an error of the call that needed it; aiohttp's own tasks would tell it once more."""
    aiohttp = sys.modules.get("aiohttp")
    if aiohttp is None or not isinstance(context.get("exception"), aiohttp.ClientError):
        loop.default_exception_handler(context)


def require_store(place: str) -> None:
    """Ask a place's store for the first name there, within seconds and without another try.

    Raises:
        StoreError: it does not answer, or lets us not in; or as `filesystem`.
    """
    scheme = _scheme(place)
    store = filesystem(scheme, skip_instance_cache=True, **_ONCE[scheme])
    bucket, _, prefix = place.removeprefix(f"{scheme}://").partition("/")
    try:
        if scheme == "s3":
            store.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
        else:
            store.call("GET", f"b/{bucket}/o", prefix=prefix, maxResults=1)
    except file_errors() as error:
        raise StoreError(f"{place} cannot be listed: {reason_of(error)}") from error


def require_conditional_writes(place: str) -> None:
    """Try whether a store refuses to write a name that is taken, if it is asked to: Delta's commits rest on it.

    Google's own store does; of S3 there are many servers. What is written is removed again.

    Raises:
        StoreError: it writes all the same, does not know the question, or nothing can be written; or as `filesystem`.
    """
    scheme = _scheme(place)
    if scheme != "s3":
        return
    store = filesystem(scheme, skip_instance_cache=True, **_ONCE[scheme])
    bucket, _, prefix = place.removeprefix(f"{scheme}://").partition("/")
    probe = {"Bucket": bucket, "Key": f"{prefix.rstrip('/')}/scratch/probe-{uuid4().hex}".lstrip("/")}
    try:
        store.call_s3("put_object", **probe, Body=b"")
    except file_errors() as error:
        raise StoreError(f"{place} cannot be written: {reason_of(error)}") from error
    try:
        store.call_s3("put_object", **probe, Body=b"", IfNoneMatch="*")
    except file_errors() as error:
        answer = getattr(error.__cause__, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode")
        if answer not in _TAKEN:
            raise StoreError(
                f"{place}: expected the store to refuse a write with `If-None-Match: *` to a name that is taken, "
                f"found that it does not know the question: {reason_of(error)}"
            ) from error
    else:
        raise StoreError(
            f"{place}: expected the store to refuse a write with `If-None-Match: *` to a name that is taken, found that it "
            "writes all the same: two commits of one version of a Delta table would both succeed"
        )
    finally:
        with suppress(*file_errors()):
            store.call_s3("delete_object", **probe)


def file_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """What an operation on a file raises when the disk or the store fails, and the others; to be asked for in `except`."""
    # Looked up and not imported: whoever has no store has no such error either.
    stores = [getattr(sys.modules[module], name) for module, name in _ERRORS if module in sys.modules]
    return (OSError, StoreError, *stores, *others)


def is_of_a_store(error: BaseException) -> bool:
    """Whether DuckDB passes on what a store's file system raised, as the text of a traceback."""
    return _TRACEBACK in str(error)


def reason_of(error: BaseException) -> str:
    """What a failure of files says, in one line."""
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    if _TRACEBACK in text:
        _, _, text = text.rpartition(_TRACEBACK)
        # What was raised follows the frames, which are indented.
        return next(line for line in text.splitlines() if line and not line.startswith(" "))
    if told := _TOLD_BY_S3.search(text):
        return told[1]
    return text.splitlines()[0]


def _scheme(place: str) -> str:
    return place.partition("://")[0]
