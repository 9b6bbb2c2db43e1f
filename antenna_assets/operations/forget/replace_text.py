"""A user's id within the bytes of a message, whatever it wears there.

Everything takes time that is linear in the message: nobody knows what a rejected one holds, or how large it is. Where an
id may be is for `lake.py`, `tables.py` and `dagster_events.py`.
"""

import base64
import binascii
import codecs
import json
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from urllib.parse import unquote

from antenna_assets.domain.schema import EVENT

# A shorter text may mean anything where it stands by itself.
_SURE_CHARACTERS = 8
_FIELDS = frozenset(EVENT.names)
# Escapes within escapes: what is deeper is not judged.
_LAYERS = 6
_DEPTH = 3

COMPRESSED = "compressed"
BINARY = "no text"
NOT_UTF8 = "no UTF-8, and the id has letters beyond ASCII"
TOO_DEEP = f"escaped more than {_LAYERS} times over"
UNCLEAR = "the id stands in it as a word or number that may mean something else"
LONGER = "its user's id holds this one within"

_MAGIC = (
    b"\x1f\x8b",
    b"\x28\xb5\x2f\xfd",
    b"\x04\x22\x4d\x18",
    b"\xfd7zXZ\x00",
    b"BZh",
    b"PK\x03\x04",
    b"\xff\x06\x00\x00sNaPpY",
    b"\x78\x01",
    b"\x78\x9c",
    b"\x78\xda",
)
_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
# A schema registry's frame: a zero and the schema's number.
_FRAME = 5

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

# To its end, or to the text's, so that no part of it is looked at twice.
_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.+-])[-+]?\d++(?:\.\d++)?(?:[eE][-+]?\d{1,6}+)?(?![\w.])")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{16,}+={0,2}")
_HEX = re.compile(r"(?<![0-9a-fA-F])[0-9a-fA-F]{16,}+")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

# What stands before a value, within so many characters: a member's name or an element's.
_AROUND = 60
_NAMED = re.compile(
    r"""(?:(\w{1,32})\\{0,8}["']?\s{0,4}[:=]\s{0,4}\[?\s{0,4}\\{0,8}(["']?)|<(\w{1,32})>)\s{0,4}\Z""",
    re.ASCII,
)
_QUOTED = re.compile(r"""(["'])\s{0,4}\Z""")
_ENDS = re.compile(r"""\s{0,4}(?:[,;}\]&<\r\n]|\Z)""")
_IN_JSON = re.compile(r"[:,\[]\s{0,4}\Z")
_LITERALS = frozenset(("true", "false", "null"))
# Of members that say who somebody is, `id` and what ends so aside.
_USERS = frozenset(("user", "msisdn", "imsi", "phone", "subscriber", "customer"))


@dataclass(frozen=True)
class Judged:
    """A message with the pseudonym in the id's place; `why_not` says why nobody can tell whether the id is in what is left."""

    value: bytes
    has: bool = False
    why_not: str | None = None


