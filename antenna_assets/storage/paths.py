"""Paths of a lake on a disk (pathlib) or in a store (universal_pathlib over fsspec), and store errors.

Both have the same methods. Where they differ, in listing and removing files, see `files.py` and
`engines/output.py`.
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


# Writes of other processes must be visible at once.
_OPTIONS: dict[str, dict[str, Any]] = {scheme: {"use_listings_cache": False} for scheme in STORES}

_NO_RETRY: dict[str, dict[str, Any]] = {
    "s3": {"config_kwargs": {"connect_timeout": 3, "read_timeout": 3, "retries": {"total_max_attempts": 1}}},
    "gs": {"requests_timeout": 3},
}

_PRECONDITION_FAILED = (409, 412)
"""HTTP's status codes for a failed precondition."""

T = TypeVar("T")
R = TypeVar("R")

_CONCURRENCY = 16
"""Concurrent requests to an object store."""

_ERRORS = (
    ("botocore.exceptions", "BotoCoreError"),
    ("aiohttp", "ClientError"),
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
)
_TRACEBACK = "Traceback (most recent call last):"
_S3_MESSAGE = re.compile(r"<Message>(.*?)</Message>")


class StoreError(AntennaError):
    """The object store cannot be used; the message says what to do."""


def in_parallel(function: Callable[[T], R], values: Iterable[T]) -> list[R]:
    """Call a function for each value concurrently, as for requests to a store; returns the results in order.

    Raises:
        The first error of a call.
    """
    with ThreadPoolExecutor(_CONCURRENCY) as pool:
        return list(pool.map(function, values))


def lake_path(place: str) -> "LakePath":
    """The path of a place of the lake, on a disk or in a store.

    Raises:
        StoreError: the store is not supported, or its package is not installed.
    """
    if is_local(place):
        return Path(place)
    from upath import UPath

    scheme = scheme_of(place)
    filesystem(scheme)
    return UPath(place, **_OPTIONS.get(scheme, {}))


def name_within(folder: "LakePath", path: "LakePath") -> str:
    """A path relative to a folder that contains it, with slashes."""
    return str(path).removeprefix(f"{folder}/")


def sync(paths: "Iterable[LakePath]") -> None:
    """fsync files and folders. In a store, a write is durable once it is acknowledged."""
    for path in paths:
        if isinstance(path, Path):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def filesystem(scheme: str, **options: Any) -> Any:
    """fsspec's file system for a store. Credentials are found as the cloud's own programs find them.

    Raises:
        StoreError: the store is not supported, or its package is not installed.
    """
    import fsspec  # type: ignore[import-untyped]
    from fsspec.asyn import get_loop  # type: ignore[import-untyped]

    get_loop().set_exception_handler(_ignore_repeated_errors)
    # Without it gcsfs asks for the type of the bucket over gRPC, which takes a minute if nothing answers.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    try:
        return fsspec.filesystem(scheme, **{**_OPTIONS.get(scheme, {}), **options})
    except (ImportError, ValueError) as error:
        advice = f"; pip install 'antenna-assets[{scheme}]'" if scheme in STORES else ""
        raise StoreError(f"{scheme}:// is reached through fsspec: {error}{advice}") from error


def _ignore_repeated_errors(loop: "AbstractEventLoop", context: dict[str, Any]) -> None:
    """Ignore errors of aiohttp's own tasks: the call that needed the connection raises them as well."""
    aiohttp = sys.modules.get("aiohttp")
    if aiohttp is None or not isinstance(context.get("exception"), aiohttp.ClientError):
        loop.default_exception_handler(context)


def require_store(place: str) -> None:
    """Require that a place can be listed, within seconds and without a retry.

    Raises:
        StoreError: the store does not answer or denies access; or as `filesystem`.
    """
    scheme = scheme_of(place)
    store = filesystem(scheme, skip_instance_cache=True, **_NO_RETRY[scheme])
    bucket, _, prefix = place.removeprefix(f"{scheme}://").partition("/")
    try:
        if scheme == "s3":
            store.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
        else:
            store.call("GET", f"b/{bucket}/o", prefix=prefix, maxResults=1)
    except file_errors() as error:
        raise StoreError(f"{place} cannot be listed: {reason_of(error)}") from error


def require_conditional_writes(place: str) -> None:
    """Require that a store refuses to overwrite an existing name when asked to: Delta's commits depend on it.

    Google's store does; of S3 there are many implementations, so it is tried with a probe, which is removed.

    Raises:
        StoreError: it overwrites, does not support conditional writes, or is not writable; or as
            `filesystem`.
    """
    scheme = scheme_of(place)
    if scheme != "s3":
        return
    store = filesystem(scheme, skip_instance_cache=True, **_NO_RETRY[scheme])
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
        if answer not in _PRECONDITION_FAILED:
            raise StoreError(
                f"{place}: expected the store to refuse a write with `If-None-Match: *` to an existing name, "
                f"found that it does not support conditional writes: {reason_of(error)}"
            ) from error
    else:
        raise StoreError(
            f"{place}: expected the store to refuse a write with `If-None-Match: *` to an existing name, "
            "found that it overwrites it: two commits of one version of a Delta table would both succeed"
        )
    finally:
        with suppress(*file_errors()):
            store.call_s3("delete_object", **probe)


def file_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """The errors of a disk or store that fails, and `others`; to be called in an `except` clause."""
    # Looked up, not imported: a process that has not imported a store's package cannot meet its errors.
    stores = [getattr(sys.modules[module], name) for module, name in _ERRORS if module in sys.modules]
    return (OSError, StoreError, *stores, *others)


def is_store_error(error: BaseException) -> bool:
    """Whether an error of DuckDB wraps one of a store's file system, as the text of a traceback."""
    return _TRACEBACK in str(error)


def reason_of(error: BaseException) -> str:
    """The reason of a file's error, in one line."""
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    if _TRACEBACK in text:
        _, _, text = text.rpartition(_TRACEBACK)
        # The error follows the frames, which are indented.
        return next(line for line in text.splitlines() if line and not line.startswith(" "))
    if found := _S3_MESSAGE.search(text):
        return found[1]
    return text.splitlines()[0]


def scheme_of(place: str) -> str:
    """The scheme of a URI: `s3` or `gs`."""
    return place.partition("://")[0]
