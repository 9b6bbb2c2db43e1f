"""When an hour closes, as pure functions of what was seen of Kafka and remembered: the watermark, and quiet hours.

All instants are PostgreSQL's. Nothing here reads a clock, the ledger or Kafka; hours are closed in `ledger/closed_hours.py`.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

from antenna_assets.domain.hours import HOUR, closed_before, hours_between
from antenna_assets.domain.listing import first_few

SILENCE = timedelta(minutes=1)
"""A partition that delivers no accepted event for so long holds no watermark back. A stream that looks less often was away:
what was silent or quiet meanwhile counts from its return."""

NAMED_PARTITIONS = 3
"""So many partitions are named that hold closing; of the others only how many they are."""

ClosedBy = Literal["watermark", "quiet", "clock"]


@dataclass(frozen=True)
class Backlog:
    """What is left in a partition that is not read out: the offset to read next, where what can be read now ends, and
    where the partition ends. Between the last two lie the messages of open transactions, and those behind them."""

    offset: int
    readable: int
    end: int

    @property
    def held(self) -> int:
        """How many messages lie in or behind an open transaction."""
        return self.end - max(self.readable, self.offset)


NO_BACKLOG = Backlog(0, 0, 0)
"""As many messages as are left in a partition that is read out."""


@dataclass(frozen=True)
class ClosingState:
    """What is remembered from one look at Kafka to the next.

    Attributes:
        looked_at: the newest look.
        watched_since: since when looks follow each other without a gap of more than `SILENCE`.
        event_times: the largest accepted event time of each partition that has one.
        silent_since: of each partition that is not read out, since when it has delivered no accepted event.
        mark: where the partitions that were not read out at `mark_at` ended then.
        read_past: what Kafka held at this instant is read.
    """

    looked_at: datetime | None = None
    watched_since: datetime | None = None
    low_watermark: datetime | None = None
    event_times: Mapping[int, datetime] = field(default_factory=dict)
    silent_since: Mapping[int, datetime] = field(default_factory=dict)
    mark: Mapping[int, int] = field(default_factory=dict)
    mark_at: datetime | None = None
    read_past: datetime | None = None


def observed(
    before: ClosingState, *, now: datetime, lagging: Collection[int], delivered: Mapping[int, datetime]
) -> ClosingState:
    """The state after a look.

    Args:
        now: the clock before Kafka was asked: whatever comes after this instant may still be on time.
        lagging: the partitions that were not read out.
        delivered: the largest accepted event time of each partition that has delivered some since the look before.
    """
    # A clock that was set back makes a gap, too.
    gap = before.looked_at is None or not timedelta(0) <= now - before.looked_at <= SILENCE
    silent = {} if gap else before.silent_since
    times = {**before.event_times}
    for partition, time in delivered.items():
        times[partition] = max(time, times.get(partition, time))
    return replace(
        before,
        looked_at=now,
        watched_since=now if gap or before.watched_since is None else before.watched_since,
        event_times=times,
        silent_since={
            partition: now if partition in delivered else silent.get(partition, now) for partition in lagging
        },
    )


def backlog_marked(before: ClosingState, *, now: datetime, backlog: Mapping[int, Backlog]) -> ClosingState:
    """The state with what is known now of how far Kafka is read, whatever times its records bear."""
    read_past = before.read_past
    if read_past is not None and read_past > now:
        read_past = None
    if not backlog:
        return replace(before, mark={}, mark_at=None, read_past=now)
    if before.mark_at is not None and before.mark_at <= now:
        if any(
            partition in backlog and backlog[partition].offset < end for partition, end in before.mark.items()
        ):
            return replace(before, read_past=read_past)
        read_past = before.mark_at
    return replace(
        before,
        mark={partition: one.end for partition, one in backlog.items()},
        mark_at=now,
        read_past=read_past,
    )


def watermark(
    state: ClosingState, *, now: datetime, lagging: Collection[int], lateness: timedelta
) -> tuple[datetime | None, ClosedBy]:
    """The instant before which no more on-time event is expected, None while nothing is known, and what it comes from.

    Args:
        now: as it was looked at.
        lateness: how much later than the newest event an event may come and still be on time.
    """
    previous = state.low_watermark
    closed_by: ClosedBy = "clock"
    found = now
    if lagging:
        closed_by = "watermark"
        holding = [partition for partition in lagging if now - state.silent_since[partition] <= SILENCE]
        if not holding or any(partition not in state.event_times for partition in holding):
            return previous, closed_by
        found = min(now, *(state.event_times[partition] for partition in holding))
    found -= lateness
    return (found if previous is None else max(previous, found)), closed_by


def ended_before(watermark: datetime, now: datetime) -> datetime:
    """Every hour that begins before this instant may close: a watermark of a wrong clock closes nothing in the future."""
    return closed_before(min(watermark, now))


def quiet_hours(
    state: ClosingState,
    open_hours: Mapping[datetime, datetime | None],
    *,
    now: datetime,
    lateness: timedelta,
    quiet: timedelta,
) -> list[datetime]:
    """Those of the hours that ended `quiet` ago and got no row since then, ascending.

    Args:
        open_hours: when each hour that is not closed last got a row; None if it never got one.
    """
    if state.watched_since is None or now - state.watched_since < quiet:
        return []
    end = closed_before(now - max(lateness, quiet))

    def got_a_row(row_at: datetime | None) -> bool:
        # One in the future is of a clock that was set back since; the watch began anew then.
        return row_at is not None and timedelta(0) <= now - row_at < quiet

    return sorted(hour for hour, row_at in open_hours.items() if hour < end and not got_a_row(row_at))


def fully_read(hours: Iterable[datetime], read_past: datetime | None) -> list[datetime]:
    """Those of the hours that had ended when Kafka held no more than what is read now."""
    return [hour for hour in hours if read_past is not None and hour + HOUR <= read_past]


def hours_kept_open(
    first_hour: datetime | None, watermark: datetime | None, *, now: datetime, lateness: timedelta
) -> list[datetime]:
    """The hours that would be closed if everything were read, and which the watermark has not passed."""
    if first_hour is None:
        return []
    start = first_hour if watermark is None else max(first_hour, closed_before(watermark))
    return hours_between(start, closed_before(now - lateness))


def backlog_text(backlog: Mapping[int, Backlog]) -> str:
    """What is left to read, in words."""
    parts = []
    for partition, one in sorted(backlog.items())[:NAMED_PARTITIONS]:
        readable = max(0, one.readable - one.offset)
        words = [f"{readable:,} messages to read"] if readable else []
        words += [f"{one.held:,} in or behind an open transaction"] if one.held else []
        parts.append(f"partition {partition}: {' and '.join(words)}")
    return first_few(parts, NAMED_PARTITIONS, total=len(backlog), separator="; ", what="partitions")
