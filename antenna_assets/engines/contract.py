"""The contract of an engine, and the checks of a result that all engines share.

No engine is imported here: a machine needs only the one that it uses.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from antenna_assets.errors import EngineError

FOLDER_AND_NAME = "[^/]+/[^/]+$"
"""Folder and name of a path, as a regular expression for every engine; Spark percent-encodes spaces."""

BATCH_ROWS = 100_000
"""Rows of a batch of `stream`, at most."""


@dataclass(frozen=True)
class Dataset:
    """Parquet files as one input of a SELECT; without files it is an empty table.

    Attributes:
        files: absolute paths or URIs, taken literally: a `*` in a name is a `*`.
        schema: the columns, found by name; other columns of the files are ignored.
        file_column: name of an additional column with each row's file, as folder and name.
    """

    files: Sequence[str]
    schema: pa.Schema
    file_column: str | None = None

    @property
    def columns(self) -> pa.Schema:
        """The columns that the SELECT sees."""
        if self.file_column is None:
            return self.schema
        return self.schema.append(pa.field(self.file_column, pa.string(), nullable=False))


@dataclass(frozen=True)
class WrittenFile:
    """A parquet file that is synced: full path or URI, number of rows, size in bytes.

    Attributes:
        nulls: how many each column holds, by its name; empty if it was not counted.
    """

    path: str
    rows: int
    size: int
    nulls: Mapping[str, int] = field(default_factory=dict, compare=False)


class Engine(Protocol):
    """Runs one SELECT over named inputs. Safe to call from several threads."""

    @property
    def name(self) -> str:
        """`duckdb` or `spark`."""
        ...

    def write(
        self, sql: str, inputs: Mapping[str, Dataset], schema: pa.Schema, target: str
    ) -> list[WrittenFile]:
        """Write the rows of a SELECT as zstd parquet files into a new folder; no rows, no file and no folder.

        On a local file system files and folders are synced before this returns. After an error the folder is
        removed.

        Args:
            sql: one SELECT that names the inputs as tables.
            schema: the columns that it must return, by name, order and type; a non-nullable column must hold
                no null.
            target: the folder, which must not exist yet; path or URI.

        Raises:
            EngineError: the SELECT fails, its result does not fit `schema`, or `target` cannot be written.
        """
        ...

    def read(self, sql: str, inputs: Mapping[str, Dataset], schema: pa.Schema) -> pa.Table:
        """The rows of a SELECT, in no particular order, with exactly the columns and types of `schema`.

        Raises:
            EngineError: the SELECT fails or its result does not fit `schema`.
        """
        ...

    def stream(
        self, sql: str, inputs: Mapping[str, Dataset], schema: pa.Schema, scratch: str
    ) -> AbstractContextManager[Iterator[pa.RecordBatch]]:
        """The rows of a SELECT in its order, a batch at a time, for as long as the block lasts.

        When the block begins they are computed as far as the first batch needs it: of a SELECT with an order,
        all of them.

        Args:
            scratch: a folder that does not exist yet and that the caller removes; for rows that an engine
                cannot hold back otherwise.

        Raises:
            EngineError: as `read`, when the block begins or a batch is taken.
        """
        ...

    def close(self) -> None:
        """Release what the engine holds. Idempotent."""
        ...


def check_types(found: pa.Schema, expected: pa.Schema) -> None:
    """Compare a result's names, order and types with the schema; nullability is checked by `check_nulls`.

    Raises:
        EngineError: they differ; the message names each difference.
    """
    if found.names != expected.names:
        raise EngineError(f"expected the columns {', '.join(expected.names)}; found {', '.join(found.names)}")
    wrong = [
        f"{want.name}: expected {want.type}, found {have.type}"
        for want, have in zip(expected, found, strict=True)
        if want.type != _plain(have.type)
    ]
    if wrong:
        raise EngineError("the SELECT's types are not the schema's; " + "; ".join(wrong))


def check_nulls(nulls: Mapping[str, int], expected: pa.Schema) -> None:
    """Refuse nulls in non-nullable columns.

    Args:
        nulls: the numbers of nulls, by column.

    Raises:
        EngineError: there are some; the message names the columns and counts.
    """
    wrong = [
        f"{name} ({count})" for name, count in nulls.items() if count and not expected.field(name).nullable
    ]
    if wrong:
        raise EngineError(
            f"expected no null in columns that are not nullable; found some in {', '.join(wrong)}"
        )


def checked_table(table: pa.Table, expected: pa.Schema) -> pa.Table:
    """A result with exactly the schema, nullability and descriptions included.

    Raises:
        EngineError: its columns, types or nulls do not fit.
    """
    check_types(table.schema, expected)
    counts = (column.null_count for column in table.columns)
    check_nulls(dict(zip(table.schema.names, counts, strict=True)), expected)
    return table.cast(expected)


def _plain(type_: pa.DataType) -> pa.DataType:
    """The type without its layout in memory or the spelling of UTC."""
    if pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return pa.string()
    if pa.types.is_large_binary(type_) or pa.types.is_binary_view(type_):
        return pa.binary()
    if pa.types.is_timestamp(type_) and type_.tz == "Etc/UTC":
        return pa.timestamp(type_.unit, tz="UTC")
    return type_
