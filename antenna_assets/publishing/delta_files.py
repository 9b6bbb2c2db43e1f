"""Which files in the folder of a Delta table nobody needs: not the present, not a reader of a recent version.

Nothing is removed or committed here; `delta.py` does both.
"""

import json
import re
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import unquote

from antenna_assets.errors import AntennaError
from antenna_assets.publishing.delta_log import LOG, wrong_commit
from antenna_assets.storage.files import Found, everything_under, going
from antenna_assets.storage.paths import in_parallel, name_within

if TYPE_CHECKING:
    from antenna_assets.storage.paths import LakePath

# What a commit that was killed leaves in the log: deltalake's own temporary name, and the one of its file system.
_UNFINISHED = re.compile(r".*\.tmp|.*#\d+")


class TornLog(AntennaError):
    """A commit in a table's log is not what was written; the message names it and the way back."""


def recent_files(table: "LakePath", since: datetime) -> set[str]:
    """Paths within the table of all files that a commit since an instant has added or removed.

    With the newest version's files these are the files of every version that was the newest at some time since.

    Raises:
        TornLog: a commit cannot be read.
    """
    commits = [
        one.path
        for one in everything_under(table / LOG)
        if one.path.suffix == ".json" and one.changed >= since
    ]
    paths = set()
    for commit, data in zip(commits, in_parallel(_data, commits), strict=True):
        if data is None:
            continue
        if reason := wrong_commit(data):
            raise TornLog(
                f"{commit} {reason}, so that nobody knows which files it named; `antenna rebuild-table {table.name}` is the "
                "way back"
            )
        for line in data.splitlines():
            action = json.loads(line)
            for kind in action.keys() & {"add", "remove"}:
                paths.add(unquote(action[kind]["path"]))
    return paths


def _data(commit: "LakePath") -> bytes | None:
    try:
        return commit.read_bytes()
    except FileNotFoundError:
        # Delta's own clean-up took it, which keeps a commit for 30 days.
        return None


def unreferenced(
    table: "LakePath", found: Iterable[Found], referenced: set[str], *, before: datetime
) -> list[Found]:
    """Of what was found in the table's folder: files not referred to and folders without one, not changed since `before`.

    Partition folders stay: a writer that has just seen one relies on it. Of the log, only what a killed commit left goes.
    """

    def removable(one: Found) -> bool:
        path = name_within(table, one.path)
        if one.changed >= before:
            return False
        if path.split("/")[0] == LOG:
            return not one.is_folder and _UNFINISHED.fullmatch(one.path.name) is not None
        return "=" not in one.path.name if one.is_folder else path not in referenced

    return going(found, removable)
