"""A JSON parser without recursion that keeps little: it finds repeated names, half surrogate pairs and depth.

Its bounds are those that Spark's parser had (decision 32), so that no verdict has changed.
"""

import re
from dataclasses import dataclass, field
from json.decoder import scanstring  # type: ignore[attr-defined]

MAX_DEPTH = 1_000
"""Levels of arrays and objects, the outermost counted."""

MAX_DIGITS = 1_000
"""Digits of a number, those of its fraction and exponent counted."""

_KEPT_CHARACTERS = 200
_KEPT_NUMBER = 18

_skip = re.compile(r"[ \t\n\r]*").match
_number = re.compile(r"-?(?:0|[1-9][0-9]*)((?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)").match
_half_pair = re.compile("[\ud800-\udfff]").search
_not_a_digit = re.compile(r"[^0-9]+")

_CLOSING = {"{": "}", "[": "]"}
_CONSTANTS: dict[str, tuple[str, object]] = {"t": ("true", True), "f": ("false", False), "n": ("null", None)}

_OPENED = object()
_CLOSED = object()


class NotJson(ValueError):
    """The text is not JSON, or beyond the bounds."""


class Written(str):
    """A number as it is written: one with a fraction or an exponent, or a long one."""

    __slots__ = ()


class Nested(str):
    """The beginning of an array or object within the outermost one, as it is written."""

    __slots__ = ()


@dataclass
class Exact:
    """The first value of a text.

    Attributes:
        members: those of the outermost object, the last one of a repeated name; None for another value.
        repeated: its repeated names, in their order.
        broken: a nested object repeats a name, or a text is half a surrogate pair.
        depth: levels; 0 for a text, number or constant.
        end: the index behind the value.
    """

    members: dict[str, object] | None = None
    repeated: list[str] = field(default_factory=list)
    broken: bool = False
    depth: int = 0
    end: int = 0


def read(text: str) -> Exact:
    """The first value of a text that begins with it.

    Raises:
        ValueError: it is not JSON, or has more levels or digits than the bounds allow.
    """
    return _Parser(text).read()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._found = Exact()
        # The names of each open object; None for an array.
        self._open: list[dict[str, int] | None] = []
        # How often the outermost object has each name; the last name, and where its value begins.
        self._names: dict[str, int] = {}
        self._name = ""
        self._begin = 0

    def read(self) -> Exact:
        while True:
            value = self._value()
            if value is _OPENED:
                continue
            self._close(value)
            if not self._open:
                break
        self._found.repeated = [name for name, times in self._names.items() if times > 1]
        self._found.end = self._at
        return self._found

    def _value(self) -> object:
        """Read a scalar; or step into an array or object: `_OPENED`, or `_CLOSED` if it is empty."""
        text, at = self._text, self._at
        first = text[at : at + 1]
        if first == '"':
            return self._string()
        if first in ("{", "["):
            return self._enter(first)
        if first in _CONSTANTS:
            word, value = _CONSTANTS[first]
            if not text.startswith(word, at):
                raise NotJson(first)
            self._at = at + len(word)
            return value
        return self._number()

    def _enter(self, bracket: str) -> object:
        open_, found = self._open, self._found
        if bracket == "[":
            open_.append(None)
        elif open_:
            open_.append({})
        else:
            open_.append(self._names)
            found.members = {}
        if len(open_) > MAX_DEPTH:
            raise NotJson("too deep")
        found.depth = max(found.depth, len(open_))
        self._step(1)
        if self._text[self._at : self._at + 1] == _CLOSING[bracket]:
            return _CLOSED
        if bracket == "{":
            self._member()
        return _OPENED

    def _close(self, value: object) -> None:
        """Go on behind a value: to the next one, or to the end of the outermost."""
        open_, text = self._open, self._text
        if value is not _CLOSED:
            self._keep(value)
            if not open_:
                return
            self._step(0)
        while True:
            names, sign = open_[-1], text[self._at : self._at + 1]
            if sign == ",":
                self._step(1)
                if names is not None:
                    self._member()
                return
            if sign != ("]" if names is None else "}"):
                raise NotJson(sign)
            self._at += 1
            open_.pop()
            if not open_:
                return
            if len(open_) == 1:
                self._keep(Nested(text[self._begin : min(self._at, self._begin + _KEPT_CHARACTERS)]))
            self._step(0)

    def _keep(self, value: object) -> None:
        if len(self._open) == 1 and self._found.members is not None:
            self._found.members[self._name] = value

    def _member(self) -> None:
        """Read a member's name, up to its value."""
        if self._text[self._at : self._at + 1] != '"':
            raise NotJson("no name")
        name = self._string()
        self._step(0)
        if self._text[self._at : self._at + 1] != ":":
            raise NotJson("no colon")
        self._step(1)
        names = self._open[-1]
        assert names is not None
        if len(self._open) == 1:
            names[name] = names.get(name, 0) + 1
            self._name, self._begin = name, self._at
        elif name in names:
            self._found.broken = True
        else:
            names[name] = 1

    def _string(self) -> str:
        value, self._at = scanstring(self._text, self._at + 1, True)
        if not value.isascii() and _half_pair(value):
            self._found.broken = True
        return value

    def _number(self) -> int | Written:
        match = _number(self._text, self._at)
        if match is None:
            raise NotJson("no value")
        self._at = match.end()
        digits = match[0]
        if len(digits) > MAX_DIGITS and len(_not_a_digit.sub("", digits)) > MAX_DIGITS:
            raise NotJson("too many digits")
        return Written(digits) if match[1] or len(digits) > _KEPT_NUMBER else int(digits)

    def _step(self, count: int) -> None:
        match = _skip(self._text, self._at + count)
        assert match is not None
        self._at = match.end()
