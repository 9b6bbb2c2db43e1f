"""A user's id in Dagster's events of older versions: cells of previews, and labels of bars in plots.

Newer previews and plots name no user. Only places that hold a user are searched: an asset named like the id
stays.
"""

import base64
import json
import re
from html import escape
from typing import Any

import psycopg
from psycopg import sql

from antenna_assets.operations.forget.identity import Identity

# Table, column, and the columns that name the asset: a step is named like its asset.
_PLACES = (
    ("event_logs", "event", ("asset_key", "step_key")),
    ("asset_keys", "last_materialization", ("asset_key",)),
)
_SHOWN_IN = ("raw_parquet", "enriched_usage", "bytes_agg_user_1h", "users_over_quota_1h")
_DRAWN_IN = ("bytes_agg_user_1h", "users_over_quota_1h")
_PICTURE = re.compile(r"(?<=data:image/svg\+xml;base64,)[A-Za-z0-9+/=]++")


def rows_with(connection: psycopg.Connection, user: str) -> dict[str, int]:
    """Return the columns of Dagster's tables that hold the id, as `schema.table.column`, with their number of
    rows."""
    found = {}
    for table, column, names in _PLACES:
        count = sum(
            _without(text, drawn, user, "") != text
            for _, text, drawn in _rows(connection, table, column, names, user)
        )
        if count:
            found[f"dagster.{table}.{column}"] = count
    return found


def rewrite(connection: psycopg.Connection, identity: Identity) -> None:
    """Replace the id by the pseudonym."""
    for table, column, names in _PLACES:
        for place, text, drawn in _rows(connection, table, column, names, identity.id):
            changed = _without(text, drawn, identity.id, identity.pseudonym)
            if changed != text:
                connection.execute(
                    sql.SQL("UPDATE {table} SET {column} = %s WHERE ctid = %s::tid AND {column} = %s").format(
                        table=sql.Identifier("dagster", table), column=sql.Identifier(column)
                    ),
                    [changed, place, text],
                )


def _rows(
    connection: psycopg.Connection, table: str, column: str, names: tuple[str, ...], user: str
) -> list[tuple[str, str, bool]]:
    """Return the rows that may hold the id: their `ctid`, their text, and whether its plot shows users."""
    if connection.execute("SELECT to_regclass(%s)", [f"dagster.{table}"]).fetchone() == (None,):
        return []
    cell = json.dumps(user)
    return connection.execute(
        sql.SQL(
            "SELECT ctid::text, {column}, ARRAY[{names}]::text[] && %(drawn)s FROM {table}"
            " WHERE ARRAY[{names}]::text[] && %(shown)s AND ("
            "  strpos({column}, 'TableRecord') > 0"
            "   AND (strpos({column}, '\"id\": ' || %(cell)s) > 0"
            "    OR strpos({column}, '\"id\":' || %(cell)s) > 0)"
            "  OR ARRAY[{names}]::text[] && %(drawn)s AND strpos({column}, 'svg+xml;base64,') > 0"
            "   AND strpos(convert_from(decode(substring({column} FROM 'svg\\+xml;base64,([A-Za-z0-9+/=]+)'),"
            "    'base64'), 'UTF8'), %(bar)s) > 0)"
        ).format(
            table=sql.Identifier("dagster", table),
            column=sql.Identifier(column),
            names=sql.SQL(", ").join(map(sql.Identifier, names)),
        ),
        {
            "shown": _keys(_SHOWN_IN),
            "drawn": _keys(_DRAWN_IN),
            "cell": cell,
            "bar": _bar(user),
        },
    ).fetchall()


def _keys(assets: tuple[str, ...]) -> list[str]:
    """The assets as Dagster stores them: the name of a step, and the JSON of an asset's key."""
    return [*assets, *(json.dumps([asset]) for asset in assets)]


def _without(text: str, drawn: bool, old: str, new: str) -> str:
    """Return the event with `new` for `old`; the same text if `old` is not in it."""
    changed = _PICTURE.sub(lambda match: _redrawn(match[0], old, new), text) if drawn else text
    event = json.loads(changed)
    return json.dumps(event) if _replace_cells(event, old, new) else changed


def _redrawn(picture: str, old: str, new: str) -> str:
    svg = base64.b64decode(picture).decode()
    if _bar(old) not in svg:
        return picture
    return base64.b64encode(svg.replace(_bar(old), _bar(new)).encode()).decode()


def _bar(user: str) -> str:
    """The label that those versions drew beside a user's bar: escaped where unprintable, and cut in its
    middle."""
    shown = "".join(
        letter if letter.isprintable() and letter != "\\" else letter.encode("unicode_escape").decode()
        for letter in user
    )
    shown = shown if len(shown) <= 24 else f"{shown[:8]}…{shown[-15:]}"
    return f'text-anchor="end">{escape(shown)}<'


def _replace_cells(part: Any, old: str, new: str) -> bool:
    """Replace an id in the records of tables anywhere in an event; returns whether there was one."""
    if isinstance(part, list):
        return sum(_replace_cells(item, old, new) for item in part) > 0
    if not isinstance(part, dict):
        return False
    if part.get("__class__") == "TableRecord":
        cells = part.get("data")
        if isinstance(cells, dict) and cells.get("id") == old:
            cells["id"] = new
            return True
        return False
    return sum(_replace_cells(item, old, new) for item in part.values()) > 0
