"""Orphaned files of a Delta table: files that neither its newest version nor a recent one refers to.

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
from antenna_assets.storage.files import Entry, removable, walk
from antenna_assets.storage.paths import in_parallel, name_within

if TYPE_CHECKING:
    from antenna_assets.storage.paths import LakePath

# Left in the log by a killed commit: deltalake's own temporary name, and that of its file system.
_UNFINISHED = re.compile(r".*\.tmp|.*#\d+")


class TornLog(AntennaError):
    """A commit in a table's log is torn; the message names it and what to do."""


def recent_files(table: "LakePath", since: datetime) -> set[str]:
    """Paths within the table of all files that a commit since an instant added or removed.

    With the newest version's files these are the files of every version that was the newest at some time
    since then.

    Raises:
        TornLog: a commit cannot be read.
    """
    commits = [one.path for one in walk(table / LOG) if one.path.suffix == ".json" and one.changed >= since]
    paths = set()
    for commit, data in zip(commits, in_parallel(_data, commits), strict=True):
        if data is None:
            continue
        if reason := wrong_commit(data):
            raise TornLog(
                f"{commit} {reason}, so the files that it named are unknown; "
                f"`antenna rebuild-table {table.name}` repairs the log"
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
        # Removed by Delta's own clean-up, which keeps a commit for 30 days.
        return None


def unreferenced(
    table: "LakePath", found: Iterable[Entry], referenced: set[str], *, before: datetime
) -> list[Entry]:
    """Files that nothing refers to, and folders of such files only, that were not changed since `before`.

    Partition folders are kept: a writer that has just seen one relies on it. Of the log only the leftovers of
    killed commits are returned.

    Args:
        found: everything in the table's folder, each folder after what it holds.
        referenced: paths within the table.
    """

    def may_remove(one: Entry) -> bool:
        path = name_within(table, one.path)
        if one.changed >= before:
            return False
        if path.split("/")[0] == LOG:
            return not one.is_folder and _UNFINISHED.fullmatch(one.path.name) is not None
        return "=" not in one.path.name if one.is_folder else path not in referenced

    return removable(found, may_remove)
