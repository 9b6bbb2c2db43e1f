"""Digests of what a publication holds: SHA-256 of the lake's files and of a table's rows.

Certificates are issued in `ledger/certificate.py`, and recomputed by `verify/`.
"""

import hashlib
from collections.abc import Sequence

import pyarrow as pa
from pydantic_core import to_json

from antenna_assets.engines.contract import WrittenFile
from antenna_assets.storage.paths import lake_path

UNKNOWN_ROWS = "SELECT count(*) AS unknown_rows FROM enriched_usage WHERE email IS NULL"
"""Counts the rows of users that `user_metadata` does not know; both engines run it."""

UNKNOWN_ROWS_COLUMNS = pa.schema([pa.field("unknown_rows", pa.int64(), nullable=False)])


class RowsDigest:
    """SHA-256 over rows in the byte order of their key, each as one line of JSON."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def add(self, row: Sequence[str | int | None]) -> None:
        """Add the next row: its values in the order of the table's columns, without `date`."""
        self._sha256.update(to_json(row) + b"\n")

    @property
    def sha256(self) -> str:
        """Of the rows so far, as hexadecimal digits."""
        return self._sha256.hexdigest()


def file_sha256(path: str) -> str:
    """SHA-256 of a file's bytes. Measured: 1.5 GB/s; a digest over the parsed rows takes 0.2 s a million.

    Raises:
        OSError: the file cannot be read.
    """
    with lake_path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def files_manifest(location: str, files: Sequence[WrittenFile]) -> list[dict[str, str | int]]:
    """The files of a table's hour as a certificate lists them, with their path within the table.

    Raises:
        OSError: a file cannot be read.
    """
    return [
        {
            "path": file.path.removeprefix(location + "/"),
            "rows": file.rows,
            "sha256": file_sha256(file.path),
        }
        for file in sorted(files, key=lambda file: file.path)
    ]
