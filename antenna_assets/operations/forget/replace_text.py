"""Finding and replacing a user's id within the bytes of a message, however it is written there.

Everything takes time linear in the message: a rejected one may hold anything, at any size.
"""

import base64
import binascii
import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from antenna_assets.domain.schema import EVENT
from antenna_assets.operations.forget.message_text import CONTROL, decode
from antenna_assets.operations.forget.unescape import Layer

# A shorter text may mean anything where it is a word of its own.
_SURE_CHARACTERS = 8
_FIELDS = frozenset(EVENT.names)
# Escapes within escapes: what is nested deeper is not judged.
_LAYERS = 6
_DEPTH = 3

NOT_UTF8 = "not UTF-8, and the id has letters beyond ASCII"
TOO_DEEP = f"escaped more than {_LAYERS} times over"
UNCLEAR = "the id occurs as a word or number that may mean something else"
LONGER = "its user's id contains this one"

# To its end, or to the text's, so that no part of it is scanned twice.
_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.+-])[-+]?\d++(?:\.\d++)?(?:[eE][-+]?\d{1,6}+)?(?![\w.])")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{16,}+={0,2}")
_HEX = re.compile(r"(?<![0-9a-fA-F])[0-9a-fA-F]{16,}+")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

# The name before a value, of a JSON member or an XML element, within this many characters.
_AROUND = 60
_NAMED = re.compile(
    r"""(?:(\w{1,32})\\{0,8}["']?\s{0,4}[:=]\s{0,4}\[?\s{0,4}\\{0,8}(["']?)|<(\w{1,32})>)\s{0,4}\Z""",
    re.ASCII,
)
_QUOTED = re.compile(r"""(["'])\s{0,4}\Z""")
_ENDS = re.compile(r"""\s{0,4}(?:[,;}\]&<\r\n]|\Z)""")
_IN_JSON = re.compile(r"[:,\[]\s{0,4}\Z")
_LITERALS = frozenset(("true", "false", "null"))
# Names of members that identify a user, beside those that end in `id`.
_USERS = frozenset(("user", "msisdn", "imsi", "phone", "subscriber", "customer"))


@dataclass(frozen=True)
class Judged:
    """A message with the pseudonym in the id's place.

    Attributes:
        found: whether the id was in it.
        unclear: why the rest may still hold the id; None if it does not.
    """

    value: bytes
    found: bool = False
    unclear: str | None = None


class Search:
    """Searches any number of messages for one id.

    Args:
        is_a_name: an app or an antenna is named like the id, so that in their fields it is not the user.
    """

    def __init__(self, old: str, new: str, *, is_a_name: bool = False) -> None:
        self._new = new
        self._is_a_name = is_a_name
        self._ascii = old.isascii()
        self._literal = old in _LITERALS
        self._number = Decimal(old) if re.fullmatch(r"\+?[0-9]+", old) else None
        self._sure = len(old) >= _SURE_CHARACTERS and old not in _FIELDS
        self._old = old
        # Such characters are everywhere in JSON: as an id they are searched for in its strings only.
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
        # As a word of its own, and not a part of a number.
        self._whole = re.compile(r"(?<![\w-])(?<!\d\.)(?:" + "|".join(plain) + r")(?![\w-]|\.\d)")
        codes = [re.escape(form) for form in sorted(encoded, key=len, reverse=True) if len(form) >= 8]
        self._encoded = re.compile(r"(?<![\w+/-])(?:" + "|".join(codes) + r")(?![\w+/=-])") if codes else None

    def judge(self, value: bytes) -> Judged:
        """Replace the id in a message; everything else stays byte for byte."""
        text, encoding, errors, no_text = decode(value)
        if no_text is None and not self._ascii and any("\udc80" <= letter <= "\udcff" for letter in text):
            no_text = NOT_UTF8
        changed, unclear = self._without_syntax(text, 0) if self._syntax else self._without(text, 0)
        if changed is None:
            return Judged(value, unclear=no_text or unclear)
        return Judged(changed.encode(encoding, errors), True, no_text or unclear)

    def _without(self, text: str, depth: int) -> tuple[str | None, str | None]:
        """Return the text without the id, None if the id is not in it; and why it may still be there."""
        unclear: dict[tuple[int, int], str] = {}
        spans: list[tuple[int, int, str]] = []
        layer = Layer(text)
        for number in range(_LAYERS + 1):
            for start, end, verdict in self._found(layer.text, depth):
                first, last = layer.origin(start, end)
                if verdict is None:
                    # Its context is clearer without the escapes.
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
        """The same for an id without letters and digits: in JSON strings that are the id, or that hold such a
        string."""

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
        """Yield the spans of the id in the text, each with the result of `_meaning`."""
        seen: set[int] = set()
        for match in self._whole.finditer(text):
            seen.add(match.start())
            yield match.start(), match.end(), self._meaning(text, match.start(), match.end(), literal=True)
        if self._number is not None:
            for match in _NUMBER.finditer(text):
                if match.start() not in seen and self._is_the_number(match[0]):
                    meaning = self._meaning(text, match.start(), match.end(), literal=False)
                    yield match.start(), match.end(), meaning
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

    def _meaning(self, text: str, start: int, end: int, *, literal: bool) -> str | None:
        """Return what replaces an occurrence (empty: the pseudonym as a JSON string), `UNCLEAR` or `LONGER`,
        or None if it is not the user.

        Args:
            literal: the occurrence is spelled like the id, and not only equal as a number.
        """
        before, after = text[max(0, start - _AROUND) : start], text[end : end + _AROUND]
        named = _NAMED.search(before)
        name = ((named[1] or named[3]) if named else "").lower()
        quote = named[2] if named else None
        if quote is None and (opened := _QUOTED.search(before)):
            quote = opened[1]
        rest = after.lstrip("\\ \t\r\n")
        # A text that ends there was truncated.
        whole = bool(quote) and (not rest or rest.startswith(quote or ""))
        bare_value = not quote and bool(named) and _ENDS.match(after) is not None
        if not literal and quote:
            return None  # A text that is not the id.
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
            # Within a longer id: another user's, or this one's with a prefix or suffix.
            return LONGER if self._sure else None
        if whole and not (rest[:1] == ":" and not self._sure):
            return self._new
        if self._sure:
            return in_place
        if not literal or (bare_value and number):
            return None
        return UNCLEAR

    def _within_codes(self, text: str, depth: int) -> Iterator[tuple[int, int, str]]:
        """Yield the spans in base64 or hexadecimal whose content holds the id, with the same encoding of the
        replacement."""
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
            changed, unclear = self._without(clear, depth + 1) if not CONTROL.search(clear) else (None, None)
            if changed is not None:
                yield match.start(), match.end(), base64.b64encode(changed.encode()).decode()
            if unclear is not None:
                yield match.start(), match.end(), UNCLEAR
        for match in _HEX.finditer(text):
            try:
                clear = bytes.fromhex(match[0]).decode("utf-8")
            except ValueError:
                continue
            changed, unclear = self._without(clear, depth + 1) if not CONTROL.search(clear) else (None, None)
            if changed is not None:
                yield match.start(), match.end(), changed.encode().hex()
            if unclear is not None:
                yield match.start(), match.end(), UNCLEAR


def _spliced(text: str, spans: list[tuple[int, int, str]]) -> str:
    """Return the text with each span replaced by its own text; of spans that overlap, the first and
    longest."""
    pieces: list[str] = []
    end = 0
    for first, last, new in sorted(spans, key=lambda span: (span[0], -span[1])):
        if first >= end:
            pieces += (text[end:first], new)
            end = last
    return "".join((*pieces, text[end:]))
