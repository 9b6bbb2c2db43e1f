"""Files and folders that are whole or absent, and a lock between processes.

Nothing here knows what is in them.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

READABLE = 0o644
"""The mode of files that are part of the program, as those of its packages are, and hold nothing of anyone."""


def program_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing, that everyone can read: it holds a part of the program."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        folder.chmod(0o755)


def replace_file(path: Path, content: str, mode: int = 0o600) -> None:
    """Write a file under a temporary name and rename it: no reader sees a part of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, mode)  # not less what the umask takes away
        file.write(content)
    temporary.replace(path)


def set_aside(path: Path) -> None:
    """Rename what should not be there to `<name>.unusable-<number>`: it is not ours to judge whether it is needed."""
    number = 1
    while (aside := path.with_name(f"{path.name}.unusable-{number}")).exists():
        number += 1
    path.rename(aside)


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock that this file stands for; call `waiting` once if another process or thread holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
