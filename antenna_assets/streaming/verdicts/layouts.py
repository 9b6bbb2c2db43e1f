"""Layouts of usual messages: how senders write an event around its values, learned from what they send.

A layout only says where values stand; `cutting.py` makes SQL of it, and no verdict depends on it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from antenna_assets.streaming.verdicts.fields import FIELDS, TEXTS

MOST_LAYOUTS = 8
"""The layouts that are known at a time."""

MOST_VALUES = 24
"""Fields of a layout, the five included."""

SAMPLE_BYTES = 4_096
"""Longer messages teach nothing: the layout would be as long."""

_FADING = 0.9
"""What a batch leaves of the weight of those before it."""

_SPACE = r"[ \t\r\n]*"
_MEMBER = re.compile(
    rf'{_SPACE}"(?P<name>[^"\\\x00-\x1f\x7f]*)"{_SPACE}:{_SPACE}'
    r'(?P<value>"[^"\\\x00-\x1f]*"|-?[0-9][0-9.eE+-]*|true|false|null)'
)
_BEGIN, _BETWEEN = re.compile(rf"{_SPACE}\{{"), re.compile(rf"{_SPACE},")
_END = re.compile(rf"{_SPACE}\}}{_SPACE}")


@dataclass(frozen=True)
class Layout:
    """The fields in their order, and the text before, between and behind their values.

    Attributes:
        names: the five fields of an event, and maybe others with a scalar.
        quoted: for each, whether its value is a text.
        around: one more than fields; the quotes of a text value are part of it.
    """

    names: tuple[str, ...]
    quoted: tuple[bool, ...]
    around: tuple[str, ...]

    @property
    def separator(self) -> str:
        """What stands between two members, up to the quote of a name; a comma alone if that differs."""
        found = {text.removeprefix('"').partition('"')[0] + '"' for text in self.around[1:-1]}
        return found.pop() if len(found) == 1 else ","


def layout_of(message: bytes) -> Layout | None:
    """The layout of a message; None if it is not a plain one: ASCII, no escape, all values scalars."""
    if not message.isascii():
        return None
    text = message.decode("ascii")
    names: list[str] = []
    spans, at = [0], _BEGIN.match(text)
    while at is not None and len(names) < MOST_VALUES:
        member = _MEMBER.match(text, at.end())
        if member is None:
            return None
        names.append(member["name"])
        spans += member.span("value")
        if _END.fullmatch(text, member.end()):
            return _layout(names, [*spans, len(text)], text)
        at = _BETWEEN.match(text, member.end())
    return None


def _layout(names: Sequence[str], spans: Sequence[int], text: str) -> Layout | None:
    if len(set(names)) < len(names) or not set(FIELDS) <= set(names):
        return None
    around = [text[begin:end] for begin, end in zip(spans[::2], spans[1::2], strict=True)]
    quoted = []
    for number, begin in enumerate(spans[1:-1:2]):
        quoted.append(text[begin] == '"')
        if quoted[-1]:
            around[number] += '"'
            around[number + 1] = '"' + around[number + 1]
        elif names[number] in FIELDS and text[begin] not in "-0123456789":
            return None
    kinds = dict(zip(names, quoted, strict=True))
    if any(kinds[name] != (name in TEXTS) for name in FIELDS):
        return None
    return Layout(tuple(names), tuple(quoted), tuple(around))


class Layouts:
    """The layouts in use: the heaviest, by the messages that had them lately."""

    def __init__(self) -> None:
        self._weights: dict[Layout, float] = {}

    @property
    def known(self) -> tuple[Layout, ...]:
        """The heaviest first."""
        return tuple(sorted(self._weights, key=self._weights.__getitem__, reverse=True))

    def record(self, messages: Counter[Layout]) -> None:
        """Record the messages of a batch that had each layout; one without any for long is forgotten."""
        weights = {layout: weight * _FADING + messages[layout] for layout, weight in self._weights.items()}
        self._weights = {layout: weight for layout, weight in weights.items() if weight >= 1}

    def learn(self, sample: Iterable[bytes], each: float) -> bool:
        """Learn the layouts of some messages that have none of the known ones; returns whether any is new.

        Args:
            each: how many messages of the batch one of the sample stands for.
        """
        found = Counter(filter(None, map(layout_of, sample)))
        # A message of a known layout that was not taken has no fault of its layout.
        for layout in self._weights:
            del found[layout]
        # One of its own teaches nothing: it would be compiled for a message.
        wanted = {layout: count * each for layout, count in found.items() if count > 1}
        weights = self._weights | wanted
        kept = sorted(weights, key=weights.__getitem__, reverse=True)[:MOST_LAYOUTS]
        new = any(layout in wanted for layout in kept)
        if new:
            self._weights = {layout: weights[layout] for layout in kept}
        return new
