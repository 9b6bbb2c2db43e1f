"""The strict function: what a message is. Plain Python; all other ways to a verdict agree with it.

A message is accepted when it is one JSON object (RFC 8259, UTF-8) with the five fields of design 2.1. The
first reason that applies is its verdict, in the order of `schema.REASONS` but with `blank` (a message) and
`not_utf8` first. Choices that the design leaves open:

- `timestamp` as a number: a plain decimal is cut after the microsecond, never rounded. With an exponent, more
  than 38 digits or more than 38 decimals it is read as a double and taken to the nearest microsecond, half
  up.
- `timestamp` as text: `YYYY-MM-DDThh:mm:ss` or `YYYYMMDDThhmmss`, the `T` maybe a space, the seconds maybe
  left out; up to nine decimals of a second behind a point or a comma (cut after six); then `Z`, `z`, `+hh`,
  `+hhmm` or `+hh:mm` up to 18:00. Second 60, hour 24 or an impossible date is `wrong_type`; a year of five
  or six digits is `timestamp_in_future`.
- `bytes` 5.0 and 1e3 are `wrong_type`: not written as integers. A number of 2^63 and beyond is
  `bytes_out_of_range` or `negative_bytes`, however it is written. -0 is 0.
- A JSON null in a field is `wrong_type`; the message `null` is `not_an_object`. Blank means empty or all
  Unicode white space; a blank text for the timestamp is `blank`, for bytes it is `wrong_type`.
- `trailing_data` is a complete object or array with more behind it; a scalar with more behind it is
  `not_json`.
- `not_json` stands for a name repeated inside a nested object (or inside an array that has more behind it),
  for half a surrogate pair, and for what is beyond this parser: more than 1,000 levels (exactly 1,000:
  `trailing_data`) or a number of more than 1,000 digits, wherever it stands.
"""

from typing import NamedTuple

from antenna_assets.domain.schema import MAX_BYTES
from antenna_assets.streaming.verdicts.bounds import HOUR_MICROS, Bounds
from antenna_assets.streaming.verdicts.document import JSON_WHITE, Refused, read_exactly, read_object
from antenna_assets.streaming.verdicts.encodings import encoding
from antenna_assets.streaming.verdicts.exact import Written
from antenna_assets.streaming.verdicts.faults import Rejection, beginning, fault, full_hour, rejection
from antenna_assets.streaming.verdicts.fields import FIELDS, fits, is_blank
from antenna_assets.streaming.verdicts.instants import micros_of_number, micros_of_text

__all__ = ["Bounds", "Event", "Rejection", "judge"]


class Event(NamedTuple):
    """An accepted event.

    Attributes:
        micros: its time, microseconds since 1970.
    """

    micros: int
    app: str
    id: str
    antenna_id: str
    bytes: int


def judge(value: bytes | None, bounds: Bounds) -> Event | Rejection:
    """The event that a message is, or why it is none. It raises nothing, in time linear in the message."""
    if value is None:
        return Rejection("blank", "no value")
    try:
        text = value.decode()
    except UnicodeDecodeError:
        known = encoding(value)
        return rejection("not_utf8", f"{len(value)} bytes" + (f": {known}" if known else ""))
    try:
        event = read_object(value, text)
    except Refused as refused:
        if is_blank(text):
            return rejection("blank", f"{len(value)} bytes of white space")
        known = encoding(value) if refused.reason == "not_json" else None
        return rejection(refused.reason, known or refused.detail or beginning(value, text))
    return _accepted(event, bounds) or _rejected(event, text, bounds)


def _accepted(event: dict[str, object], bounds: Bounds) -> Event | Rejection | None:
    """The event, or None: it is none that the bounds allow. Of a full hour it is a rejection."""
    try:
        size, time = event["bytes"], event["timestamp"]
        app, id_, antenna_id = event["app"], event["id"], event["antenna_id"]
    except KeyError:
        return None
    if not (type(size) is int and type(app) is str and type(id_) is str and type(antenna_id) is str):
        return None
    micros: float | None
    if type(time) is Written or type(time) is int:
        micros = micros_of_number(time)
    elif type(time) is str:
        micros = micros_of_text(time)
    else:
        return None
    if (
        micros is None
        or not 0 <= size <= MAX_BYTES
        or not bounds.oldest_micros <= micros <= bounds.newest_micros
        or not (fits("app", app) and fits("id", id_) and fits("antenna_id", antenna_id))
    ):
        return None
    if bounds.full_hours and micros // HOUR_MICROS in bounds.full_hours:
        return full_hour()
    return Event(int(micros), app, id_, antenna_id, size)


def _rejected(event: dict[str, object], text: str, bounds: Bounds) -> Rejection:
    if any(isinstance(event.get(name), (list, dict)) for name in FIELDS):
        # As it is written, for the detail.
        event = read_exactly(text.strip(JSON_WHITE)).members or {}
    return fault(event, text, bounds)
