"""A difference between what is certified and what is there, and comparing two values name by name.

Where the values come from is in the other modules of this folder.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from antenna_assets.domain.differences import differences

ABSENT = "nothing"


@dataclass(frozen=True)
class Difference:
    """One thing that is not as certified, in words for a reader."""

    hour: str
    what: str
    expected: str
    found: str


def compared(hour: str, what: str, expected: Any, found: Any) -> Iterator[Difference]:
    """The differences between two values; of two objects, those of each of their names."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for name, left, right in differences(expected, found, absent=ABSENT):
            yield from compared(hour, f"{what}, {name}", left, right)
    elif expected != found:
        yield Difference(hour, what, _shown(expected), _shown(found))


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
