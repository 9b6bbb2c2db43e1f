"""When an hour closes: the rule on literal instants, and on drawn histories of partitions, clocks and restarts."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from antenna_assets.domain.closing_rule import (
    Backlog,
    ClosingState,
    backlog_marked,
    backlog_text,
    ended_before,
    fully_read,
    hours_kept_open,
    observed,
    quiet_hours,
    watermark,
)
from antenna_assets.domain.hours import HOUR, hour_of, hours_between

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
NOON = TEN + 2 * HOUR
QUIET = 15 * MINUTE


def seen(
    now: datetime,
    delivered: dict[int, datetime],
    lagging: tuple[int, ...] = (),
    before: ClosingState | None = None,
) -> ClosingState:
    return observed(before or ClosingState(), now=now, lagging=lagging, delivered=delivered)


def low(
    state: ClosingState, lagging: tuple[int, ...], now: datetime = NOON, lateness: timedelta = MINUTE
) -> tuple[datetime | None, str]:
    return watermark(state, now=now, lagging=lagging, lateness=lateness)


def test_if_everything_is_read_out_the_clock_decides_less_the_lateness() -> None:
    state = seen(NOON, {0: TEN, 1: TEN - 20 * 24 * HOUR})
    assert low(state, ()) == (NOON - MINUTE, "clock")
    assert low(ClosingState(), ()) == (NOON - MINUTE, "clock")


def test_of_the_partitions_that_are_not_read_out_the_slowest_decides() -> None:
    state = seen(NOON, {0: TEN + 30 * MINUTE, 1: TEN + 20 * MINUTE, 2: TEN}, (0, 1))
    assert low(state, (0, 1)) == (TEN + 19 * MINUTE, "watermark")


def test_a_partition_that_is_silent_for_a_minute_holds_nothing_back() -> None:
    state = seen(NOON, {0: TEN + 30 * MINUTE, 1: TEN}, (0, 1))
    for seconds, expected in ((20, TEN), (40, TEN), (60, TEN), (61, TEN + 30 * MINUTE)):
        now = NOON + seconds * SECOND
        state = seen(now, {0: TEN + 30 * MINUTE}, (0, 1), state)
        assert low(state, (0, 1), now) == (expected - MINUTE, "watermark"), seconds


def test_a_partition_with_garbage_only_holds_for_a_minute_from_when_it_lags() -> None:
    state = seen(NOON, {0: TEN}, (0, 1))
    assert low(state, (0, 1)) == (None, "watermark")
    for seconds in (30, 60, 62):
        state = seen(NOON + seconds * SECOND, {0: TEN}, (0, 1), state)
    assert low(state, (0, 1), NOON + 62 * SECOND) == (TEN - MINUTE, "watermark")
    # Read out in between, it begins anew: there was nothing that it could have held.
    state = seen(NOON + 64 * SECOND, {0: TEN}, (0,), state)
    state = seen(NOON + 66 * SECOND, {0: TEN}, (0, 1), state)
    assert low(state, (0, 1), NOON + 66 * SECOND) == (None, "watermark")


def test_where_all_that_is_left_is_silent_the_watermark_stays() -> None:
    state = replace(seen(NOON, {0: TEN + HOUR}, (0,)), low_watermark=TEN)
    for seconds in (50, 100):
        state = seen(NOON + seconds * SECOND, {}, (0,), state)
    assert low(state, (0,), NOON + 100 * SECOND) == (TEN, "watermark")


def test_silence_is_not_counted_while_the_stream_was_away() -> None:
    state = seen(NOON, {0: TEN, 1: TEN}, (0, 1))
    back = NOON + 7 * 24 * HOUR
    state = seen(back, {0: TEN + HOUR}, (0, 1), state)
    assert state.watched_since == back
    assert low(state, (0, 1), back) == (TEN - MINUTE, "watermark")
    # A stream that starts every 20 seconds looks often enough.
    for start in range(20, 81, 20):
        state = seen(back + start * SECOND, {0: TEN + HOUR}, (0, 1), state)
    assert state.watched_since == back
    assert low(state, (0, 1), back + 80 * SECOND) == (TEN + 59 * MINUTE, "watermark")


def test_the_watermark_never_goes_back_and_never_passes_the_clock() -> None:
    state = replace(seen(NOON, {0: TEN}, (0,)), low_watermark=TEN + 5 * MINUTE)
    assert low(state, (0,)) == (TEN + 5 * MINUTE, "watermark")
    assert low(state, (), NOON - HOUR) == (TEN + 59 * MINUTE, "clock")
    assert low(seen(NOON, {0: NOON + 4 * MINUTE}, (0,)), (0,)) == (NOON - MINUTE, "watermark")


def test_a_watermark_of_a_wrong_clock_closes_no_hour_in_the_future() -> None:
    assert ended_before(TEN + 365 * 24 * HOUR, NOON + 5 * MINUTE) == NOON
    assert ended_before(TEN + HOUR - timedelta(microseconds=1), NOON) == TEN


def open_since(row_at: datetime | None, now: datetime, watched_since: datetime = TEN) -> bool:
    state = ClosingState(looked_at=now, watched_since=watched_since)
    return quiet_hours(state, {TEN: row_at}, now=now, lateness=MINUTE, quiet=QUIET) == [TEN]


def test_an_hour_is_quiet_a_quarter_of_an_hour_after_its_end_and_its_last_row() -> None:
    eleven = TEN + HOUR
    assert not open_since(None, eleven + QUIET - SECOND)
    assert open_since(None, eleven + QUIET)
    assert open_since(TEN + 5 * MINUTE, eleven + QUIET)
    assert not open_since(eleven + 2 * MINUTE, eleven + 16 * MINUTE)
    assert open_since(eleven + 2 * MINUTE, eleven + 17 * MINUTE)


def test_quiet_is_counted_from_when_the_stream_came_back() -> None:
    back = TEN + 9 * HOUR
    assert not open_since(TEN, back + QUIET - SECOND, watched_since=back)
    assert open_since(TEN, back + QUIET, watched_since=back)


def test_a_row_of_the_future_is_of_a_clock_that_was_set_back() -> None:
    assert open_since(TEN + 365 * 24 * HOUR, TEN + 2 * HOUR)
    back = seen(NOON, {}, (), ClosingState(looked_at=NOON + HOUR, watched_since=TEN))
    assert back.watched_since == NOON


def test_with_more_lateness_than_quiet_the_lateness_is_waited_for() -> None:
    state = ClosingState(watched_since=TEN)
    now = TEN + HOUR + 29 * MINUTE
    for lateness, expected in ((30 * MINUTE, []), (29 * MINUTE, [TEN])):
        assert quiet_hours(state, {TEN: None}, now=now, lateness=lateness, quiet=QUIET) == expected


def test_what_kafka_held_is_read_once_every_end_of_then_is_reached() -> None:
    state = backlog_marked(ClosingState(), now=TEN, backlog={0: Backlog(5, 10, 10), 1: Backlog(0, 7, 9)})
    assert (state.mark, state.mark_at, state.read_past) == ({0: 10, 1: 9}, TEN, None)
    state = backlog_marked(state, now=TEN + MINUTE, backlog={0: Backlog(12, 20, 20), 1: Backlog(8, 20, 20)})
    assert state.read_past is None
    state = backlog_marked(
        state, now=TEN + 2 * MINUTE, backlog={0: Backlog(15, 30, 30), 1: Backlog(9, 20, 20)}
    )
    assert (state.read_past, state.mark_at) == (TEN, TEN + 2 * MINUTE)
    assert state.mark == {0: 30, 1: 20}
    state = backlog_marked(state, now=TEN + 3 * MINUTE, backlog={})
    assert (state.read_past, state.mark, state.mark_at) == (TEN + 3 * MINUTE, {}, None)
    # After a clock that was ahead nothing is known.
    state = backlog_marked(state, now=TEN, backlog={0: Backlog(0, 1, 1)})
    assert state.read_past is None


def test_an_hour_is_read_whole_when_kafkas_end_after_it_is_reached() -> None:
    hours = [TEN, TEN + HOUR]
    assert fully_read(hours, None) == []
    assert fully_read(hours, TEN + HOUR) == [TEN]
    assert fully_read(hours, TEN + 2 * HOUR - SECOND) == [TEN]


def test_hours_are_kept_open_that_the_clock_alone_would_have_closed() -> None:
    kept = hours_kept_open(TEN, TEN + 5 * MINUTE, now=NOON + MINUTE, lateness=MINUTE)
    assert kept == [TEN, TEN + HOUR]
    assert hours_kept_open(TEN, TEN + HOUR, now=NOON + 59 * SECOND, lateness=MINUTE) == []
    assert hours_kept_open(None, None, now=NOON, lateness=MINUTE) == []


def test_what_holds_closing_is_told_by_partition() -> None:
    left = {
        7: Backlog(0, 1_200, 1_200),
        2: Backlog(10, 10, 14),
        3: Backlog(0, 5, 6),
        9: Backlog(0, 1, 1),
        8: Backlog(0, 1, 1),
    }
    assert backlog_text(left) == (
        "partition 2: 4 in or behind an open transaction;"
        " partition 3: 5 messages to read and 1 in or behind an open transaction;"
        " partition 7: 1,200 messages to read; and 2 more partitions"
    )


@dataclass
class Partition:
    """A partition of the drawn world: what is appended each second, as (appended, event time or None for garbage)."""

    kind: str
    every: int
    phase: int
    log: list[tuple[datetime, datetime | None]] = field(default_factory=list)
    done: int = 0
    transaction: int | None = None
    """The offset of the first message of the open transaction."""

    def second(self, now: datetime, number: int) -> None:
        due = (number + self.phase) % self.every == 0
        if self.kind == "silent" and number == 0:
            self.log.append((now, now - 3 * HOUR))
        elif self.kind == "garbage" and due:
            self.log.append((now, None))
        elif self.kind == "trickle" and due:
            self.log.append((now, now - SECOND))
        elif self.kind == "back-dated" and due:
            self.log.append((now, now - 20 * 24 * HOUR + number * SECOND))
        elif self.kind == "transactional" and due:
            # Open for the length of one period, then committed by what begins the next.
            self.transaction = len(self.log)
            self.log.append((now, now - SECOND))

    @property
    def readable(self) -> int:
        return len(self.log) if self.transaction is None else self.transaction

    def left(self) -> Backlog | None:
        return Backlog(self.done, self.readable, len(self.log)) if self.done < len(self.log) else None


@dataclass
class Drawn:
    """The rule over a drawn world, with the ledger's hours as a dictionary: an instant each they closed, or None."""

    partitions: list[Partition]
    now: datetime
    state: ClosingState = field(default_factory=ClosingState)
    first_hour: datetime | None = None
    row_at: dict[datetime, datetime] = field(default_factory=dict)
    closed: dict[datetime, tuple[datetime, str]] = field(default_factory=dict)
    late: int = 0

    def read(self) -> tuple[dict[int, datetime], set[datetime]]:
        """Take what can be read now: the largest event time of each partition, and the hours of the events."""
        delivered: dict[int, datetime] = {}
        hours: set[datetime] = set()
        for number, one in enumerate(self.partitions):
            times = [time for _, time in one.log[one.done : one.readable] if time is not None]
            one.done = max(one.done, one.readable)
            if times:
                delivered[number] = max(times)
            hours |= {hour_of(time) for time in times}
        return delivered, hours

    def look(self, delivered: Mapping[int, datetime], hours: set[datetime]) -> None:
        """What `commit.py` does with a batch and a beat after it."""
        left = {number: one for number, p in enumerate(self.partitions) if (one := p.left()) is not None}
        state = observed(self.state, now=self.now, lagging=left, delivered=delivered)
        state = backlog_marked(state, now=self.now, backlog=left)
        passed, closed_by = watermark(state, now=self.now, lagging=left, lateness=MINUTE)
        self.state = replace(state, low_watermark=passed)
        self.late += len(hours & self.closed.keys())
        self.row_at |= dict.fromkeys(hours, self.now)
        if self.first_hour is None and hours:
            self.first_hour = min(hours)
        if passed is not None:
            end = ended_before(passed, self.now)
            self._close([hour for hour in self.row_at if hour < end], closed_by)
            self._close(hours_between(self.first_hour or end, end), closed_by)
        kept = hours_kept_open(self.first_hour, passed, now=self.now, lateness=MINUTE)
        open_hours = {hour: self.row_at.get(hour) for hour in kept if hour not in self.closed}
        quiet = quiet_hours(self.state, open_hours, now=self.now, lateness=MINUTE, quiet=QUIET)
        by_record_time = [
            hour for hour in quiet if all(self._nothing_before(hour + HOUR, number) for number in left)
        ]
        self._close({*by_record_time, *fully_read(quiet, self.state.read_past)}, "quiet")

    def _nothing_before(self, instant: datetime, number: int) -> bool:
        one = self.partitions[number]
        return all(appended >= instant for appended, _ in one.log[one.done :])

    def _close(self, hours: object, by: str) -> None:
        for hour in sorted(hours):  # type: ignore[call-overload]
            assert hour + HOUR <= self.now, f"{hour} closes at {self.now}"
            self.closed.setdefault(hour, (self.now, by))


