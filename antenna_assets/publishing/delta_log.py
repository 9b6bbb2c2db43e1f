"""The log of a Delta table as files: finding those that are torn, and setting them aside.

A power cut, a full disk or a foreign program tears a file. deltalake reads and writes the log; here it is
only inspected. A table is rebuilt in `operations/rebuild.py`.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from antenna_assets.storage.files import Entry, remove_files, walk
from antenna_assets.storage.parquet_file import read_table
from antenna_assets.storage.paths import in_parallel, sync

if TYPE_CHECKING:
    from antenna_assets.storage.paths import LakePath

LOG = "_delta_log"
"""Folder of a table's log, within the table's own."""

SET_ASIDE = "set-aside"
"""Folder under the lake's root for torn files. Nothing reads it; an operator may remove it."""

LAST_CHECKPOINT = "_last_checkpoint"
_COMMIT = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint(\.\d{10}\.\d{10})?\.parquet")
_ACTIONS = {"add", "remove", "txn", "commitInfo", "protocol", "metaData", "cdc", "domainMetadata"}


@dataclass(frozen=True)
class Torn:
    """A torn file of a log, and why it is taken for torn.

    Attributes:
        version: None for the hint at the newest checkpoint.
    """

    path: "LakePath"
    version: int | None
    reason: str

    @property
    def is_commit(self) -> bool:
        """Whether it is a commit, which holds one version's changes, and not a checkpoint."""
        return _COMMIT.fullmatch(self.path.name) is not None

    def __str__(self) -> str:
        return f"{self.path} {self.reason}"


def torn_files(table: "LakePath") -> list[Torn]:
    """The torn and missing files of the log of the table in this folder, in the order of the versions.

    Raises:
        OSError: a file cannot be read; also the errors of a store.
    """
    log = table / LOG
    found = {one.path.name: one for one in walk(log) if not one.is_folder}
    commits = {int(match[1]): found[name] for name in found if (match := _COMMIT.fullmatch(name))}
    checkpoints = [(int(match[1]), found[name]) for name in found if (match := _CHECKPOINT.fullmatch(name))]
    torn = [*_torn(commits.items(), _wrong_commit), *_torn(checkpoints, _wrong_checkpoint)]
    bad = {one.path.name for one in torn}
    good = [version for version, one in checkpoints if one.path.name not in bad]
    if LAST_CHECKPOINT in found:
        reason = _wrong_hint(found[LAST_CHECKPOINT].path.read_bytes(), set(good))
        if reason:
            torn.append(Torn(log / LAST_CHECKPOINT, None, reason))
    first = max(good) + 1 if good else 0
    for version in range(first, max(commits, default=-1)):
        if version not in commits:
            torn.append(Torn(log / f"{version:020}.json", version, "is missing"))
    return sorted(torn, key=lambda one: (one.version is None, one.version or 0))


def readable_without(table: "LakePath", torn: list[Torn]) -> bool:
    """Whether the log is readable, at an older version perhaps, once the torn files are removed from it."""
    gone = {one.path for one in torn}
    whole = (version for version, paths in checkpoints(table / LOG).items() if not gone.issuperset(paths))
    base = max(whole, default=-1)
    bad = {one.version for one in torn if one.is_commit and one.version is not None and one.version > base}
    return not bad or bad == set(range(min(bad), newest_version(table) + 1))


def newest_version(table: "LakePath") -> int:
    """The newest version of which the log has a file, torn or not; -1 if it has none."""
    names = [one.path.name for one in walk(table / LOG)]
    found = [match for name in names if (match := _COMMIT.fullmatch(name) or _CHECKPOINT.fullmatch(name))]
    return max((int(match[1]) for match in found), default=-1)


def set_aside(paths: "list[LakePath]", into: "LakePath") -> None:
    """Move files out of the log for later inspection; a name that is taken there gets a number."""
    for path in paths:
        if not path.exists():
            continue
        target, number = into / path.name, 0
        while target.exists():
            number += 1
            target = into / f"{path.name}.{number}"
        if isinstance(path, Path):
            into.mkdir(parents=True, exist_ok=True)
            path.rename(str(target))
            sync([into, path.parent])
        else:
            target.write_bytes(path.read_bytes())
            remove_files([path])


def checkpoints(log: "LakePath") -> "dict[int, list[LakePath]]":
    """The checkpoints in a log, torn ones included: the files of each by its version."""
    found: dict[int, list[LakePath]] = {}
    for one in walk(log):
        if match := _CHECKPOINT.fullmatch(one.path.name):
            found.setdefault(int(match[1]), []).append(one.path)
    return found


def log_files(table: "LakePath") -> "list[LakePath]":
    """Every file of the log."""
    return [one.path for one in walk(table / LOG) if not one.is_folder]


def _torn(files: Any, wrong: Any) -> Iterator[Torn]:
    listed: list[tuple[int, Entry]] = list(files)
    reasons = in_parallel(lambda one: wrong(one[1].path), listed)
    for (version, one), reason in zip(listed, reasons, strict=True):
        if reason:
            yield Torn(one.path, version, reason)


def _wrong_commit(path: "LakePath") -> str | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None  # Removed by Delta's own clean-up.
    return wrong_commit(data)


def wrong_commit(data: bytes) -> str | None:
    """Why these bytes are not a whole commit; None if they may be one."""
    lines = data.splitlines()
    if not lines:
        return "is empty"
    actions: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            action = json.loads(line)
        except ValueError:
            action = None
        if not isinstance(action, dict) or not action.keys() & _ACTIONS:
            return f"is torn in line {number} of {len(lines)}"
        actions.append(action)
    info: dict[str, Any] = next((one["commitInfo"] for one in actions if "commitInfo" in one), {})
    additions = sum("add" in one for one in actions)
    # Our own commits say what is in them: a file may be cut exactly between two lines.
    marks = {one["txn"].get("appId") for one in actions if isinstance(one.get("txn"), dict)}
    for hour in str(info.get("hours", info.get("hour", ""))).split():
        if hour not in marks:
            return f"lacks the mark of the hour {hour}"
    if "files" in info and additions != int(info["files"]):
        return f"lacks files: expected {info['files']}, found {additions}"
    if info.get("operation") == "CREATE TABLE" and not any("metaData" in one for one in actions):
        return "lacks the table's columns"
    return None


def _wrong_checkpoint(path: "LakePath") -> str | None:
    try:
        table = read_table(path)
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError) as error:
        return f"is no parquet file that can be read: {str(error).splitlines()[0]}"
    part = _CHECKPOINT.fullmatch(path.name)
    if part and part[2]:
        return None
    for kind in ("protocol", "metaData"):
        if kind not in table.column_names or table[kind].null_count == table.num_rows:
            return f"holds no {kind}"
    return None


def _wrong_hint(data: bytes, checkpoints: set[int]) -> str | None:
    try:
        version = json.loads(data)["version"]
    except (ValueError, KeyError, TypeError):
        return "is torn"
    return None if version in checkpoints else f"names checkpoint {version}, which is torn or not there"
