"""The layout of most messages, and a fast path for them: cut at their quotes, without a parser.

The fast path reads exactly what the parser would read: the values that were cut out, put together again in
the layout, must be the message byte for byte, and may hold no quote, escape or control character. All other
messages, valid or not, take the slow path through `parse.py`, which also gives all verdicts (decision 12).
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

SAMPLE = 100
"""Messages that the layout is learned from."""

SAMPLE_BYTES = 4_096
"""Longer messages are not sampled: all samples are sent to this process."""

LEARN_AGAIN_SECONDS = 600.0
"""Senders change. A sample costs a tenth of a second."""

_VALUE = r'(?P<value{0}>-?[0-9.]+|"[^"\\]*")'
_FIELD = r' *"(?P<name{0}>[a-z_]+)" *: *' + _VALUE
_MESSAGE = re.compile(r" *\{" + " *,".join(_FIELD.format(number) for number in range(5)) + r" *\} *")

# Printable ASCII without quote and backslash. \z and not $, which matches before a final newline as well.
_PLAIN = r"r'^[ !#-\[\]-~]*\z'"


@dataclass(frozen=True)
class Layout:
    """The five fields in their order, and the text before, between and after their values.

    Attributes:
        names: the fields.
        around: one more than fields; the quotes of a text value are part of it.
    """

    names: tuple[str, ...]
    around: tuple[str, ...]


def layout_of(message: bytes) -> Layout | None:
    """The layout of a message; None if it is not a plain one."""
    found = _MESSAGE.fullmatch(message.decode("ascii", errors="replace"))
    if found is None:
        return None
    names = tuple(found[f"name{number}"] for number in range(5))
    quoted = {name: found[f"value{number}"].startswith('"') for number, name in enumerate(names)}
    if quoted != {**dict.fromkeys(NUMBERS, False), **dict.fromkeys(TEXTS, True)}:
        return None
    # The text between two values, white space included.
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
    """The most frequent layout; None if no message is a plain one."""
    layouts = Counter(filter(None, (layout_of(message) for message in messages if message)))
    return next((layout for layout, _ in layouts.most_common(1)), None)


class CommonLayout:
    """The common layout of a stream, learned from its first messages and again from time to time."""

    def __init__(self) -> None:
        self._layout: Layout | None = None
        self._learned: float | None = None

    def of(self, messages: "DataFrame") -> Layout | None:
        """The common layout, learned from a few of these messages (`value`) if that is due."""
        now = time.monotonic()
        if self._learned is None or now - self._learned > LEARN_AGAIN_SECONDS:
            some = messages.select("value").limit(SAMPLE).where(f"octet_length(value) <= {SAMPLE_BYTES}")
            values = (row.value for row in some.collect())
            self._layout, self._learned = common_layout(values), now
        return self._layout


def steps(layout: Layout | None) -> list[dict[str, str]]:
    """SQL that adds `plain` and `cut_<field>`: whether a message's `text` has the layout, and its values.

    Each step is a separate projection. The values are meaningful only where the message is plain.
    """
    if layout is None:
        return [
            {"plain": "false", **{f"cut_{name}": f"CAST(NULL AS {type_})" for name, type_ in _TYPES.items()}}
        ]
    again = ", ".join(
        part
        for number, name in enumerate(layout.names)
        for part in (f"'{layout.around[number]}'", f"text_{name}")
    )
    return [
        {"parts": "split(text, '\"')"},
        {f"text_{name}": _cut(layout, number) for number, name in enumerate(layout.names)},
        {f"cut_{name}": f"try_cast(text_{name} AS {_TYPES[name]})" for name in layout.names},
        {
            # A number as JSON and this SQL write it: no exponent, no leading zero or plus; fewer than six
            # decimals may be.
            "plain": f"""coalesce(concat({again}, '{layout.around[-1]}') = text
                AND CAST(cut_bytes AS string) = text_bytes
                AND startswith(CAST(cut_timestamp AS string), text_timestamp)
                AND NOT endswith(text_timestamp, '.')
                AND concat({", ".join(f"cut_{name}" for name in TEXTS)}) RLIKE {_PLAIN}, false)"""
        },
    ]


def _cut(layout: Layout, number: int) -> str:
    """A field's value, cut out of `parts`, the text between the message's quotes."""
    before, behind = layout.around[number : number + 2]
    part = f"get(parts, {sum(text.count(chr(34)) for text in layout.around[: number + 1])})"
    if layout.names[number] in TEXTS:
        return part
    begin, end = len(before.rpartition('"')[2]), len(behind.partition('"')[0])
    return f"substring({part}, {begin + 1}, length({part}) - {begin + end})"
