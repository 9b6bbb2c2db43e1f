"""Reading a message as one JSON object (RFC 8259), in time linear in its size and without recursion limits.

Two parsers read the same language. The standard library's C scanner reads nearly every message; it recurses,
keeps all that it reads, and knows no repeated names. What may be beyond it is read by `exact.py`, which takes
ten times as long.
"""

import json
import re
from itertools import accumulate
from typing import NoReturn

from antenna_assets.streaming.verdicts import exact
from antenna_assets.streaming.verdicts.exact import MAX_DEPTH, Exact, NotJson, Written

JSON_WHITE = " \t\n\r"

SCANNED_BYTES = 4 * 2**20
"""Larger messages are read exactly: the scanner needs up to 40 times their size in memory."""

_texts = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_not_brackets = re.compile(r"[^\[\]{}]+")
_LEVEL = {"[": 1, "{": 1, "]": -1, "}": -1}

_NUMBER_BYTES = b"0123456789+-.eE"
_STRIDE = 320


class Refused(Exception):
    """A message is not one JSON object.

    Attributes:
        reason: as in `schema.REASONS`.
        detail: what was found; None: show how the message begins.
    """

    def __init__(self, reason: str, detail: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


class _RepeatedName(Exception):
    pass


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _RepeatedName
    return members


def _no_constant(text: str) -> NoReturn:
    raise NotJson(text)


_decoder = json.JSONDecoder(object_pairs_hook=_members, parse_float=Written, parse_constant=_no_constant)
# Without `raw_decode`, which takes a quarter of the time of an ordinary message.
_scan = _decoder.scan_once  # type: ignore[attr-defined]


def read_object(value: bytes, text: str) -> dict[str, object]:
    """The members of the message's object.

    A number is an int, or `Written` if it has a fraction or an exponent; arrays and objects are lists and
    dicts, or `Nested`.

    Args:
        value: the message.
        text: the same, decoded.

    Raises:
        Refused: it is not one JSON object, with nothing behind it and no name repeated.
    """
    body = text.strip(JSON_WHITE)
    if not _needs_exact(value, text):
        try:
            document, end = _scan(body, 0)
        except (_RepeatedName, RecursionError):
            pass
        except (StopIteration, ValueError):
            raise Refused("not_json") from None
        else:
            if end != len(body):
                raise Refused("trailing_data" if isinstance(document, dict | list) else "not_json")
            if not isinstance(document, dict):
                raise Refused("not_an_object")
            return document
    return _judged(read_exactly(body), len(body))


def read_exactly(body: str) -> Exact:
    """The first value of a text that begins with it.

    Raises:
        Refused: it is not JSON, or beyond its bounds.
    """
    try:
        return exact.read(body)
    except ValueError:
        raise Refused("not_json") from None


def _judged(found: Exact, size: int) -> dict[str, object]:
    # The deepest of values counts as having more behind it, as it had for Spark's parser (decision 4), which
    # read within brackets of its own.
    if found.end != size or found.depth == MAX_DEPTH:
        whole = found.members is not None or (found.depth > 0 and not found.broken)
        raise Refused("trailing_data" if whole else "not_json")
    if found.repeated:
        raise Refused("duplicate_field", f"given more than once: {', '.join(found.repeated[:5])}")
    if found.broken:
        raise Refused("not_json", "a name repeated in a nested object, or half a surrogate pair")
    if found.members is None:
        raise Refused("not_an_object")
    return found.members


def _needs_exact(value: bytes, text: str) -> bool:
    r"""Whether the message may be deep, or have a long number or half a surrogate pair (`\ud800`)."""
    if "\\ud" in text or "\\uD" in text:
        return True
    size = len(value)
    if size < 2 * _STRIDE:
        return False
    if size > SCANNED_BYTES or _levels(text) >= MAX_DEPTH:
        return True
    # A number with more than 640 characters covers one of these pieces.
    return any(not value[at : at + _STRIDE].strip(_NUMBER_BYTES) for at in range(0, size, _STRIDE))


def _levels(text: str) -> int:
    """Levels of arrays and objects, or more: exact for the JSON that a text begins with."""
    most = text.count("[") + text.count("{")
    if most < MAX_DEPTH:
        return most
    brackets = _not_brackets.sub("", _texts.sub("", text))
    return max(accumulate(map(_LEVEL.__getitem__, brackets)), default=0)