class Search:
    """Looks for one id in any number of messages.

    Args:
        is_a_name: the id is also the name of an app or an antenna, so that it means nobody in their fields.
    """

    def __init__(self, old: str, new: str, *, is_a_name: bool = False) -> None:
        self._new = new
        self._is_a_name = is_a_name
        self._ascii = old.isascii()
        self._literal = old in _LITERALS
        self._number = Decimal(old) if re.fullmatch(r"\+?[0-9]+", old) else None
        self._sure = len(old) >= _SURE_CHARACTERS and old not in _FIELDS
        self._old = old
        # Such characters are everywhere in JSON: as an id they are looked for in its strings alone.
        self._syntax = not self._sure and re.search(r"\w", old) is None
        forms = {old} | {unicodedata.normalize(form, old) for form in ("NFC", "NFD", "NFKC", "NFKD")}
        if not self._ascii:
            for encoding in ("latin-1", "cp1252"):
                try:
                    forms.add(old.encode(encoding).decode("utf-8", "surrogateescape"))
                except UnicodeError:
                    continue
        plain = [re.escape(form) for form in sorted(forms, key=len, reverse=True)]
        if _UUID.fullmatch(old):
            plain.append("(?i:" + "-?".join(map(re.escape, old.split("-"))) + ")")
        utf8 = old.encode("utf-8", "surrogateescape")
        encoded = {base64.b64encode(utf8).decode(), base64.urlsafe_b64encode(utf8).decode(), utf8.hex()}
        encoded |= {form.rstrip("=") for form in encoded} | {utf8.hex().upper()}
        # By itself, and no part of a number.
        self._whole = re.compile(r"(?<![\w-])(?<!\d\.)(?:" + "|".join(plain) + r")(?![\w-]|\.\d)")
        codes = [re.escape(form) for form in sorted(encoded, key=len, reverse=True) if len(form) >= 8]
        self._encoded = re.compile(r"(?<![\w+/-])(?:" + "|".join(codes) + r")(?![\w+/=-])") if codes else None

    def judge(self, value: bytes) -> Judged:
        """Whether the id is in a message, and the message without it; all else stays byte for byte."""
        text, encoding, errors, why_not = _decoded(value)
        if why_not is None and not self._ascii and any("\udc80" <= letter <= "\udcff" for letter in text):
            why_not = NOT_UTF8
        changed, unclear = self._without_syntax(text, 0) if self._syntax else self._without(text, 0)
        if changed is None:
            return Judged(value, why_not=why_not or unclear)
        return Judged(changed.encode(encoding, errors), True, why_not or unclear)

    def _without(self, text: str, depth: int) -> tuple[str | None, str | None]:
        """The text without the id, None if it is not there; and why it may still be there."""
        unclear: dict[tuple[int, int], str] = {}
        spans: list[tuple[int, int, str]] = []
        layer = _Layer(text)
        for number in range(_LAYERS + 1):
            for start, end, verdict in self._found(layer.text, depth):
                first, last = layer.origin(start, end)
                if verdict is None:
                    # What it is in is read better without the escapes.
                    unclear.pop((first, last), None)
                elif verdict in (UNCLEAR, LONGER):
                    unclear[first, last] = verdict
                else:
                    quoted = verdict == "" and number == 0
                    spans.append((first, last, f'"{self._new}"' if quoted else verdict or self._new))
                    unclear.pop((first, last), None)
            inner = layer.without_escapes()
            if inner is None:
                break
            layer = inner
        else:
            unclear[0, len(text)] = TOO_DEEP
        return (_spliced(text, spans) if spans else None), next(iter(unclear.values()), None)

    def _without_syntax(self, text: str, depth: int) -> tuple[str | None, str | None]:
        """As `_without`, of an id that has no letter and no digit: in each JSON string that is the id, or holds one."""

        def string(match: re.Match[str]) -> str:
            try:
                inner = json.loads(match[0], strict=False)
            except ValueError:
                return match[0]
            if inner.strip() == self._old.strip():
                return json.dumps(self._new)
            changed = self._without_syntax(inner, depth + 1)[0] if '"' in inner and depth < _LAYERS else None
            return match[0] if changed is None else json.dumps(changed)

        changed = _STRING.sub(string, text)
        return (changed if changed != text else None), None

    def _found(self, text: str, depth: int) -> Iterator[tuple[int, int, str | None]]:
        """Where the id is in the text, each with what `_meaning` says of it."""
        seen: set[int] = set()
        for match in self._whole.finditer(text):
            seen.add(match.start())
            yield match.start(), match.end(), self._meaning(text, match.start(), match.end(), spelled_so=True)
        if self._number is not None:
            for match in _NUMBER.finditer(text):
                if match.start() not in seen and self._is_the_number(match[0]):
                    what = self._meaning(text, match.start(), match.end(), spelled_so=False)
                    yield match.start(), match.end(), what
        if self._encoded is not None:
            for match in self._encoded.finditer(text):
                yield match.start(), match.end(), self._new
        if depth < _DEPTH:
            yield from self._within_codes(text, depth)

    def _is_the_number(self, token: str) -> bool:
        try:
            return Decimal(token) == self._number
        except InvalidOperation:
            return False

    def _meaning(self, text: str, start: int, end: int, *, spelled_so: bool) -> str | None:
        """What takes the place of an occurrence (empty: the pseudonym as a JSON string), or why that is not clear; None: it
        is not the user."""
        before, after = text[max(0, start - _AROUND) : start], text[end : end + _AROUND]
        named = _NAMED.search(before)
        name = ((named[1] or named[3]) if named else "").lower()
        quote = named[2] if named else None
        if quote is None and (opened := _QUOTED.search(before)):
            quote = opened[1]
        rest = after.lstrip("\\ \t\r\n")
        # A text that ends there was cut off.
        whole = bool(quote) and (not rest or rest.startswith(quote or ""))
        bare_value = not quote and bool(named) and _ENDS.match(after) is not None
        if not spelled_so and quote:
            return None  # Another text than the id.
        rest = rest[1:].lstrip() if whole else rest
        if rest[:1] in (":", "=") and text[start:end] in _FIELDS:
            return None  # The name of one of an event's own fields.
        if name in ("bytes", "timestamp"):
            return None
        if name in ("app", "antenna_id") and (self._is_a_name or not (whole or self._sure)):
            return None
        number = self._number is not None or self._literal
        escaped = bool(named) and "\\" in (named or [""])[0]
        in_place = "" if not quote and number and not escaped and _IN_JSON.search(before) else self._new
        if name.endswith("id") or name in _USERS:
            if whole or not quote:
                return in_place
            # Within a longer id, which is another user's, or this one's in other clothes.
            return LONGER if self._sure else None
        if whole and not (rest[:1] == ":" and not self._sure):
            return self._new
        if self._sure:
            return in_place
        if not spelled_so or (bare_value and number):
            return None
        return UNCLEAR

    def _within_codes(self, text: str, depth: int) -> Iterator[tuple[int, int, str]]:
        """The same of what is written in base64 or in hexadecimal digits."""
        for match in _BASE64.finditer(text):
            word = match[0].rstrip("=")
            padded = word + "=" * (-len(word) % 4)
            try:
                inner = base64.b64decode(
                    padded, altchars=b"-_" if {"-", "_"} & set(word) else None, validate=True
                )
                clear = inner.decode("utf-8")
            except (binascii.Error, ValueError):
                continue
            changed, why_not = self._without(clear, depth + 1) if not _CONTROL.search(clear) else (None, None)
            if changed is not None:
                yield match.start(), match.end(), base64.b64encode(changed.encode()).decode()
            if why_not is not None:
                yield match.start(), match.end(), UNCLEAR
        for match in _HEX.finditer(text):
            try:
                clear = bytes.fromhex(match[0]).decode("utf-8")
            except ValueError:
                continue
            changed, why_not = self._without(clear, depth + 1) if not _CONTROL.search(clear) else (None, None)
            if changed is not None:
                yield match.start(), match.end(), changed.encode().hex()
            if why_not is not None:
                yield match.start(), match.end(), UNCLEAR


