"""Full disks: recognizing their errors, and messages with the free space."""

import errno
import shutil
from pathlib import Path

from antenna_assets.settings import is_local
from antenna_assets.storage.paths import reason_of

_FULL = (errno.ENOSPC, errno.EDQUOT)
_DISK_FULL = "53100"
_TEXTS = ("No space left on device", "Disk quota exceeded")

FREE_SPACE_HINT = "free space on that disk; `antenna sweep --dry-run` shows what can be removed from the lake"


def is_full(error: BaseException) -> bool:
    """Whether an error of Python, Java, DuckDB, deltalake or PostgreSQL means that a disk is full."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    # PostgreSQL's texts may be translated.
    if getattr(error, "sqlstate", None) == _DISK_FULL:
        return True
    try:
        text = str(error)
    except Exception:
        # The text of Java's errors comes from the Java process, which may have died.
        return False
    return any(known in text for known in _TEXTS)


def free(path: str | Path) -> str:
    """The free space at a path, or at the nearest folder above it that exists."""
    if not is_local(str(path)):
        return "an object store"
    place = Path(path)
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        return f"{shutil.disk_usage(place).free / 2**20:,.1f} MiB free"
    except OSError:
        return "free space unknown"


def write_failure_message(what: str, path: str | Path, error: Exception) -> str:
    """The error message of a folder or file that could not be written."""
    reason = reason_of(error)
    if is_full(error):
        return f"{what} {path} cannot be written: {reason} ({free(path)}); {FREE_SPACE_HINT}"
    return f"{what} {path} cannot be written: {reason}"
