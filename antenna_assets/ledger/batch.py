"""What a micro-batch or a replay became once its files are written: the files, counts and sums that are committed.

Plain data: `streaming/spark/land.py` writes the files, `streaming/read_back.py` makes the sums and `commit.py` writes both to the ledger.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

REJECTED_FOLDER = "rejected"
"""Where the rejected messages of an attempt lie; accepted events have a folder `hour=yyyyMMddHH` each hour."""


@dataclass(frozen=True)
class Written:
    """Files of an attempt that are written and not yet read back.

    Attributes:
        folder: relative to the lake's root.
        begun: when the attempt began to write.
        messages: how many were read; each must be found again.
        value_bytes: the bytes of their values.
    """

    folder: str
    begun: datetime
    messages: int
    value_bytes: int = 0


@dataclass(frozen=True)
class LandedFile:
    """A file of an attempt. `path` is relative to the lake's root; `hour` is None for rejected messages."""

    path: str
    hour: datetime | None
    rows: int
    bytes: int
    size: int


@dataclass(frozen=True)
class Landed:
    """What a micro-batch became: files, counts and sums.

    `live` has the rows of each live table as (window start, key, bytes); `event_times` the largest accepted event
    time of each partition; `begun` when the attempt began to write files, None if it wrote none; `lake` the root of the
    lake that has the files, to look at them before they are committed.
    """

    files: Sequence[LandedFile] = ()
    rejections: Mapping[str, int] = field(default_factory=dict)
    event_times: Mapping[int, datetime] = field(default_factory=dict)
    first_event_time: datetime | None = None
    live: Mapping[str, Sequence[tuple[datetime, str, int]]] = field(default_factory=dict)
    begun: datetime | None = None
    lake: str | None = None

    @property
    def rows(self) -> int:
        """Accepted rows."""
        return sum(file.rows for file in self.files if file.hour is not None)

    @property
    def bytes(self) -> int:
        """Accepted bytes, the sum over the events."""
        return sum(file.bytes for file in self.files if file.hour is not None)


def rows_per_hour(landed: Landed) -> dict[datetime, tuple[int, int]]:
    """Rows and bytes of each hour, in the order of the hours."""
    hours: dict[datetime, tuple[int, int]] = {}
    for file in landed.files:
        if file.hour is not None:
            rows, bytes_ = hours.get(file.hour, (0, 0))
            hours[file.hour] = (rows + file.rows, bytes_ + file.bytes)
    return dict(sorted(hours.items()))