class _Layer:
    """A text after so many rounds of unescaping, that knows where its characters come from."""

    def __init__(self, text: str, before: "_Layer | None" = None) -> None:
        self.text = text
        self._before = before
        # The characters that were escapes: where they are, and from where to where they were.
        self._at: list[int] = []
        self._from: list[int] = []
        self._until: list[int] = []

    def without_escapes(self) -> "_Layer | None":
        """The next layer; None if nothing is escaped."""
        pieces: list[str] = []
        inner = _Layer("", self)
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
        """From where to where a part of this text stood in the first one."""
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
    """The one character that an escape stands for."""
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


def _spliced(text: str, spans: list[tuple[int, int, str]]) -> str:
    """The text with each span's own text in its place; of spans that overlap, the first and longest."""
    pieces: list[str] = []
    end = 0
    for first, last, new in sorted(spans, key=lambda span: (span[0], -span[1])):
        if first >= end:
            pieces += (text[end:first], new)
            end = last
    return "".join((*pieces, text[end:]))


def _decoded(value: bytes) -> tuple[str, str, str, str | None]:
    """A message as text, the encoding and its way with errors to get the same bytes again, and why it is no text."""
    for encoding in _encodings(value):
        try:
            return value.decode(encoding), encoding, "strict", None
        except UnicodeDecodeError:
            continue
    text = value.decode("utf-8", "surrogateescape")
    body = text[_FRAME:] if text.startswith("\x00") else text
    why_not = None
    if _CONTROL.search(body) and not ("\x00" not in body and body.lstrip().startswith(("{", "[", '"'))):
        why_not = COMPRESSED if value.startswith(_MAGIC) else BINARY
    return text, "utf-8", "surrogateescape", why_not


def _encodings(value: bytes) -> Iterator[str]:
    for mark, encoding in _BOMS:
        if value.startswith(mark):
            yield encoding
    # Without a mark: of text that is mostly ASCII, every other byte is zero, or three of four.
    quarter = len(value) // 4
    if not quarter or b"\x00" not in value:
        return
    for encoding, width, zero in (
        ("utf-32-le", 4, 3),
        ("utf-32-be", 4, 0),
        ("utf-16-le", 2, 1),
        ("utf-16-be", 2, 0),
    ):
        high = value[zero::width]
        if len(value) % width == 0 and high.count(0) * 2 > len(high):
            try:
                if not _CONTROL.search(value.decode(encoding)):
                    yield encoding
            except UnicodeDecodeError:
                continue
