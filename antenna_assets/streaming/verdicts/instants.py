"""An event's time, from a JSON number or from ISO-8601, in microseconds since 1970."""

import re
from datetime import UTC, datetime
from fractions import Fraction
from math import floor, inf, isinf

from antenna_assets.domain.hours import EPOCH, MICROSECOND
from antenna_assets.streaming.verdicts.exact import Written

_MICROS = 1_000_000

# A plain decimal is exact up to so many digits, and as many decimals.
_EXACT_DIGITS = 38

_DIGITS = "([0-9]{2})"
_FRACTION = "(?:[.,]([0-9]{1,9}))?"
_ZONE = f"(?:[Zz]|([+-]){_DIGITS}(?::?{_DIGITS})?)"
_EXTENDED = re.compile(
    rf"(\+?[1-9][0-9]{{4,5}}|[0-9]{{4}})-{_DIGITS}-{_DIGITS}"
    rf"[T ]{_DIGITS}:{_DIGITS}(?::{_DIGITS}{_FRACTION})?{_ZONE}"
)
_BASIC = re.compile(rf"([0-9]{{4}}){_DIGITS}{_DIGITS}[T ]{_DIGITS}{_DIGITS}(?:{_DIGITS}{_FRACTION})?{_ZONE}")
_WITHOUT_ZONE = re.compile(
    "[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]*)?)?)?"
    "|[0-9]{8}[T ][0-9]{4}([0-9]{2}([.,][0-9]*)?)?"
)
# A thousand million seconds.
_SINCE_2001 = 10**15

_MOST_ZONE_MINUTES = 18 * 60


def micros_of_number(seconds: int | Written) -> float:
    """Unix seconds as microseconds: a plain decimal cut, one with an exponent to the nearest, half up.

    An int, but for infinity.
    """
    if isinstance(seconds, int):
        return seconds * _MICROS
    if "e" not in seconds and "E" not in seconds:
        whole, _, fraction = seconds.partition(".")
        if len(fraction) <= _EXACT_DIGITS and (
            len(seconds) <= _EXACT_DIGITS or len((whole + fraction).lstrip("-0")) <= _EXACT_DIGITS
        ):
            # The sign is part of the digits, so -1.5 is cut towards zero.
            return int(whole + fraction[:6].ljust(6, "0"))
    double = float(seconds)
    return double if isinf(double) else floor(Fraction(double) * _MICROS + Fraction(1, 2))


def micros_of_text(text: str) -> float | None:
    """ISO-8601 with a zone as microseconds, cut; infinity beyond the year 9999, None if it is no instant.

    Its common profiles: the extended or the basic form, `T` or a space, seconds or none, a point or a comma
    before the fraction, `Z`, `z`, `+hh`, `+hhmm` or `+hh:mm`.
    """
    match = _EXTENDED.fullmatch(text) or _BASIC.fullmatch(text)
    if match is None:
        return None
    written_year, month, day, hour, minute, second, fraction, sign, zone_hours, zone_minutes = match.groups()
    if len(written_year) > 4:
        return inf
    zone = 0
    if sign is not None:
        minutes = int(zone_minutes or 0)
        zone = int(zone_hours) * 60 + minutes
        if zone > _MOST_ZONE_MINUTES or minutes > 59:
            return None
    # Python has no year 0, which is a leap year as 4 is, and as far in the past.
    year = int(written_year) or 4
    try:
        local = datetime(year, int(month), int(day), int(hour), int(minute), int(second or 0), tzinfo=UTC)
    except ValueError:
        return None
    micros = (local - EPOCH) // MICROSECOND
    if fraction is not None:
        micros += int(fraction[:6].ljust(6, "0"))
    shift = zone * 60 * _MICROS
    return micros + shift if sign == "-" else micros - shift


def unit_of(seconds: float, newest_micros: int) -> str | None:
    """The unit that a number of seconds beyond the newest instant is probably in.

    Args:
        seconds: as microseconds.
    """
    for unit, factor in (("milliseconds", 10**3), ("microseconds", 10**6), ("nanoseconds", 10**9)):
        if _SINCE_2001 * factor <= seconds <= newest_micros * factor:
            return unit
    return None


def has_no_zone(text: str) -> bool:
    """Whether a text is a day or a time of ISO-8601 without a zone."""
    return _WITHOUT_ZONE.fullmatch(text) is not None


def micros_of(moment: datetime) -> int:
    """An aware instant as microseconds.

    Raises:
        ValueError: it has no time zone.
    """
    if moment.tzinfo is None:
        raise ValueError(f"expected an instant with a time zone, found {moment.isoformat()}")
    return (moment - EPOCH) // MICROSECOND
