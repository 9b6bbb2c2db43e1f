"""Files of a lake that may be removed: what lies under a folder, what of it would go, and removing it.

Whether anything refers to a file is for the caller to say. A symbolic link is not followed: it is a file of its own.
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
class Found:
    """A file or folder: its path, its size in bytes (0 for a folder) and when it was changed last.

    A store has no folders, but Spark leaves empty objects named like one with a slash at the end.
    """

    path: "LakePath"
    size: int
    changed: datetime
    is_folder: bool


def file_system_now(folder: "LakePath") -> datetime:
    """The time that a file gets which is changed in this folder now: by the clock of its file system or store, which may be
    another machine's. Ages of files are counted from it, and never from this machine's clock.

    Raises:
        OSError: nothing can be written there; also the errors of a store.
    """
    probe = folder / f".probe-{uuid4().hex}"
    try:
        probe.write_bytes(b"0")
        return datetime.fromtimestamp(probe.stat().st_mtime, UTC)
    finally:
        with suppress(*file_errors()):
            remove_files([probe])


def everything_under(folder: "LakePath") -> Iterator[Found]:
    """All files and folders below a folder, each folder after what it holds. What vanishes meanwhile is left out."""
    if not isinstance(folder, Path):
        yield from _objects_under(folder)
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        yield from _with_everything(Path(entry.path))


def _with_everything(path: Path) -> Iterator[Found]:
    try:
        state = path.lstat()
    except FileNotFoundError:
        return
    is_folder = path.is_dir() and not path.is_symlink()
    if is_folder:
        yield from everything_under(path)
    changed = datetime.fromtimestamp(state.st_mtime, UTC)
    yield Found(path, 0 if is_folder else state.st_size, changed, is_folder)


def _objects_under(folder: "UPath") -> Iterator[Found]:
    prefix = folder.path.rstrip("/") + "/"
    # With the names in descending order a folder comes after what it holds.
    for key, entry in sorted(folder.fs.find(folder.path, detail=True).items(), reverse=True):
        if key.startswith(prefix) and key != prefix:
            changed = next(entry[name] for name in _CHANGED if name in entry)
            yield Found(folder / key.removeprefix(prefix), entry["size"], changed, key.endswith("/"))


def going(found: Iterable[Found], removable: Callable[[Found], bool]) -> list[Found]:
    """What goes if everything that is removable does: a folder only if all that it holds goes, too.

    Args:
        found: each folder after what it holds.
    """
    kept: set[LakePath] = set()
    goes = []
    for one in found:
        if one.path not in kept and removable(one):
            goes.append(one)
        else:
            kept.add(one.path.parent)
    return goes


def remove(found: Iterable[Found]) -> None:
    """Remove files and folders, in this order. One that is gone already is no error, and a folder that was filled
    meanwhile stays."""
    stored = []
    for one in found:
        if not isinstance(one.path, Path):
            # By its very name: other calls of fsspec take `*` for a pattern.
            stored.append((one.path.fs, one.path.path + ("/" if one.is_folder else "")))
        elif one.is_folder:
            remove_if_empty(one.path)
        else:
            one.path.unlink(missing_ok=True)
    in_parallel(_remove_object, stored)


def _remove_object(place: tuple[Any, str]) -> None:
    filesystem, key = place
    # Amazon takes no offence at a name that is not there, Google does.
    with suppress(FileNotFoundError):
        filesystem.rm_file(key)


def remove_files(paths: "Iterable[LakePath]") -> None:
    """Remove files; one that is gone already is no error."""
    remove(Found(path, 0, datetime.now(UTC), is_folder=False) for path in paths)


def remove_if_empty(folder: "LakePath") -> None:
    """Remove a folder unless it holds something or is gone. A store has none."""
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
    """Remove a folder and all that it holds; one that is gone is no error.

    Raises:
        ValueError: it is not strictly within that other folder. Nothing was removed.
    """
    parts = folder.parts[len(within.parts) :]
    if not parts or ".." in folder.parts or folder.parts[: len(within.parts)] != within.parts:
        raise ValueError(f"expected a folder within {within}, found {folder}: nothing was removed")
    remove(everything_under(folder))
    remove_if_empty(folder)
