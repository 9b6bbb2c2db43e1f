"""The umask: files that this program writes are readable by their owner only, as they hold personal data.

It is set when the package is imported, before the first file is written, and child processes inherit it:
Java, PostgreSQL, Dagster's workers. Hadoop sets modes of its own; `engines/spark_session.py` configures it.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "ANTENNA_UMASK"
PRIVATE = 0o077
_OCTAL = re.compile(r"0?[0-7]{3}")


def parse(text: str) -> int:
    """Parse a umask in octal such as `077` or `027`.

    Raises:
        ValueError: it is not one, or it takes rights from the owner.
    """
    if _OCTAL.fullmatch(text) is None or int(text, 8) & 0o700:
        raise ValueError(
            f"expected a umask in octal that leaves the owner all rights, as 077 or 027; found {text!r}"
        )
    return int(text, 8)


def umask() -> int:
    """The umask in force, read without the other settings, which report a wrong value later."""
    try:
        return parse(os.environ.get(VARIABLE) or f"{PRIVATE:03o}")
    except ValueError:
        return PRIVATE


def apply() -> None:
    """Set the umask of this process and of the processes that it starts."""
    os.umask(umask())


def tighten(root: Path) -> int:
    """Remove the rights that the umask denies from a folder and its content; returns how many had any.

    A folder is changed after its content, so one without these rights is complete and is not read again.
    Files of other users stay as they are, such as the data of a PostgreSQL that root runs as another user.
    """
    denied = umask()
    if not root.is_dir():
        return take(root, denied)
    found = root.stat()
    if found.st_uid != os.geteuid() or not found.st_mode & denied:
        return 0
    return sum(take(path, denied) for path in _bottom_up(root))


def others_read(path: Path) -> bool:
    """Whether users who are neither the owner nor of the group can read a file: it and all folders above are
    open to them.

    Raises:
        OSError: there is no such file, or it cannot be looked at.
    """
    file = path.resolve(strict=True)
    return bool(file.stat().st_mode & 0o004) and all(folder.stat().st_mode & 0o001 for folder in file.parents)


def _bottom_up(root: Path) -> Iterator[Path]:
    for folder, _, files in os.walk(root, topdown=False):
        yield from (Path(folder) / name for name in files)
        yield Path(folder)


def take(path: Path, denied: int) -> int:
    """Remove these rights from one file or folder of this user; returns 1 if it had any of them, else 0."""
    try:
        found = path.lstat()
        if found.st_uid != os.geteuid() or not found.st_mode & denied or path.is_symlink():
            return 0
        path.chmod(found.st_mode & 0o7777 & ~denied)
    except FileNotFoundError:
        return 0  # Removed by another process.
    return 1
