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

_PRINTABLE = "[ -~]*"

# Of fields that are no part of an event. Shorter than what the strict function calls too long.
_EXTRA_TEXT = r"[ !#-\[\]-~]*"
_EXTRA_SCALAR = r"(true|false|null|-?(0|[1-9][0-9]{0,99})([.][0-9]{1,99})?([eE][+-]?[0-9]{1,99})?)"


def query(layouts: Sequence[Layout], full_hours: Collection[int]) -> str:
    """A query over `messages`, with parameters for the oldest and newest microsecond; neither is negative.

    `messages` has `bytes_as_text` (the value), `ascii` (whether it is), `printable` (ASCII without a control
    character), `partition`, `offset` and `row`. The result has the last three, `layout` (its index; null:
    not accepted) and, meaningful where that is not null: `micros`, the four other fields, `hours` (since
    1970).

    Args:
        layouts: at least one.
        full_hours: hours that take no more events.
    """
    placed = " ".join(f"WHEN {_has(layout)} THEN {place}" for place, layout in enumerate(layouts))
    most_parts = max(len(_parts(layout)) for layout in layouts)
    full = f"AND micros // {HOUR_MICROS} NOT IN ({', '.join(map(str, sorted(full_hours)))})"
    # From the exclamation mark on: not empty, no white space in front.
    texts = " ".join(f"AND {name} >= '!' AND NOT contains({name}, '\"')" for name in TEXTS)
    # Each step is computed once, as its columns are more than copies of columns. Within the condition of a
    # CASE, unlike elsewhere, AND looks at its second side only where the first one holds. The cast with an
    # exponent is exact, but rounds what is behind the microsecond, and both casts accept more than JSON does:
    # 1_000, +1, 01. So the numbers must be written as DuckDB writes them.
    return f"""
        WITH decoded AS (
            SELECT CASE WHEN ascii THEN bytes_as_text END AS text, printable, partition, "offset", "row"
            FROM messages
        ), split AS (
            SELECT *, string_split(text, {_separator(layouts)}) AS parts
            FROM decoded
        ), extracted AS (
            SELECT * EXCLUDE (parts), len(parts) AS length,
                {", ".join(f"parts[{number}] AS part{number}" for number in range(1, most_parts + 1))}
            FROM split
        ), placed AS (
            SELECT *, CASE {placed} END AS place FROM extracted
        ), cut AS (
            SELECT text, printable, partition, "offset", "row", place,
                {", ".join(f"{_cut(name, layouts)} AS {name}" for name in TEXTS)},
                {_cut("bytes", layouts)} AS bytes_text, {_cut("timestamp", layouts)} AS time_text
            FROM placed
        ), read AS (
            SELECT *, try_cast(bytes_text AS BIGINT) AS bytes,
                try_cast(concat(time_text, 'e6') AS BIGINT) AS micros
            FROM cut
        )
        SELECT micros, {", ".join(TEXTS)}, bytes, micros // {HOUR_MICROS} AS hours,
            partition, "offset", "row", CASE WHEN place IS NOT NULL
                AND micros BETWEEN $1 AND $2 {full if full_hours else ""}
                AND bytes BETWEEN 0 AND {MAX_BYTES} {texts}
                AND CAST(bytes AS VARCHAR) = bytes_text
                AND starts_with(CAST(try_cast(time_text AS DECIMAL(18, 6)) AS VARCHAR), time_text)
                AND NOT ends_with(time_text, '.')
                AND NOT contains(text, '\\')
                AND (printable OR regexp_full_match(concat({", ".join(TEXTS)}), '{_PRINTABLE}'))
                THEN place END AS layout
        FROM read"""  # noqa: S608


@dataclass(frozen=True)
class _Part:
    """What stands between two separators of a layout: a member of the object.

    Attributes:
        sql: the part of a message.
        name: the field whose value is in it; None: all of it is fixed.
        before: the fixed text before the value, or all of the part.
        behind: the fixed text behind the value.
        quoted: the value is a text.
    """

    sql: str
    name: str | None
    before: str
    behind: str
    quoted: bool

    @property
    def value(self) -> str:
        fixed = len(self.before) + len(self.behind)
        return f"substring({self.sql}, {len(self.before) + 1}, strlen({self.sql}) - {fixed})"

    @property
    def conditions(self) -> list[str]:
        """SQL for what is fixed in the part, for the value of a field that is no event's, and for length."""
        if self.name is None:
            return [f"{self.sql} = {_literal(self.before)}"]
        found = [f"starts_with({self.sql}, {_literal(self.before)})"]
        fixed = len(self.before) + len(self.behind)
        if self.behind:
            # Of a shorter part the same characters could be taken twice.
            found += [f"ends_with({self.sql}, {_literal(self.behind)})", f"strlen({self.sql}) >= {fixed}"]
        if self.name in TEXTS:
            found[-1] = f"strlen({self.sql}) BETWEEN {fixed + 1} AND {fixed + TEXTS[self.name]}"
        if self.name not in FIELDS:
            allowed = _EXTRA_TEXT if self.quoted else _EXTRA_SCALAR
            found.append(f"regexp_full_match({self.value}, '{allowed}')")
        return found


def _parts(layout: Layout) -> list[_Part]:
    # No layout holds a NUL, so it can stand for the values. No two of them are in one part.
    parts, fields = [], iter(zip(layout.names, layout.quoted, strict=True))
    for number, text in enumerate("\0".join(layout.around).split(layout.separator), 1):
        before, value, behind = text.partition("\0")
        name, quoted = next(fields) if value else (None, False)
        parts.append(_Part(f"part{number}", name, before, behind, quoted))
    return parts


def _separator(layouts: Sequence[Layout]) -> str:
    """What a message is to be split at. If it is that of another layout, the message only takes longer."""
    separators = {layout.around[0]: _literal(layout.separator) for layout in layouts}
    if len(set(separators.values())) == 1:
        return next(iter(separators.values()))
    # `{"bytes": ` before `{"bytes":`.
    begins = sorted(separators, key=len, reverse=True)
    cases = (f"WHEN starts_with(text, {_literal(begin)}) THEN {separators[begin]}" for begin in begins)
    return f"CASE {' '.join(cases)} END"


def _has(layout: Layout) -> str:
    """Whether the parts of a message are the fixed text of a layout around values of about its kinds."""
    parts = _parts(layout)
    conditions = (condition for part in parts for condition in part.conditions)
    return " AND ".join((f"length = {len(parts)}", *conditions))


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