kinds = st.sampled_from(["silent", "garbage", "trickle", "back-dated", "transactional", "never"])
drawn_partitions = st.lists(
    st.builds(Partition, kind=kinds, every=st.sampled_from([1, 3, 7, 50]), phase=st.integers(0, 49)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60)
@given(
    drawn_partitions,
    st.integers(1, 20),
    st.integers(45, 59),
    st.lists(st.tuples(st.integers(0, 900), st.sampled_from([-7_200, -40, 40, 7_200])), max_size=2),
)
def test_row_26_whatever_partitions_and_clocks_do_every_ended_hour_closes_in_time_and_none_in_the_future(
    partitions: list[Partition], every: int, minute: int, jumps: list[tuple[int, int]]
) -> None:
    world = Drawn(partitions, TEN + minute * MINUTE)
    jumped = dict(jumps)
    settled = world.now
    for second in range(2_100):
        # PostgreSQL's clock is set, forwards or back; the stream has nothing else to go by.
        world.now += (1 + jumped.get(second, 0)) * SECOND
        settled = world.now if second in jumped or second == 0 else settled
        for partition in partitions:
            partition.second(world.now, second)
        if second % every == 0:
            delivered, hours = world.read()
            # While it is committed, more comes: at a look a busy partition is never read out.
            for partition in partitions:
                partition.second(world.now, second + 1)
            world.look(delivered, hours)
        if world.first_hour is None:
            continue
        due = max(world.first_hour, hour_of(settled) - 3 * HOUR)
        bound = QUIET + MINUTE + (every + 50) * SECOND
        for hour in hours_between(due, hour_of(world.now)):
            # A clock that was set begins the wait anew.
            if world.now - max(hour + HOUR, settled) > bound:
                assert hour in world.closed, f"{hour} is open at {world.now}: {world.state}"
