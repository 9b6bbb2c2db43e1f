"""Which files in the folder of a local Delta table nobody needs: not the present, not a reader of a recent version.

Nothing is removed or committed here; `delta.py` does both.
"""

import json
import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote

from antenna_assets.litter import Found, going

LOG = "_delta_log"
# What a commit that was killed leaves in the log: deltalake's own temporary name, and the one of its file system.
_UNFINISHED = re.compile(r".*\.tmp|.*#\d+")


def recent_files(table: Path, since: datetime) -> set[str]:
    """Paths within the table of all files that a commit since an instant has added or removed.

    With the newest version's files these are the files of every version that was the newest at some time since.
    """
    paths = set()
    for commit in (table / LOG).glob("*.json"):
        try:
            if commit.stat().st_mtime < since.timestamp():
                continue
            lines = commit.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            # Delta's own clean-up took it, which keeps a commit for 30 days.
            continue
        for line in lines:
            action = json.loads(line)
            for kind in action.keys() & {"add", "remove"}:
                paths.add(unquote(action[kind]["path"]))
    return paths


def unreferenced(
    table: Path, found: Iterable[Found], referenced: set[str], *, before: datetime
) -> list[Found]:
    """Of what was found in the table's folder: files not referred to and folders without one, not changed since `before`.

    Partition folders stay: a writer that has just seen one relies on it. Of the log, only what a killed commit left goes.
    """

    def removable(one: Found) -> bool:
        path = one.path.relative_to(table)
        if one.changed >= before:
            return False
        if path.parts[0] == LOG:
            return not one.is_folder and _UNFINISHED.fullmatch(one.path.name) is not None
        return "=" not in path.name if one.is_folder else path.as_posix() not in referenced

    return going(found, removable)
