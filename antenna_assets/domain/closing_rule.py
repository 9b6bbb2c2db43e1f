"""When an hour closes: the low watermark and quiet hours, as pure functions of what was observed of Kafka.

All instants are by PostgreSQL's clock. Nothing here reads a clock, the ledger or Kafka;
`ledger/closed_hours.py` closes the hours.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

from antenna_assets.domain.counted import counted
from antenna_assets.domain.hours import HOUR, closed_before, hours_between
from antenna_assets.domain.listing import first_few

SILENCE = timedelta(minutes=1)
"""A partition without an accepted event for this long is idle and does not hold the watermark back.

A stream that observed Kafka less often than this was away: silence and quiet are counted from its return."""

NAMED_PARTITIONS = 3
"""The most partitions that a message names; of the others it gives the count."""

ClosedBy = Literal["watermark", "quiet", "clock"]


@dataclass(frozen=True)
class Backlog:
    """What is left to read in a partition.

    Attributes:
        offset: the next offset to read.
        readable: the end of what can be read now, before the first open transaction.
        end: the end of the partition.
    """

    offset: int
    readable: int
    end: int

    @property
    def held(self) -> int:
        """Messages in or behind an open transaction."""
        return self.end - max(self.readable, self.offset)


NO_BACKLOG = Backlog(0, 0, 0)
"""The backlog of a partition that is read out."""


@dataclass(frozen=True)
class ClosingState:
    """What is kept from one observation of Kafka to the next; a part of the ledger's head.

    Attributes:
        looked_at: the time of the newest observation.
        watched_since: since when observations follow each other without a gap of more than `SILENCE`.
        low_watermark: every hour that it has passed is closed.
        event_times: the largest accepted event time of each partition that has one.
        silent_since: of each partition with a backlog, since when it has delivered no accepted event.
        mark: the ends, at `mark_at`, of the partitions that had a backlog then.
        read_past: everything that Kafka held at this instant is read.
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
    state: ClosingState, *, now: datetime, lagging: Collection[int], delivered: Mapping[int, datetime]
) -> ClosingState:
    """The state after an observation of Kafka.

    Args:
        now: the clock before Kafka was asked: an event that arrives later may still be on time.
        lagging: the partitions with a backlog.
        delivered: the largest accepted event time of each partition that has delivered any since the last
            one.
    """
    # So does a clock that was set back.
    gap = state.looked_at is None or not timedelta(0) <= now - state.looked_at <= SILENCE
    silent = {} if gap else state.silent_since
    times = {**state.event_times}
    for partition, time in delivered.items():
        times[partition] = max(time, times.get(partition, time))
    return replace(
        state,
        looked_at=now,
        watched_since=now if gap or state.watched_since is None else state.watched_since,
        event_times=times,
        silent_since={
            partition: now if partition in delivered else silent.get(partition, now) for partition in lagging
        },
    )


def backlog_marked(state: ClosingState, *, now: datetime, backlog: Mapping[int, Backlog]) -> ClosingState:
    """The state with how far Kafka is read, independent of record times.

    It marks the ends of the partitions. Once they are read, everything that Kafka held at that time is read.
    """
    read_past = state.read_past
    if read_past is not None and read_past > now:
        read_past = None
    if not backlog:
        return replace(state, mark={}, mark_at=None, read_past=now)
    if state.mark_at is not None and state.mark_at <= now:
        if any(
            partition in backlog and backlog[partition].offset < end for partition, end in state.mark.items()
        ):
            return replace(state, read_past=read_past)
        read_past = state.mark_at
    return replace(
        state,
        mark={partition: one.end for partition, one in backlog.items()},
        mark_at=now,
        read_past=read_past,
    )


def watermark(
    state: ClosingState, *, now: datetime, lagging: Collection[int], lateness: timedelta
) -> tuple[datetime | None, ClosedBy]:
    """The low watermark, before which no more on-time event is expected, and its origin; None while unknown.

    Args:
        now: the time of the observation.
        lateness: how far an event may be behind the newest one and still be on time.
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
    """Hours that begin before this instant may close: never future ones, even if a clock was ahead."""
    return closed_before(min(watermark, now))


def quiet_hours(
    state: ClosingState,
    open_hours: Mapping[datetime, datetime | None],
    *,
    now: datetime,
    lateness: timedelta,
    quiet: timedelta,
) -> list[datetime]:
    """The open hours that ended, and got their last row, at least `quiet` ago; ascending.

    Args:
        open_hours: when each open hour got its last row; None if it has none.
    """
    if state.watched_since is None or now - state.watched_since < quiet:
        return []
    end = closed_before(now - max(lateness, quiet))

    def got_a_row(row_at: datetime | None) -> bool:
        # A time in the future was set by a clock that was set back since; `watched_since` was reset then.
        return row_at is not None and timedelta(0) <= now - row_at < quiet

    return sorted(hour for hour, row_at in open_hours.items() if hour < end and not got_a_row(row_at))


def fully_read(hours: Iterable[datetime], read_past: datetime | None) -> list[datetime]:
    """The hours that ended before `read_past`."""
    return [hour for hour in hours if read_past is not None and hour + HOUR <= read_past]


def hours_kept_open(
    first_hour: datetime | None, watermark: datetime | None, *, now: datetime, lateness: timedelta
) -> list[datetime]:
    """The hours that only the backlog keeps open: they have ended, but the watermark has not passed them."""
    if first_hour is None:
        return []
    start = first_hour if watermark is None else max(first_hour, closed_before(watermark))
    return hours_between(start, closed_before(now - lateness))


def backlog_text(backlog: Mapping[int, Backlog]) -> str:
    """The backlog as one line for a person."""
    parts = []
    for partition, one in sorted(backlog.items())[:NAMED_PARTITIONS]:
        readable = max(0, one.readable - one.offset)
        words = [f"{counted(readable, 'message')} to read"] if readable else []
        words += [f"{one.held:,} in or behind an open transaction"] if one.held else []
        parts.append(f"partition {partition}: {' and '.join(words)}")
    return first_few(parts, NAMED_PARTITIONS, total=len(backlog), separator="; ", what="partition")
