"""Atomic writes: files that are complete or absent, whenever a process dies. Also a lock between processes.

Nothing here knows what the files hold.
"""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from antenna_assets.storage.paths import StoreError, file_errors, reason_of, sync

if TYPE_CHECKING:
    from antenna_assets.storage.paths import LakePath

READABLE = 0o644
"""The mode of files that are part of the program, like those of its packages, and hold nobody's data."""

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to, which replaces `path` when the block ends.

    A reader sees the old file or the new one, never a part. If the block raises, `path` stays as it was.

    Args:
        durable: fsync the file and its name.
    """
    # The sweep of a Delta log takes leftovers of a crash by this ending.
    temporary = path.with_name(f".{path.name}-{uuid4().hex}.tmp")
    try:
        yield temporary
        if durable:
            sync([temporary])
        temporary.replace(path)
        if durable:
            sync([path.parent])
    finally:
        temporary.unlink(missing_ok=True)


def replace_file(path: Path, content: str, mode: int = 0o600) -> None:
    """Write a text file atomically, with exactly this mode whatever the umask."""
    with replacing(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(descriptor, mode)
            file.write(content)


def create_file(path: "LakePath", text: str) -> bool:
    """Create a file in the lake, complete and durable, unless there is one; returns whether it was created.

    Of several processes that create the same file at once, one gets True.

    Raises:
        OSError, StoreError: the disk or the store fails.
    """
    data = text.encode()
    if not isinstance(path, Path):
        return _create_object(path, data)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{uuid4().hex}")
    try:
        temporary.write_bytes(data)
        sync([temporary])
        try:
            # Unlike a rename, a link does not replace what another process has created.
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # A file system without links: here the caller's lock is all that keeps others away.
            if path.exists():
                return False
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync([path.parent, path.parent.parent])
    return True


def _create_object(path: Any, data: bytes) -> bool:
    try:
        path.fs.pipe_file(path.path, data, mode="create")
    except FileExistsError:
        return False
    except file_errors() as error:
        # Stores report a taken name in different ways.
        with suppress(*file_errors()):
            if path.exists():
                return False
        raise StoreError(f"{path} cannot be written: {reason_of(error)}") from error
    return True


def program_folder(path: Path) -> None:
    """Make a folder for a part of the program, and its missing parents, readable for everyone."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        folder.chmod(0o755)


def set_aside(path: Path) -> None:
    """Rename an unusable file or folder to `<name>.unusable-<number>`: its owner may still need it."""
    number = 1
    while (aside := path.with_name(f"{path.name}.unusable-{number}")).exists():
        number += 1
    path.rename(aside)


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold an exclusive lock on this file; call `waiting` once if another process or thread holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
