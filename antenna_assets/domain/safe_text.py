"""Untrusted text made safe to show: no terminal interprets it, and different texts never look the same.

Letters of different scripts that resemble each other, as of Latin and Cyrillic, are not distinguished.
"""

import re
import unicodedata
from collections.abc import Sequence
from itertools import groupby

from rich.markup import escape

# No character below it composes with another one: one comparison is enough for most text.
_FIRST_COMBINING = "\u0300"
# Printable by Python's tables, but drawn as nothing or as a blank: joiners, fillers, variation selectors.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
# The most combining marks on one letter; more of them would cover the lines around.
_MARKS = 8
_EDGE_BLANKS = re.compile(r"^ +| +$|(?<= ) +")


def safe_text(value: bytes | str, longest: int | None = None) -> str:
    """Printable text for the bytes, in Unicode's normal form C; beyond `longest` characters it ends in `…`.

    Bytes that are not UTF-8 become `\\xff`, controls and invisible characters `\\n`, `\\x1b`, `\\u202e`, and
    a backslash is doubled. What a renderer would draw like another spelling of the same letter is escaped:
    `e\\u0301`. So different values have different texts, also for the eye and for programs that normalize.
    """
    if longest is not None:
        # Only as much as is shown, as a message may have a megabyte. A character has at most four bytes.
        cut = value[: 4 * (longest + 1)]
        return _shortened(safe_text(cut), longest)
    text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
    if max(text, default="") < _FIRST_COMBINING:
        return "".join(map(_safe, text))
    return _normalized(text)


def safe_name(name: bytes | str, longest: int | None = None) -> str:
    """`safe_text` of a key or name in a table; blanks at its ends or after a blank are shown as `\\x20`."""
    return _EDGE_BLANKS.sub(lambda match: r"\x20" * len(match[0]), safe_text(name, longest))


def safe_cell(value: bytes | str, longest: int | None = None) -> str:
    """`safe_name` with Rich's markup escaped, for cells of its tables: `[red]` is shown literally."""
    return escape(safe_name(value, longest))


def _safe(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":
        # From surrogateescape: a byte that is not UTF-8.
        return f"\\x{ord(letter) - 0xDC00:02x}"
    if letter == "\\" or not letter.isprintable() or _INVISIBLE.match(letter):
        return letter.encode("unicode_escape").decode("ascii")
    return letter


def _normalized(text: str) -> str:
    """The safe text; characters that NFC would compose with a preceding one, or replace, are escaped."""
    shown: list[str] = []
    tail, marks = "", 0  # What the next character may compose with, and the number of consecutive marks.
    for letter in text:
        safe, is_mark = _safe(letter), unicodedata.combining(letter) > 0
        marks = marks + 1 if is_mark else 0
        drawn_so = marks <= _MARKS and unicodedata.is_normalized("NFC", tail + letter)
        if safe == letter and letter >= _FIRST_COMBINING and not drawn_so:
            safe = letter.encode("unicode_escape").decode("ascii")
        shown.append(safe)
        tail = tail + letter if is_mark and safe == letter else safe[-1]
    return "".join(shown)


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


LABEL_LENGTH = 24
"""Characters of a name beside a bar or in a legend."""


def label(name: str) -> str:
    """A name that fits into a legend, cut in the middle, as similar names often begin alike."""
    shown = safe_name(name)
    return shown if len(shown) <= LABEL_LENGTH else f"{shown[:8]}…{shown[9 - LABEL_LENGTH :]}"


def labels(names: Sequence[str]) -> list[str]:
    """A label for each of the names, no two alike.

    Long names that share both ends are cut around the first difference. Names that still look the same, or
    occur twice, are numbered.
    """
    found = [label(name) for name in names]
    by_label = sorted(range(len(names)), key=lambda place: found[place])
    for _, group in groupby(by_label, key=lambda place: found[place]):
        places = list(group)
        shown = [safe_name(names[place]) for place in places]
        differs = next(
            (at for at, letters in enumerate(zip(*shown, strict=False)) if len(set(letters)) > 1), 0
        )
        if len(places) > 1 and len(set(shown)) > 1:
            start = max(4, differs - 3)
            for place, name in zip(places, shown, strict=True):
                part = name[start : start + LABEL_LENGTH - 6]
                found[place] = f"{name[:4]}…{part}" + ("…" if start + len(part) < len(name) else "")
    taken: set[str] = set()
    for place, text in enumerate(found):
        number = 1
        while found[place] in taken:
            number += 1
            found[place] = f"{text} ({number})"
        taken.add(found[place])
    return found


def hex_lines(value: bytes) -> list[str]:
    """The bytes in hexadecimal, 32 to a line, after their position."""
    return [f"{start:06x}  {value[start : start + 32].hex(' ')}" for start in range(0, len(value), 32)]
