"""SQL for DuckDB that cuts the values out of messages of known layouts, and accepts what is surely right.

A message is accepted only if its bytes are the text of a layout around values that need no parser: texts of
printable ASCII without quote and backslash, numbers as JSON and this SQL write them alike. Then the strict
function would read the same values, and the bounds are the same integers. All else is left to it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from antenna_assets.domain.schema import MAX_BYTES
from antenna_assets.streaming.verdicts.bounds import HOUR_MICROS
from antenna_assets.streaming.verdicts.fields import FIELDS, TEXTS
from antenna_assets.streaming.verdicts.layouts import Layout

# Of fields that are no part of an event. Shorter than what the strict function calls too long.
_SCALAR = r"(true|false|null|-?(0|[1-9][0-9]{0,99})([.][0-9]{1,99})?([eE][+-]?[0-9]{1,99})?)"
_PRINTABLE = "[ -~]*"


def query(layouts: Sequence[Layout], full_hours: Collection[int]) -> str:
    """A query over `messages`, with parameters for the oldest and newest microsecond.

    `messages` has `text` (the value if it is ASCII, otherwise null), `printable` (it has no control
    character), `value`, `partition`, `offset`, `timestamp`. The result has `micros`, the four other fields,
    `hours` (since 1970) and `layout` (its index), all null for a message that is not accepted; `value`, null
    for one that is; `partition`, `offset`, `timestamp`.

    Args:
        full_hours: hours that take no more events.
    """
    layout_cases = " ".join(f"WHEN {_has(layout)} THEN {place}" for place, layout in enumerate(layouts))
    full = f"AND hours NOT IN ({', '.join(map(str, sorted(full_hours)))})" if full_hours else ""
    texts = " ".join(
        f"AND strlen({name}) BETWEEN 1 AND {longest} AND NOT starts_with({name}, ' ')"
        for name, longest in TEXTS.items()
    )
    # Within the condition of a CASE, unlike elsewhere, AND looks at its second side only where the first one
    # holds. The cast with an exponent is exact, but rounds what is behind the microsecond, and both casts
    # accept more than JSON does: 1_000, +1, 01. So the numbers must be written as DuckDB writes them.
    return f"""
        WITH split AS (
            SELECT *, CASE WHEN NOT contains(text, '\\') THEN string_split(text, '"') END AS parts
            FROM messages
        ), placed AS (
            SELECT *, CASE {layout_cases} END AS place FROM split
        ), cut AS (
            SELECT value, partition, "offset", "timestamp", printable, place,
                {", ".join(f"{_cut(name, layouts)} AS {name}" for name in TEXTS)},
                {_cut("bytes", layouts)} AS bytes_text, {_cut("timestamp", layouts)} AS time_text
            FROM placed
        ), read AS (
            SELECT *, try_cast(bytes_text AS BIGINT) AS bytes,
                try_cast(concat(time_text, 'e6') AS BIGINT) AS micros, micros // {HOUR_MICROS} AS hours
            FROM cut
        ), judged AS (
            SELECT *, CASE WHEN place IS NOT NULL
                AND micros BETWEEN $1 AND $2 {full}
                AND bytes BETWEEN 0 AND {MAX_BYTES} {texts}
                AND CAST(bytes AS VARCHAR) = bytes_text
                AND starts_with(CAST(try_cast(time_text AS DECIMAL(18, 6)) AS VARCHAR), time_text)
                AND NOT ends_with(time_text, '.')
                AND (printable OR regexp_full_match(concat({", ".join(TEXTS)}), '{_PRINTABLE}'))
                THEN place END AS layout
            FROM read
        )
        SELECT micros, {", ".join(TEXTS)}, bytes, hours, layout, partition, "offset", "timestamp",
            CASE WHEN layout IS NULL THEN value END AS value
        FROM judged"""  # noqa: S608


@dataclass(frozen=True)
class _Part:
    """What stands between two quotes of a layout.

    Attributes:
        sql: the part of a message.
        name: the field whose value is in it, if any.
        before: the fixed text before the value, or all of the part.
        behind: the fixed text behind the value.
        quoted: the value is a text, and the whole part.
    """

    sql: str
    name: str | None
    before: str
    behind: str = ""
    quoted: bool = False

    @property
    def value(self) -> str:
        if self.quoted:
            return self.sql
        fixed = len(self.before) + len(self.behind)
        return f"substring({self.sql}, {len(self.before) + 1}, strlen({self.sql}) - {fixed})"

    @property
    def condition(self) -> str | None:
        """SQL for what is fixed in the part, and for the value of a field that is no event's."""
        if self.name is None:
            return f"{self.sql} = {_literal(self.before)}"
        extra = self.name not in FIELDS
        if self.quoted:
            return f"(printable OR regexp_full_match({self.sql}, '{_PRINTABLE}'))" if extra else None
        return (
            f"strlen({self.sql}) > {len(self.before) + len(self.behind)}"
            f" AND starts_with({self.sql}, {_literal(self.before)})"
            f" AND ends_with({self.sql}, {_literal(self.behind)})"
        ) + (f" AND regexp_full_match({self.value}, '{_SCALAR}')" if extra else "")


def _parts(layout: Layout) -> list[_Part]:
    # No layout holds a NUL, so it can stand for the values.
    parts, names = [], iter(zip(layout.names, layout.quoted, strict=True))
    for number, text in enumerate("\0".join(layout.around).split('"'), 1):
        before, value, behind = text.partition("\0")
        name, quoted = next(names) if value else (None, False)
        parts.append(_Part(f"parts[{number}]", name, before, behind, quoted))
    return parts


def _has(layout: Layout) -> str:
    """Whether the parts of a message are the fixed text of a layout, with scalars for other fields."""
    parts = _parts(layout)
    conditions = [f"len(parts) = {len(parts)}", *(part.condition for part in parts)]
    return " AND ".join(filter(None, conditions))


def _cut(name: str, layouts: Sequence[Layout]) -> str:
    """The text of a field's value in a message with one of the layouts."""
    places: dict[str, list[str]] = {}
    for place, layout in enumerate(layouts):
        value = next(part.value for part in _parts(layout) if part.name == name)
        places.setdefault(value, []).append(str(place))
    if len(places) == 1:
        return next(iter(places))
    cases = (f"WHEN place IN ({', '.join(of)}) THEN {value}" for value, of in places.items())
    return f"CASE {' '.join(cases)} END"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
