"""Who may read what this program writes: its owner alone, whichever process or library writes the file.

Files hold e-mails, names and events of people. The package sets this when it is imported, so that every process has it from
its first file on, and what it starts inherits it: Java, PostgreSQL, Dagster's workers. Java's file system for Hadoop sets
modes by itself and is told in `engines/spark_session.py`.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "ANTENNA_UMASK"
PRIVATE = 0o077
_OCTAL = re.compile(r"0?[0-7]{3}")


def parse(text: str) -> int:
    """Read `077` or `027`: the rights that files and folders do not get. The owner keeps all of its own.

    Raises:
        ValueError: it is none, or it takes rights from the owner.
    """
    if _OCTAL.fullmatch(text) is None or int(text, 8) & 0o700:
        raise ValueError(
            f"expected a umask in octal that leaves the owner all rights, as 077 or 027; found {text!r}"
        )
    return int(text, 8)


def umask() -> int:
    """What is in force. It is looked up without the other settings, which come later; they name a wrong value."""
    try:
        return parse(os.environ.get(VARIABLE) or f"{PRIVATE:03o}")
    except ValueError:
        return PRIVATE


def apply() -> None:
    """Let this process, and what it starts, write files by the umask."""
    os.umask(umask())


def tighten(root: Path) -> int:
    """Take the rights that the umask denies from a folder, and from all that is in it and is ours; how many were changed.

    A folder is changed after what is in it: one that has none of these rights was finished before, and is not read again.
    What is not ours, as the data of a PostgreSQL that root runs as another user, is that user's matter.
    """
    denied = umask()
    if not root.is_dir():
        return take(root, denied)
    found = root.stat()
    if found.st_uid != os.geteuid() or not found.st_mode & denied:
        return 0
    return sum(take(path, denied) for path in _bottom_up(root))


def _bottom_up(root: Path) -> Iterator[Path]:
    for folder, _, files in os.walk(root, topdown=False):
        yield from (Path(folder) / name for name in files)
        yield Path(folder)


def take(path: Path, denied: int) -> int:
    """Take these rights from one file or folder, if it is ours; 1 if it had any of them."""
    try:
        found = path.lstat()
        if found.st_uid != os.geteuid() or not found.st_mode & denied or path.is_symlink():
            return 0
        path.chmod(found.st_mode & 0o7777 & ~denied)
    except FileNotFoundError:
        return 0  # Others sweep and write meanwhile.
    return 1
