"""Files on a local disk that may be removed: what lies under a folder, what of it would go, and removing it.

Whether anything refers to a file is for the caller to say. A symbolic link is not followed: it is a file of its own.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from errno import EEXIST, ENOTEMPTY
from pathlib import Path


@dataclass(frozen=True)
class Found:
    """A file or folder: its path, its size in bytes (0 for a folder) and when it was changed last."""

    path: Path
    size: int
    changed: datetime
    is_folder: bool


def everything_under(folder: Path) -> Iterator[Found]:
    """All files and folders below a folder, each folder after what it holds. What vanishes meanwhile is left out."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        yield from with_everything(Path(entry.path))


def with_everything(path: Path) -> Iterator[Found]:
    """A file, or all that a folder holds and then the folder; nothing if it is gone."""
    try:
        state = path.lstat()
    except FileNotFoundError:
        return
    is_folder = path.is_dir() and not path.is_symlink()
    if is_folder:
        yield from everything_under(path)
    changed = datetime.fromtimestamp(state.st_mtime, UTC)
    yield Found(path, 0 if is_folder else state.st_size, changed, is_folder)


def going(found: Iterable[Found], removable: Callable[[Found], bool]) -> list[Found]:
    """What goes if everything that is removable does: a folder only if all that it holds goes, too.

    Args:
        found: each folder after what it holds.
    """
    kept: set[Path] = set()
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
    for one in found:
        if one.is_folder:
            remove_if_empty(one.path)
        else:
            one.path.unlink(missing_ok=True)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder unless it holds something or is gone."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (ENOTEMPTY, EEXIST):
            raise
