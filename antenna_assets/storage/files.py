"""Listing and removing files of a lake, on a disk or in a store.

Whether a file is still referenced is the caller's decision. Symbolic links are not followed.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from errno import EEXIST, ENOTEMPTY
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from antenna_assets.storage.paths import file_errors, in_parallel

if TYPE_CHECKING:
    from upath import UPath

    from antenna_assets.storage.paths import LakePath

# Of S3, Google Cloud Storage, and fsspec's memory.
_CHANGED = ("LastModified", "mtime", "created")


@dataclass(frozen=True)
class Entry:
    """A file or folder: path, size in bytes (0 for a folder) and time of the last change.

    A store has no folders, but Spark leaves empty objects whose names end with a slash.
    """

    path: "LakePath"
    size: int
    changed: datetime
    is_folder: bool


def file_system_now(folder: "LakePath") -> datetime:
    """The present instant by the clock of a folder's file system or store, which may be another machine's.

    Ages of files are relative to it, never to this machine's clock.

    Raises:
        OSError: the folder cannot be written; also the errors of a store.
    """
    probe = folder / f".probe-{uuid4().hex}"
    try:
        probe.write_bytes(b"0")
        return datetime.fromtimestamp(probe.stat().st_mtime, UTC)
    finally:
        with suppress(*file_errors()):
            remove_files([probe])


def walk(folder: "LakePath") -> Iterator[Entry]:
    """All files and folders below a folder, each folder after its content; vanished ones are skipped."""
    if not isinstance(folder, Path):
        yield from _objects_under(folder)
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        yield from _walk_entry(Path(entry.path))


def _walk_entry(path: Path) -> Iterator[Entry]:
    try:
        state = path.lstat()
    except FileNotFoundError:
        return
    is_folder = path.is_dir() and not path.is_symlink()
    if is_folder:
        yield from walk(path)
    changed = datetime.fromtimestamp(state.st_mtime, UTC)
    yield Entry(path, 0 if is_folder else state.st_size, changed, is_folder)


def _objects_under(folder: "UPath") -> Iterator[Entry]:
    prefix = folder.path.rstrip("/") + "/"
    # In descending order of names a folder comes after its content.
    for key, entry in sorted(folder.fs.find(folder.path, detail=True).items(), reverse=True):
        if key.startswith(prefix) and key != prefix:
            changed = next(entry[name] for name in _CHANGED if name in entry)
            yield Entry(folder / key.removeprefix(prefix), entry["size"], changed, key.endswith("/"))


def removable(entries: Iterable[Entry], may_remove: Callable[[Entry], bool]) -> list[Entry]:
    """The entries that may be removed. A folder is among them only if everything in it is.

    Args:
        entries: each folder after its content.
    """
    kept: set[LakePath] = set()
    found = []
    for entry in entries:
        if entry.path not in kept and may_remove(entry):
            found.append(entry)
        else:
            kept.add(entry.path.parent)
    return found


def remove(found: Iterable[Entry]) -> None:
    """Remove files and folders, in this order. A missing one is no error; a non-empty folder stays."""
    stored = []
    for one in found:
        if not isinstance(one.path, Path):
            # By its exact name: fsspec's other calls expand `*`.
            stored.append((one.path.fs, one.path.path + ("/" if one.is_folder else "")))
        elif one.is_folder:
            remove_if_empty(one.path)
        else:
            one.path.unlink(missing_ok=True)
    in_parallel(_remove_object, stored)


def _remove_object(place: tuple[Any, str]) -> None:
    filesystem, key = place
    # A missing name is no error to S3, but it is to Google's store.
    with suppress(FileNotFoundError):
        filesystem.rm_file(key)


def remove_files(paths: "Iterable[LakePath]") -> None:
    """Remove files; a missing one is no error."""
    remove(Entry(path, 0, datetime.now(UTC), is_folder=False) for path in paths)


def remove_if_empty(folder: "LakePath") -> None:
    """Remove a folder if it exists and is empty. A store has none."""
    if not isinstance(folder, Path):
        return
    try:
        folder.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (ENOTEMPTY, EEXIST):
            raise


def remove_tree(folder: "LakePath", *, within: "LakePath") -> None:
    """Remove a folder and everything in it; a missing one is no error.

    Raises:
        ValueError: it is not strictly within `within`. Nothing was removed.
    """
    parts = folder.parts[len(within.parts) :]
    if not parts or ".." in folder.parts or folder.parts[: len(within.parts)] != within.parts:
        raise ValueError(f"expected a folder within {within}, found {folder}: nothing was removed")
    remove(walk(folder))
    remove_if_empty(folder)
