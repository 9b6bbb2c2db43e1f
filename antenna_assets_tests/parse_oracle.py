"""What a message is, once more, in plain Python: the standard library's JSON reader with the rules written out.

It shares no code with `streaming/verdicts/`, and its numbers are literals on purpose: a wrong bound is seen.
"""

import json
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from math import floor, isinf

WHITE = (
    "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
JSON_WHITE = " \t\n\r"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ISO = re.compile(
    r"(?P<year>[0-9]{4}|\+?[1-9][0-9]{4,5})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})"
    r"T(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})(?:\.(?P<fraction>[0-9]{1,9}))?"
    r"(?:Z|(?P<sign>[+-])(?P<zone_hours>[0-9]{2}):?(?P<zone_minutes>[0-9]{2}))"
)


@dataclass(frozen=True)
class Accepted:
    """The event: its time in microseconds since 1970, and its other fields."""

    micros: int
    app: str
    id: str
    antenna_id: str
    bytes: int


@dataclass(frozen=True)
class Rejected:
    reason: str


class Number(str):
    """A JSON number as it is written."""

    @property
    def is_integer(self) -> bool:
        return re.fullmatch(r"-?[0-9]+", self) is not None


class Members(list):
    """The pairs of a JSON object, repeated names included."""


class Refused(Exception):
    """The text is not JSON, or beyond what the pipeline reads."""


def _refuse(text: str) -> None:
    raise Refused(text)


def _number(text: str) -> Number:
    if sum(character.isdigit() for character in text) > 1_000:
        raise Refused("more than 1,000 digits")
    return Number(text)


_DECODER = json.JSONDecoder(
    object_pairs_hook=Members, parse_int=_number, parse_float=_number, parse_constant=_refuse, strict=True
)


def verdict(value: bytes | None, clock: datetime, oldest: datetime) -> Accepted | Rejected:
    """Accepted with its values, or rejected with its reason."""
    if value is None:
        return Rejected("blank")
    try:
        text = value.decode("utf-8", "strict")
    except UnicodeDecodeError:
        return Rejected("not_utf8")
    if not text.strip(WHITE):
        return Rejected("blank")

    body = text.strip(JSON_WHITE)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        document, end = _DECODER.raw_decode(body)
        levels = _levels(document)
        if levels > 1_000:
            raise Refused("more than 1,000 levels")
        broken = _is_broken(document)
    except (Refused, ValueError, RecursionError):
        return Rejected("not_json")
    finally:
        sys.setrecursionlimit(limit)
    if end != len(body) or levels == 1_000:
        whole = isinstance(document, Members) or (isinstance(document, list) and not broken)
        return Rejected("trailing_data" if whole else "not_json")
    if isinstance(document, Members) and len(dict(document)) < len(document):
        return Rejected("duplicate_field")
    if broken:
        return Rejected("not_json")
    if not isinstance(document, Members):
        return Rejected("not_an_object")
    return _verdict_of(dict(document), clock, oldest)


def _levels(value: object) -> int:
    if not isinstance(value, list):
        return 0
    inner = [member for _, member in value] if isinstance(value, Members) else value
    return 1 + max(map(_levels, inner), default=0)


def _is_broken(value: object) -> bool:
    """Half a surrogate pair, or a name repeated anywhere."""
    if isinstance(value, Number):
        return False
    if isinstance(value, str):
        return any("\ud800" <= character <= "\udfff" for character in value)
    if not isinstance(value, list):
        return False
    if isinstance(value, Members):
        names = [name for name, _ in value]
        if len(set(names)) < len(names) or any(_is_broken(name) for name in names):
            return True
        return any(_is_broken(member) for _, member in value)
    return any(_is_broken(element) for element in value)


def _verdict_of(event: dict, clock: datetime, oldest: datetime) -> Accepted | Rejected:
    if not {"bytes", "timestamp", "app", "id", "antenna_id"} <= event.keys():
        return Rejected("missing_field")
    size, time = event["bytes"], event["timestamp"]
    texts = [event["app"], event["id"], event["antenna_id"]]

    if not isinstance(size, Number) or not (size.is_integer or abs(float(size)) >= 2.0**63):
        return Rejected("wrong_type")
    if any(not isinstance(text, str) or isinstance(text, Number) for text in texts):
        return Rejected("wrong_type")
    time_blank = isinstance(time, str) and not time.strip(WHITE)
    micros = None if time_blank else _micros(time)
    if micros is None and not time_blank:
        return Rejected("wrong_type")

    if float(size) < 0:
        return Rejected("negative_bytes")
    if float(size) > 68_719_476_736:
        return Rejected("bytes_out_of_range")
    if time_blank or any(not text.strip(WHITE) for text in texts):
        return Rejected("blank")
    if any(len(text.encode()) > most for text, most in zip(texts, (256, 64, 64), strict=True)):
        return Rejected("too_long")
    if any("\0" in text for text in texts):
        return Rejected("unstorable_text")
    if micros > (clock + timedelta(minutes=5) - EPOCH) // timedelta(microseconds=1):
        return Rejected("timestamp_in_future")
    if micros < (oldest - EPOCH) // timedelta(microseconds=1):
        return Rejected("timestamp_too_old")
    return Accepted(int(micros), *texts, int(size))


def _micros(time: object) -> float | None:
    if isinstance(time, Number):
        return _micros_of_number(time)
    return _micros_of_text(time) if isinstance(time, str) else None


def _micros_of_number(number: Number) -> float:
    if "e" not in number.lower():
        exact = Decimal(number).as_tuple()
        if len(exact.digits) <= 38 and -exact.exponent <= 38:
            return int(Fraction(str(number)) * 1_000_000)
    seconds = float(number)
    return seconds if isinf(seconds) else floor(Fraction(seconds) * 1_000_000 + Fraction(1, 2))


def _micros_of_text(text: str) -> float | None:
    match = ISO.fullmatch(text)
    if match is None:
        return None
    if len(match["year"].lstrip("+")) > 4:
        return float("inf")
    offset = timedelta(hours=int(match["zone_hours"] or 0), minutes=int(match["zone_minutes"] or 0))
    if offset > timedelta(hours=18) or int(match["zone_minutes"] or 0) > 59:
        return None
    # Python has no year 0, which is a leap year as 4 is, and as far in the past.
    year = int(match["year"]) or 4
    fields = [int(match[name]) for name in ("month", "day", "hour", "minute", "second")]
    try:
        local = datetime(year, *fields, tzinfo=UTC)
    except ValueError:
        return None
    micros = (local - EPOCH) // timedelta(microseconds=1) + int((match["fraction"] or "0").ljust(6, "0")[:6])
    shift = offset // timedelta(microseconds=1)
    return micros + shift if match["sign"] == "-" else micros - shift
