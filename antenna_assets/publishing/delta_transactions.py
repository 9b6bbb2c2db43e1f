"""The application transactions of a Delta table, all of them at once, read from its log.

`DeltaTable.transaction_version` reads the log again for each key: with 43,800 hours 13 to 32 ms, and a run of
24 hours needs 700 of them. Here the newest checkpoint is read once, and each later commit once.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pyarrow as pa

from antenna_assets.publishing.delta_log import LOG, checkpoints, wrong_commit
from antenna_assets.storage.parquet_file import read_table

if TYPE_CHECKING:
    from antenna_assets.storage.paths import LakePath

_TRANSACTION = "txn"
"""The action, in a commit and in a checkpoint."""

_MOST_COMMITS = 200
"""Commits that are read one by one; if there are more, a checkpoint is younger than most of them."""


class AppTransactions:
    """The transactions of a table, kept up to date with its log.

    Args:
        table: the table's folder.
    """

    def __init__(self, table: "LakePath") -> None:
        self._log = table / LOG
        self._at = -1
        self._by_key: dict[str, int] = {}
        self._newest = b""

    def at(self, version: int) -> Mapping[str, int]:
        """Those that the table has at a version, by their key; the next call changes what it returned.

        Raises:
            OSError: a file of the log is missing, torn or cannot be read, or the log was replaced by another;
                also the errors of a store.
        """
        if self._at == version and self._commit_or_nothing(version) != self._newest:
            raise OSError(f"{self._log} was replaced by another log of the same length")
        if self._at < 0 or not 0 <= version - self._at <= _MOST_COMMITS:
            self._read_checkpoint(version)
        try:
            self._read_commits(version)
        except FileNotFoundError:
            # The log was cleaned up meanwhile.
            self._read_checkpoint(version)
            self._read_commits(version)
        return self._by_key

    def _read_commits(self, version: int) -> None:
        while self._at < version:
            data = self._whole(self._at + 1)
            self._by_key |= _of_commit(data)
            self._at, self._newest = self._at + 1, data

    def _read_checkpoint(self, version: int) -> None:
        """Begin with the newest checkpoint up to this version, or with the first commit if there is none."""
        self._at, self._by_key = -1, {}
        for found, parts in sorted(checkpoints(self._log).items(), reverse=True):
            if found > version:
                continue
            try:
                tables = [read_table(part, [_TRANSACTION]) for part in parts]
            except pa.ArrowException:
                continue  # A torn one, which deltalake does not use either.
            self._by_key = _of_checkpoint(pa.concat_tables(tables))
            self._at, self._newest = found, self._commit_or_nothing(found)
            return

    def _whole(self, version: int) -> bytes:
        path = self._commit(version)
        data = path.read_bytes()
        if reason := wrong_commit(data):
            raise OSError(f"{path} {reason}")
        return data

    def _commit_or_nothing(self, version: int) -> bytes:
        """A commit; nothing if the log was cleaned up to the checkpoint of its version."""
        try:
            return self._commit(version).read_bytes()
        except FileNotFoundError:
            if version in checkpoints(self._log):
                return b""
            raise

    def _commit(self, version: int) -> "LakePath":
        return self._log / f"{version:020}.json"


def _of_commit(data: bytes) -> dict[str, int]:
    actions = (json.loads(line).get(_TRANSACTION) for line in data.splitlines())
    return {one["appId"]: one["version"] for one in actions if one}


def _of_checkpoint(actions: pa.Table) -> dict[str, int]:
    transactions = actions[_TRANSACTION].drop_null().combine_chunks()
    return dict(
        zip(
            transactions.field("appId").to_pylist(),
            transactions.field("version").to_pylist(),
            strict=True,
        )
    )
