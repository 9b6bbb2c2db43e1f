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
    """ISO-8601, taken apart from its end: zone, fraction, clock, day."""
    rest, ahead = _without_zone(text)
    if ahead is None:
        return None
    day, clock = rest.split("T" if "T" in rest else " ", 1) if {"T", " "} & set(rest) else ("", "")
    extended = "-" in day
    clock, point, fraction = clock.partition("," if "," in clock else ".")
    if point and not (fraction and _digits(fraction) and len(fraction) <= 9):
        return None
    time_fields = _apart(clock, ":" if extended else "", (2, 2, 2)) or _apart(
        clock, ":" if extended else "", (2, 2)
    )
    if time_fields is None or (point and len(time_fields) == 2):
        return None
    if extended and day.removeprefix("+")[:1] != "0":
        for size in (5, 6):
            if _apart(day.removeprefix("+"), "-", (size, 2, 2)):
                # Whatever the rest says.
                return float("inf")
    if abs(ahead) > timedelta(hours=18):
        return None
    day_fields = _apart(day, "-" if extended else "", (4, 2, 2))
    if day_fields is None:
        return None
    # Python has no year 0, which is a leap year as 4 is, and as far in the past.
    try:
        local = datetime(day_fields[0] or 4, *day_fields[1:], *time_fields, tzinfo=UTC)
    except ValueError:
        return None
    micros = (local - EPOCH) // timedelta(microseconds=1) + int((fraction or "0").ljust(6, "0")[:6])
    return micros - ahead // timedelta(microseconds=1)


def _without_zone(text: str) -> tuple[str, timedelta | None]:
    """The text before the zone, and how far the zone is ahead of UTC; None if there is none."""
    if text[-1:] in ("Z", "z"):
        return text[:-1], timedelta()
    for size, between, sizes in ((2, "", (2,)), (4, "", (2, 2)), (5, ":", (2, 2))):
        sign, fields = text[-size - 1 : -size], _apart(text[-size:], between, sizes)
        if sign in ("+", "-") and fields:
            # Of 60 minutes and more there is no zone, as of more than 18 hours.
            ahead = (
                timedelta(hours=fields[0], minutes=sum(fields[1:]))
                if sum(fields[1:]) < 60
                else timedelta(days=9)
            )
            return text[: -size - 1], -ahead if sign == "-" else ahead
    return text, None


def _apart(text: str, between: str, sizes: tuple[int, ...]) -> list[int] | None:
    """The numbers of these sizes that the text consists of."""
    fields = []
    for number, size in enumerate(sizes):
        if number:
            if not text.startswith(between):
                return None
            text = text[len(between) :]
        if not _digits(text[:size]) or len(text) < size:
            return None
        fields.append(int(text[:size]))
        text = text[size:]
    return None if text else fields


def _digits(text: str) -> bool:
    return bool(text) and set(text) <= set("0123456789")
