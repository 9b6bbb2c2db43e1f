"""Why an object is no event: the first reason that applies, with a detail for a reader."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from antenna_assets.domain.schema import MAX_BYTES
from antenna_assets.streaming.verdicts.bounds import Bounds
from antenna_assets.streaming.verdicts.exact import Nested, Written
from antenna_assets.streaming.verdicts.fields import FIELDS, TEXTS, is_blank
from antenna_assets.streaming.verdicts.instants import has_no_zone, micros_of_number, micros_of_text

DETAIL_CHARACTERS = 200
_SHOWN_CHARACTERS = 60
_BEGINNING_CHARACTERS = 80

HUGE = 2.0**63
"""A number from here on is out of range as an integer, however it is written."""

_control = re.compile(r"[\x00-\x1f\x7f]")


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
    if not detail.isascii():
        detail = detail.encode(errors="replace").decode()
    return Rejection(reason, _control.sub("?", detail[:DETAIL_CHARACTERS]))


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
    missing = [name for name in FIELDS if name not in event]
    if missing:
        return rejection("missing_field", f"missing: {', '.join(missing)}")
    return _wrong_type(event, text) or _wrong_value(event, text, bounds)


def _wrong_type(event: Mapping[str, object], text: str) -> Rejection | None:
    found = {}
    if not _is_integer(event["bytes"]):
        found["bytes"] = "bytes is not an integer"
    time = event["timestamp"]
    if _micros(time) is None and not (_is_text(time) and is_blank(str(time))):
        zoneless = _is_text(time) and has_no_zone(str(time))
        found["timestamp"] = (
            "timestamp has no time zone"
            if zoneless
            else "timestamp is neither Unix seconds nor ISO-8601 with a zone"
        )
    for name in TEXTS:
        if not _is_text(event[name]):
            found[name] = f"{name} is not text"
    if not found:
        return None
    most = min(_SHOWN_CHARACTERS, len(text) // (2 * len(found)))
    details = (f"{said}: {_shown(event[name], most)}" for name, said in found.items())
    return rejection("wrong_type", "; ".join(details))


def _wrong_value(event: Mapping[str, object], text: str, bounds: Bounds) -> Rejection:
    most = min(_SHOWN_CHARACTERS, len(text) // 2)
    size, time = event["bytes"], event["timestamp"]
    texts = {name: str(event[name]) for name in TEXTS}
    # Of type int, or written and huge.
    bytes_ = size if isinstance(size, int) else float(str(size))
    if bytes_ < 0:
        return rejection("negative_bytes", f"bytes is {_shown(size, most)}")
    if bytes_ > MAX_BYTES:
        return rejection("bytes_out_of_range", f"bytes is {_shown(size, most)}")
    micros = _micros(time)
    blank = _names(
        (("timestamp", micros is None), *((name, is_blank(value)) for name, value in texts.items()))
    )
    if blank or micros is None:
        return rejection("blank", f"blank: {blank}")
    sizes = {name: len(value.encode()) for name, value in texts.items()}
    long = [name for name, longest in TEXTS.items() if sizes[name] > longest]
    if long:
        said = (f"{name} has {sizes[name]} bytes, at most {TEXTS[name]} fit" for name in long)
        return rejection("too_long", "; ".join(said))
    nul = _names((name, "\0" in value) for name, value in texts.items())
    if nul:
        return rejection("unstorable_text", f"NUL in {nul}")
    reason = "timestamp_in_future" if micros > bounds.newest_micros else "timestamp_too_old"
    return rejection(reason, f"timestamp is {_shown(time, most)}")


def _is_text(value: object) -> bool:
    return type(value) is str


def _is_integer(value: object) -> bool:
    if isinstance(value, Written):
        return abs(float(value)) >= HUGE
    return type(value) is int


def _micros(time: object) -> float | None:
    if type(time) is int or isinstance(time, Written):
        return micros_of_number(time)
    return micros_of_text(str(time)) if _is_text(time) else None


def _names(named: Iterable[tuple[str, bool]]) -> str:
    return ", ".join(name for name, applies in named if applies)


def _shown(value: object, most: int) -> str:
    """The beginning of a value as JSON."""
    if isinstance(value, Written | Nested):
        return value[:most]
    # Long texts are cut before they are escaped.
    return json.dumps(value[:most] if isinstance(value, str) else value, ensure_ascii=False)[:most]
