"""How most messages are spelled, and reading those that are spelled exactly so: cut at their quotes, without a parser.

What is read here is what the parser would read, without exception: the values that were cut out, put together again in
the spelling, must be the message byte for byte, and neither a quote, an escape nor a control character may hide in them.
Whatever is spelled otherwise, good or bad, goes the long way through `parse.py`, which also gives all verdicts.
"""

import re
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

NUMBERS, TEXTS = ("bytes", "timestamp"), ("app", "id", "antenna_id")

_TYPES = {"bytes": "bigint", "timestamp": "decimal(17, 6)", **dict.fromkeys(TEXTS, "string")}

LOOK_AT = 100
"""Messages that the spelling is learned from."""

LOOK_AT_BYTES = 4_096
"""Longer ones are no usual ones, and all of them come to this process."""

LEARN_AGAIN_SECONDS = 600.0
"""Senders change. A look costs a tenth of a second."""

_VALUE = r'(?P<value{0}>-?[0-9.]+|"[^"\\]*")'
_FIELD = r' *"(?P<name{0}>[a-z_]+)" *: *' + _VALUE
_MESSAGE = re.compile(r" *\{" + " *,".join(_FIELD.format(number) for number in range(5)) + r" *\} *")

# Printable ASCII without quote and backslash. \z and not $, which matches before a final newline as well.
_PLAIN = r"r'^[ !#-\[\]-~]*\z'"


@dataclass(frozen=True)
class Layout:
    """The five fields in their order, and what stands before, between and behind their values.

    Attributes:
        names: the fields.
        around: one more than fields; the quotes of a text belong to it.
    """

    names: tuple[str, ...]
    around: tuple[str, ...]


def layout_of(message: bytes) -> Layout | None:
    """How a message is spelled; None if it is no plain one."""
    found = _MESSAGE.fullmatch(message.decode("ascii", errors="replace"))
    if found is None:
        return None
    names = tuple(found[f"name{number}"] for number in range(5))
    quoted = {name: found[f"value{number}"].startswith('"') for number, name in enumerate(names)}
    if quoted != {**dict.fromkeys(NUMBERS, False), **dict.fromkeys(TEXTS, True)}:
        return None
    # What lies between two values, wherever the white space stands.
    ends = [0] + [position for number in range(5) for position in found.span(f"value{number}")]
    ends.append(len(message))
    text = found.string
    around = [text[begin:end] for begin, end in zip(ends[::2], ends[1::2], strict=True)]
    for number, name in enumerate(names):
        if quoted[name]:
            around[number] += '"'
            around[number + 1] = '"' + around[number + 1]
    return Layout(names, tuple(around))


def common_layout(messages: Iterable[bytes | None]) -> Layout | None:
    """The most frequent one; None if no message is a plain one."""
    spellings = Counter(filter(None, (layout_of(message) for message in messages if message)))
    return next((spelling for spelling, _ in spellings.most_common(1)), None)


class CommonLayout:
    """The usual spelling of a stream, learned from its first messages and again from time to time."""

    def __init__(self) -> None:
        self._spelling: Layout | None = None
        self._learned: float | None = None

    def of(self, messages: "DataFrame") -> Layout | None:
        """The usual spelling, from a few of these messages (`value`) if it is time to look."""
        now = time.monotonic()
        if self._learned is None or now - self._learned > LEARN_AGAIN_SECONDS:
            some = messages.select("value").limit(LOOK_AT).where(f"octet_length(value) <= {LOOK_AT_BYTES}")
            values = (row.value for row in some.collect())
            self._spelling, self._learned = common_layout(values), now
        return self._spelling


def steps(spelling: Layout | None) -> list[dict[str, str]]:
    """SQL that adds to a message's `text` whether it is `plain`, and what was cut out of it: `cut_<field>`.

    Each step is a projection of its own. What was cut out means something only where the message is plain.
    """
    if spelling is None:
        return [
            {"plain": "false", **{f"cut_{name}": f"CAST(NULL AS {type_})" for name, type_ in _TYPES.items()}}
        ]
    again = ", ".join(
        part
        for number, name in enumerate(spelling.names)
        for part in (f"'{spelling.around[number]}'", f"text_{name}")
    )
    return [
        {"parts": "split(text, '\"')"},
        {f"text_{name}": _cut(spelling, number) for number, name in enumerate(spelling.names)},
        {f"cut_{name}": f"try_cast(text_{name} AS {_TYPES[name]})" for name in spelling.names},
        {
            # A number is as JSON and we spell it: no exponent, no zero or plus ahead. Decimals may be fewer than six.
            "plain": f"""coalesce(concat({again}, '{spelling.around[-1]}') = text
                AND CAST(cut_bytes AS string) = text_bytes
                AND startswith(CAST(cut_timestamp AS string), text_timestamp) AND NOT endswith(text_timestamp, '.')
                AND concat({", ".join(f"cut_{name}" for name in TEXTS)}) RLIKE {_PLAIN}, false)"""
        },
    ]


def _cut(spelling: Layout, number: int) -> str:
    """The value of a field out of `parts`, which lie between the message's quotes."""
    before, behind = spelling.around[number : number + 2]
    part = f"get(parts, {sum(text.count(chr(34)) for text in spelling.around[: number + 1])})"
    if spelling.names[number] in TEXTS:
        return part
    begin, end = len(before.rpartition('"')[2]), len(behind.partition('"')[0])
    return f"substring({part}, {begin + 1}, length({part}) - {begin + end})"
