"""A difference between a certified value and the one found, and the comparison that yields it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from antenna_assets.domain.differences import differences

ABSENT = "nothing"


@dataclass(frozen=True)
class Difference:
    """One value that is not as certified, in words for a reader."""

    hour: str
    what: str
    expected: str
    found: str


def compare(hour: str, what: str, expected: Any, found: Any) -> Iterator[Difference]:
    """Yield the differences between two values; mappings are compared name by name, recursively."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for name, left, right in differences(expected, found, absent=ABSENT):
            yield from compare(hour, f"{what}, {name}", left, right)
    elif expected != found:
        yield Difference(hour, what, _shown(expected), _shown(found))


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
