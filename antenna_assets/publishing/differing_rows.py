"""The rows of a serving table that differ between what is computed and what is stored, found by an engine."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from antenna_assets.domain.schema import ServingTable

Row = tuple[str | int | None, ...]


@dataclass(frozen=True)
class DifferingRow:
    """A row as it is computed and as it is stored, without its key; None where there is no row."""

    key: str
    computed: Row | None
    stored: Row | None


def differing_select(table: ServingTable, limit: int) -> str:
    """The SELECT of the first rows that differ, by key, with the number of all of them.

    Its inputs are `computed` and `stored`, with the table's columns; it reads alike in DuckDB and Spark.
    """
    key, *others = table.columns.names
    values = [f"{side}.{name} AS {side}_{name}" for side in ("computed", "stored") for name in others]
    different = [f"computed.{name} IS DISTINCT FROM stored.{name}" for name in others]
    return (
        f"SELECT coalesce(computed.{key}, stored.{key}) AS key, computed.{key} IS NOT NULL AS is_computed,"  # noqa: S608
        f" stored.{key} IS NOT NULL AS is_stored, count(*) OVER () AS differing, {', '.join(values)}"
        f" FROM computed FULL JOIN stored ON computed.{key} = stored.{key}"
        f" WHERE computed.{key} IS NULL OR stored.{key} IS NULL OR {' OR '.join(different)}"
        f" ORDER BY key LIMIT {limit}"
    )


def differing_columns(table: ServingTable) -> pa.Schema:
    """The columns of `differing_select`."""
    others = list(table.columns)[1:]
    return pa.schema(
        [
            pa.field("key", pa.string()),
            pa.field("is_computed", pa.bool_()),
            pa.field("is_stored", pa.bool_()),
            pa.field("differing", pa.int64()),
            *(pa.field(f"{side}_{one.name}", one.type) for side in ("computed", "stored") for one in others),
        ]
    )


def differing_rows(found: Iterable[Sequence[Any]]) -> tuple[int, list[DifferingRow]]:
    """How many rows differ, and the first of them by key, from the rows of `differing_select`."""
    count, rows = 0, []
    for key, is_computed, is_stored, differing, *values in found:
        count = differing
        middle = len(values) // 2
        computed = tuple(values[:middle]) if is_computed else None
        rows.append(DifferingRow(key, computed, tuple(values[middle:]) if is_stored else None))
    return count, sorted(rows, key=lambda row: row.key)
