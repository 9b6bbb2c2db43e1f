"""Between the features: which pairs can meet, and how each is known to keep its promises."""

from dataclasses import dataclass
from typing import Literal

FEATURES = {
    "publish": "a publication",
}
"""The features by a short name, as the page calls them."""


@dataclass(frozen=True)
class Cell:
    """Two features that can meet. `why` names the rows that show it, or gives the reason."""

    one: str
    other: str
    status: Literal["shown", "argued", "not promised"]
    why: str


CELLS: tuple[Cell, ...] = ()
