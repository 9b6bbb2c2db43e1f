"""Previews of an hour in Dagster: a few rows and a plot, without any user's identity."""

import base64
from typing import Any

import dagster as dg
import pyarrow as pa

from antenna_assets.defs.assets.plot import bars, stacked_bars
from antenna_assets.domain.safe_text import safe_name
from antenna_assets.domain.schema import PERSONAL, ServingTable
from antenna_assets.engines.contract import Dataset, Engine

ROWS, TOP = 5, 5
_MINUTES = 5

_FIRST_ROWS = "SELECT {columns} FROM usage ORDER BY kafka_partition, kafka_offset LIMIT {rows}"

# Ranked in the query: an hour may have more antennas than a plot has colours.
_WINDOWS = """WITH sums AS (
    SELECT CAST(floor(EXTRACT(MINUTE FROM timestamp) / {minutes}) AS INT) AS number,
        antenna_id, sum(bytes) AS bytes
    FROM usage GROUP BY 1, 2
), top AS (
    SELECT antenna_id, sum(bytes) AS bytes FROM sums GROUP BY antenna_id
    ORDER BY bytes DESC, antenna_id LIMIT {top}
)
SELECT sums.number, top.antenna_id, CAST(sum(sums.bytes) AS BIGINT) AS bytes
FROM sums LEFT JOIN top ON sums.antenna_id = top.antenna_id GROUP BY 1, 2"""
_WINDOWS_COLUMNS = pa.schema(
    {"number": pa.int32(), "antenna_id": pa.string(), "bytes": pa.int64()},
)

# Dagster keeps metadata for ever, so no user is identified in it.
_USER = "id"

Views = dict[str, dg.MetadataValue]


def lake_views(engine: Engine, files: Dataset) -> Views:
    """Views of an hour of a lake table: its first rows, and bytes per 5 minutes of the busiest antennas."""
    if not files.files:
        return {}
    shown = pa.schema([field for field in files.schema if field.name not in (*PERSONAL, _USER)])
    select = _FIRST_ROWS.format(columns=", ".join(shown.names), rows=ROWS)
    windows = engine.read(
        _WINDOWS.format(minutes=_MINUTES, top=TOP), {"usage": files}, _WINDOWS_COLUMNS
    ).to_pylist()
    return {
        "preview": _table(engine.read(select, {"usage": files}, shown)),
        "bytes per 5 minutes": _picture(_windows_plot(windows), "bytes per 5 minutes"),
    }


def table_views(table: ServingTable, top: pa.Table) -> Views:
    """Views of an hour of a serving table: the rows with the most bytes, as table and plot; users by rank.

    Args:
        top: those rows, the first one first.
    """
    if not top.num_rows:
        return {}
    top = top.select([name for name in top.column_names if name not in PERSONAL])
    if table.key == _USER:
        ranks = pa.array([f"{number}." for number in range(1, top.num_rows + 1)])
        top = top.set_column(top.schema.get_field_index(_USER), "rank", ranks)
    heights = dict(zip(top.column(0).to_pylist(), top[table.sum_column].to_pylist(), strict=True))
    return {"preview": _table(top), "most bytes": _picture(bars(heights), "most bytes")}


def _windows_plot(windows: list[dict[str, Any]]) -> str:
    count = 60 // _MINUTES
    parts: dict[str | None, list[int]] = {}
    for window in windows:
        parts.setdefault(window["antenna_id"], [0] * count)[window["number"]] = window["bytes"]
    others = parts.pop(None, None)
    ordered = sorted(parts.items(), key=lambda part: (-sum(part[1]), part[0]))
    named = {str(antenna): heights for antenna, heights in ordered}
    if others is not None:
        name = "all others"
        while name in named:  # An antenna may have any name.
            name += "."
        named[name] = others
    return stacked_bars([f":{number * _MINUTES:02}" for number in range(count)], named)


def _table(rows: pa.Table) -> dg.MetadataValue:
    return dg.MetadataValue.table(
        [dg.TableRecord({name: _cell(value) for name, value in row.items()}) for row in rows.to_pylist()]
    )


def _cell(value: object) -> str | int:
    if value is None:
        return ""
    return value if isinstance(value, int) else safe_name(str(value))


def _picture(svg: str, what: str) -> dg.MetadataValue:
    return dg.MetadataValue.md(
        f"![{what}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"
    )
