"""Why an object is no event: the first reason that applies, with a detail for a reader."""

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

from antenna_assets.domain.schema import MAX_BYTES
from antenna_assets.streaming.verdicts.bounds import Bounds
from antenna_assets.streaming.verdicts.exact import Nested, Written
from antenna_assets.streaming.verdicts.fields import FIELDS, TEXTS, is_blank
from antenna_assets.streaming.verdicts.instants import (
    has_no_zone,
    micros_of_number,
    micros_of_text,
    unit_of,
)

DETAIL_CHARACTERS = 200
_SHOWN_CHARACTERS = 60
_BEGINNING_CHARACTERS = 80

_FIELD_SET = frozenset(FIELDS)

HUGE = 2.0**63
"""A number from here on is out of range as an integer, however it is written."""

_QUOTED_NUMBER = "a number in quotes"

_number = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?").fullmatch
_control = re.compile(r"[\x00-\x1f\x7f]")
_as_json = json.JSONEncoder(ensure_ascii=False).encode


class Rejection(NamedTuple):
    """Why a message is no event.

    Attributes:
        reason: one of `schema.REASONS`.
        detail: what was found, 1 to 200 characters without controls; never more than half of the message.
    """

    reason: str
    detail: str


def rejection(reason: str, detail: str) -> Rejection:
    """A rejection with its detail made fit to be shown and stored."""
    detail = detail[:DETAIL_CHARACTERS]
    # As most are: a sender whose messages are all rejected must not slow the others down.
    if detail.isascii() and detail.isprintable():
        return Rejection(reason, detail)
    return Rejection(reason, _control.sub("?", detail.encode(errors="replace").decode()))


def beginning(value: bytes, text: str) -> str:
    """How a message begins: at most half of it, as it may hold what its sender wants in no log."""
    return f"{len(value)} bytes that begin with {text[: min(_BEGINNING_CHARACTERS, len(text) // 2)]}"


def full_hour() -> Rejection:
    return Rejection("bytes_out_of_range", "the hour holds 2^62 bytes already and takes no more")


def fault(event: Mapping[str, object], text: str, bounds: Bounds) -> Rejection:
    """Why an object is no event that the bounds allow.

    Args:
        event: the object's members; arrays and objects in them are `Nested`.
        text: the message.
    """
    if not event.keys() >= _FIELD_SET:
        missing = (name for name in FIELDS if name not in event)
        return rejection("missing_field", f"missing: {', '.join(missing)}")
    micros = _micros(event["timestamp"])
    wrong = _wrong_types(event, micros)
    if not wrong:
        return _wrong_value(event, micros, text, bounds)
    most = min(_SHOWN_CHARACTERS, len(text) // (2 * len(wrong)))
    details = (f"{said}: {_shown(event[name], most)}" for name, said in wrong.items())
    return rejection("wrong_type", "; ".join(details))


def _wrong_types(event: Mapping[str, object], micros: float | None) -> dict[str, str]:
    """What is wrong with the type of fields."""
    found = {}
    if not _is_integer(event["bytes"]):
        found["bytes"] = f"bytes is {_QUOTED_NUMBER if _is_quoted(event['bytes']) else 'not an integer'}"
    time = event["timestamp"]
    if micros is None and not (type(time) is str and is_blank(time)):
        if _is_quoted(time):
            found["timestamp"] = f"timestamp is {_QUOTED_NUMBER}"
        elif type(time) is str and has_no_zone(time):
            found["timestamp"] = "timestamp has no time zone"
        else:
            found["timestamp"] = "timestamp is neither Unix seconds nor ISO-8601 with a zone"
    for name in TEXTS:
        if type(event[name]) is not str:
            found[name] = f"{name} is not text"
    return found


def _wrong_value(event: Mapping[str, object], micros: float | None, text: str, bounds: Bounds) -> Rejection:
    most = min(_SHOWN_CHARACTERS, len(text) // 2)
    # Of type int, or written and huge.
    written = event["bytes"]
    size = written if isinstance(written, int) else float(str(written))
    if not 0 <= size <= MAX_BYTES:
        reason = "negative_bytes" if size < 0 else "bytes_out_of_range"
        return rejection(reason, f"bytes is {_shown(written, most)}")
    texts = {name: str(event[name]) for name in TEXTS}
    blank = ["timestamp"] if micros is None else []
    blank += (name for name, value in texts.items() if is_blank(value))
    if blank or micros is None:
        return rejection("blank", f"blank: {', '.join(blank)}")
    sizes = {name: len(value.encode()) for name, value in texts.items()}
    long = [name for name, longest in TEXTS.items() if sizes[name] > longest]
    if long:
        details = (f"{name} has {sizes[name]} bytes, at most {TEXTS[name]} fit" for name in long)
        return rejection("too_long", "; ".join(details))
    nul = [name for name, value in texts.items() if "\0" in value]
    if nul:
        return rejection("unstorable_text", f"NUL in {', '.join(nul)}")
    time = event["timestamp"]
    said = f"timestamp is {_shown(time, most)}"
    if micros < bounds.oldest_micros:
        return rejection("timestamp_too_old", said)
    unit = None if type(time) is str else unit_of(micros, bounds.newest_micros)
    return rejection("timestamp_in_future", f"{said}: {unit} in the place of seconds" if unit else said)


def _is_quoted(value: object) -> bool:
    return type(value) is str and _number(value) is not None


def _is_integer(value: object) -> bool:
    if isinstance(value, Written):
        return abs(float(value)) >= HUGE
    return type(value) is int


def _micros(time: object) -> float | None:
    if type(time) is int or isinstance(time, Written):
        return micros_of_number(time)
    return micros_of_text(time) if type(time) is str else None


def _shown(value: object, most: int) -> str:
    """The beginning of a value as JSON."""
    if isinstance(value, Written | Nested):
        return value[:most]
    if type(value) is int:
        return str(value)[:most]
    # Long texts are cut before they are escaped.
    return _as_json(value[:most] if isinstance(value, str) else value)[:most]
