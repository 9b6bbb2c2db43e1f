"""Text with its escapes undone, layer by layer, that knows where each character came from."""

import re
from bisect import bisect_right
from urllib.parse import unquote

# One character each: of JSON and of most languages, of a URL, of HTML.
_ESCAPE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}|\\."
    r"|%[0-7][0-9a-fA-F]|%[cCdD][0-9a-fA-F]%[89abAB][0-9a-fA-F]"
    r"|%[eE][0-9a-fA-F](?:%[89abAB][0-9a-fA-F]){2}|%[fF][0-7](?:%[89abAB][0-9a-fA-F]){3}"
    r"|&#[0-9]{1,7};|&#[xX][0-9a-fA-F]{1,6};|&(?:quot|apos|amp|lt|gt);",
    re.DOTALL,
)
_SHORT = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_ENTITIES = {"quot": '"', "apos": "'", "amp": "&", "lt": "<", "gt": ">"}


class Layer:
    """A text after some rounds of unescaping, with the origin of each of its characters."""

    def __init__(self, text: str, before: "Layer | None" = None) -> None:
        self.text = text
        self._before = before
        # Of each character that was an escape: its place, and the span of the escape in the layer before.
        self._at: list[int] = []
        self._from: list[int] = []
        self._until: list[int] = []

    def without_escapes(self) -> "Layer | None":
        """Return the next layer; None if nothing is escaped."""
        pieces: list[str] = []
        inner = Layer("", self)
        length = end = 0
        for match in _ESCAPE.finditer(self.text):
            length += match.start() - end
            pieces += (self.text[end : match.start()], _unescaped(match[0]))
            end = match.end()
            inner._at.append(length)
            inner._from.append(match.start())
            inner._until.append(end)
            length += 1
        if not pieces:
            return None
        inner.text = "".join((*pieces, self.text[end:]))
        return inner

    def origin(self, start: int, end: int) -> tuple[int, int]:
        """Return the span in the first layer of a span of this one."""
        layer = self
        while layer._before is not None:
            start, end = layer._origin(start)[0], layer._origin(end - 1)[1]
            layer = layer._before
        return start, end

    def _origin(self, place: int) -> tuple[int, int]:
        number = bisect_right(self._at, place) - 1
        if number < 0:
            return place, place + 1
        if self._at[number] == place:
            return self._from[number], self._until[number]
        moved = self._until[number] + place - self._at[number] - 1
        return moved, moved + 1


def _unescaped(text: str) -> str:
    """Return the character of an escape."""
    if text[0] == "%":
        return unquote(text, errors="replace")[:1]
    if text[0] == "&":
        if text[1] != "#":
            return _ENTITIES[text[1:-1]]
        code = int(text[3:-1], 16) if text[2] in "xX" else int(text[2:-1])
        return chr(code) if code <= 0x10FFFF else "\ufffd"
    if len(text) == 12:
        return chr(0x10000 + ((int(text[2:6], 16) & 0x3FF) << 10) + (int(text[8:], 16) & 0x3FF))
    if len(text) > 2:
        return chr(int(text[2:], 16))
    return _SHORT.get(text[1], text[1])
