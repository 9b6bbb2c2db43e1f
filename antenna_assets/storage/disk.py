"""Full disks: how they are told from other failures, and what is said of them.

Whether a failure passes by itself is for the caller to say.
"""

import errno
import shutil
from pathlib import Path

from antenna_assets.settings import is_local
from antenna_assets.storage.paths import reason_of

_FULL = (errno.ENOSPC, errno.EDQUOT)
_DISK_FULL = "53100"
_TEXTS = ("No space left on device", "Disk quota exceeded")

WHAT_TO_DO = "free space on that disk; `antenna sweep --dry-run` shows what the lake can do without"


def is_full(error: BaseException) -> bool:
    """Whether the error, of Python, Java, DuckDB or deltalake, says that there is no space left."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    # PostgreSQL's texts are in the language of its settings.
    if getattr(error, "sqlstate", None) == _DISK_FULL:
        return True
    try:
        text = str(error)
    except Exception:
        # Java is asked for the text of its errors, and may be gone.
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


def unwritable(what: str, path: str | Path, error: Exception) -> str:
    """The sentence for a folder or file that could not be written."""
    reason = reason_of(error)
    if is_full(error):
        return f"{what} {path} cannot be written: {reason} ({free(path)}); {WHAT_TO_DO}"
    return f"{what} {path} cannot be written: {reason}"
