"""The one transaction, on a real PostgreSQL: contiguity, watermark, closing, late rows and live sums."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest

from antenna_assets.domain.closing_rule import NO_BACKLOG, Backlog
from antenna_assets.ledger.batch import AttemptFile, BatchContent, BatchPlan
from antenna_assets.ledger.commit import NotContiguous, Observation, commit_batch, commit_heartbeat
from antenna_assets.ledger.errors import LedgerError
from antenna_assets.ledger.head import claim_topic
from antenna_assets.ledger.offsets import OffsetRange, committed_offsets

pytestmark = pytest.mark.services

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
NOW = TEN + 24 * HOUR


def landed(*hours: tuple[datetime, int], newest: datetime | None = None, partition: int = 0) -> BatchContent:
    """Rows of 10 bytes in the hours given; `newest` is the largest event time."""
    return BatchContent(
        files=[
            AttemptFile(f"landing/{uuid4().hex}-{n}", hour, rows, 10 * rows, 1)
            for n, (hour, rows) in enumerate(hours)
        ],
        event_times={partition: newest} if newest else {},
        first_event_time=min((hour for hour, _ in hours), default=None),
    )


def commit(
    connection: psycopg.Connection,
    number: int,
    ranges: list[tuple[int, int, int]],
    content: BatchContent,
    *,
    lagging: tuple[int, ...] = (0,),
    clock: datetime = NOW,
    topic_id: str = "id-1",
) -> datetime | None:
    return commit_batch(
        connection,
        BatchPlan("devices", topic_id, number, clock, [OffsetRange(*r) for r in ranges]),
        content,
        Observation(clock, dict.fromkeys(lagging, NO_BACKLOG)),
        lateness=MINUTE,
    ).low_watermark


def hours(connection: psycopg.Connection) -> list[tuple]:
    return connection.execute("SELECT hour, rows, bytes, closed_by FROM ledger.hour ORDER BY hour").fetchall()


@pytest.fixture
def ledger(connection: psycopg.Connection) -> psycopg.Connection:
    claim_topic(connection, "devices", "id-1")
    return connection


def test_batches_follow_each_other_without_gap_or_overlap(ledger: psycopg.Connection) -> None:
    commit(ledger, 1, [(0, 5, 9), (1, 0, 3)], BatchContent())
    commit(ledger, 2, [(0, 9, 12)], BatchContent())
    assert committed_offsets(ledger, "id-1", [0, 1, 2]) == {0: 12, 1: 3}
    for start in (11, 13):
        with pytest.raises(NotContiguous, match=f"begins at offset 12, found one that begins at {start}"):
            commit(ledger, 3, [(0, start, 20)], BatchContent())
    assert committed_offsets(ledger, "id-1", [0, 1]) == {0: 12, 1: 3}


def test_a_batch_says_up_to_which_instant_kafka_is_read(ledger: psycopg.Connection) -> None:
    def read_past(number: int, until: int, left: dict[int, Backlog]) -> datetime | None:
        return commit_batch(
            ledger,
            BatchPlan("devices", "id-1", number, NOW, [OffsetRange(0, 5 * number - 5, until)]),
            BatchContent(),
            Observation(NOW + number * MINUTE, left),
            lateness=MINUTE,
        ).state.read_past

    assert read_past(1, 5, {0: Backlog(5, 12, 12)}) is None
    # Not all of the twelve that Kafka held at the first look.
    assert read_past(2, 10, {0: Backlog(10, 20, 20)}) is None
    assert read_past(3, 15, {0: Backlog(15, 20, 20)}) == NOW + MINUTE
    assert read_past(4, 20, {}) == NOW + 4 * MINUTE


def test_a_batch_of_an_older_head_is_refused_whole(ledger: psycopg.Connection) -> None:
    commit(ledger, 1, [(0, 0, 1)], landed((TEN, 1), newest=TEN))
    with pytest.raises(NotContiguous, match="expected to commit batch 1 .* is at batch 1"):
        commit(ledger, 1, [(1, 0, 1)], landed((TEN, 1), newest=TEN))
    assert hours(ledger) == [(TEN, 1, 10, None)]
    assert ledger.execute("SELECT count(*) FROM ledger.file").fetchone() == (1,)


def test_a_topic_created_again_is_refused(ledger: psycopg.Connection) -> None:
    with pytest.raises(LedgerError, match="the ledger has id id-1, Kafka has id-2"):
        claim_topic(ledger, "devices", "id-2")
    with pytest.raises(NotContiguous):
        commit(ledger, 1, [(0, 0, 1)], BatchContent(), topic_id="id-2")


def test_one_ledger_holds_one_topic(ledger: psycopg.Connection) -> None:
    with pytest.raises(LedgerError, match="this ledger holds topic devices, not other"):
        claim_topic(ledger, "other", "id-9")


def test_the_watermark_closes_the_hours_before_it_quiet_ones_included(ledger: psycopg.Connection) -> None:
    commit(ledger, 1, [(0, 0, 3)], landed((TEN, 3), newest=TEN + 30 * MINUTE))
    assert hours(ledger) == [(TEN, 3, 30, None)]
    three = TEN + 3 * HOUR
    assert commit(ledger, 2, [(0, 3, 4)], landed((three, 1), newest=three + MINUTE)) == three
    assert hours(ledger) == [
        (TEN, 3, 30, "watermark"),
        (TEN + HOUR, 0, 0, "watermark"),
        (TEN + 2 * HOUR, 0, 0, "watermark"),
        (three, 1, 10, None),
    ]


def test_an_hour_older_than_the_first_batch_opens_and_closes_alone(ledger: psycopg.Connection) -> None:
    commit(ledger, 1, [(0, 0, 3)], landed((TEN, 3), newest=TEN + 30 * MINUTE))
    commit(ledger, 2, [(0, 3, 4)], landed((TEN - 5 * HOUR, 1), newest=TEN - 5 * HOUR))
    assert hours(ledger) == [(TEN - 5 * HOUR, 1, 10, "watermark"), (TEN, 3, 30, None)]


def test_late_rows_are_those_of_hours_that_were_closed(ledger: psycopg.Connection) -> None:
    commit(ledger, 1, [(0, 0, 3)], landed((TEN, 3), newest=TEN + HOUR + MINUTE))
    commit(ledger, 2, [(0, 3, 9)], landed((TEN, 4), (TEN + HOUR, 2), newest=TEN + HOUR + 2 * MINUTE))
    assert ledger.execute("SELECT batch, late_rows FROM ledger.batch ORDER BY batch").fetchall() == [
        (1, 0),
        (2, 4),
    ]
    assert hours(ledger)[0] == (TEN, 7, 70, "watermark")


def test_an_event_far_ahead_closes_no_hour_before_the_clock_does(ledger: psycopg.Connection) -> None:
    clock = TEN + 30 * MINUTE
    content = landed((TEN, 1), newest=clock + 4 * MINUTE)
    assert commit(ledger, 1, [(0, 0, 1)], content, clock=clock) == clock - MINUTE
    assert hours(ledger) == [(TEN, 1, 10, None)]


def test_a_partition_that_is_behind_keeps_the_hour_open(ledger: psycopg.Connection) -> None:
    content = landed((TEN, 1), newest=TEN + 3 * HOUR)
    assert commit(ledger, 1, [(0, 0, 1)], content, lagging=(1,)) is None
    assert hours(ledger) == [(TEN, 1, 10, None)]


def test_the_clock_closes_hours_of_an_idle_stream(ledger: psycopg.Connection) -> None:
    commit(ledger, 1, [(0, 0, 3)], landed((TEN, 3), newest=TEN + 30 * MINUTE))
    now = TEN + 2 * HOUR + 5 * MINUTE
    assert commit_heartbeat(ledger, "devices", 1, Observation(now), lateness=MINUTE) == now - MINUTE
    assert hours(ledger) == [(TEN, 3, 30, "clock"), (TEN + HOUR, 0, 0, "clock")]
    # A clock that was set back opens nothing again.
    assert commit_heartbeat(ledger, "devices", 1, Observation(TEN), lateness=MINUTE) == now - MINUTE


def test_a_heartbeat_that_a_batch_overtook_closes_nothing(ledger: psycopg.Connection) -> None:
    commit(ledger, 1, [(0, 0, 3)], landed((TEN, 3), newest=TEN))
    with pytest.raises(NotContiguous):
        commit_heartbeat(ledger, "devices", 0, Observation(NOW), lateness=MINUTE)
    assert hours(ledger) == [(TEN, 3, 30, None)]


def test_quiet_hours_before_a_heartbeat_that_came_first_are_closed_too(ledger: psycopg.Connection) -> None:
    commit_heartbeat(ledger, "devices", 0, Observation(TEN + 3 * HOUR), lateness=MINUTE)
    assert hours(ledger) == []
    commit(ledger, 1, [(0, 0, 1)], landed((TEN, 1), newest=TEN))
    assert hours(ledger) == [(TEN, 1, 10, "watermark"), (TEN + HOUR, 0, 0, "watermark")]


def test_live_sums_add_up_over_batches(ledger: psycopg.Connection) -> None:
    window = TEN + 5 * MINUTE
    first = BatchContent(live={"bytes_agg_app": [(TEN, "SKYPE", 3), (window, "SKYPE", 2**36)]})
    second = BatchContent(live={"bytes_agg_app": [(window, "SKYPE", 2**36), (window, "caf\u00e9 '\\", 1)]})
    commit(ledger, 1, [(0, 0, 1)], first)
    commit(ledger, 2, [(0, 1, 2)], second)
    assert ledger.execute("SELECT date, app, sum_app_bytes FROM bytes_agg_app ORDER BY 1, 2").fetchall() == [
        (TEN, "SKYPE", 3),
        (window, "SKYPE", 2**37),
        (window, "caf\u00e9 '\\", 1),
    ]


def test_a_batch_that_fails_leaves_nothing(ledger: psycopg.Connection) -> None:
    broken = BatchContent(
        files=landed((TEN, 1)).files, live={"bytes_agg_app": [(TEN, "x", 1)]}, rejections={"not_json": 0}
    )
    with pytest.raises(psycopg.errors.CheckViolation):
        commit(ledger, 1, [(0, 0, 1)], broken)
    for table in ("ledger.batch", "ledger.file", "ledger.hour", "bytes_agg_app", "ledger.batch_offset"):
        assert ledger.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() == (0,)  # noqa: S608


def beat(
    connection: psycopg.Connection,
    batch: int,
    now: datetime,
    left: dict[int, Backlog],
    read_past: datetime | None = None,
) -> datetime | None:
    return commit_heartbeat(
        connection, "devices", batch, Observation(now, left, read_past), lateness=MINUTE, quiet=15 * MINUTE
    )


def watched(connection: psycopg.Connection, batch: int, since: datetime, until: datetime, left: dict) -> None:
    """Beats a minute apart: the stream was there all the time."""
    while since < until:
        beat(connection, batch, since, left)
        since += MINUTE


LEFT = {1: Backlog(0, 5, 5)}


def test_row_26_a_quiet_hour_closes_although_a_partition_holds_the_watermark(
    ledger: psycopg.Connection,
) -> None:
    eleven = TEN + HOUR
    commit(ledger, 1, [(0, 0, 3)], landed((TEN, 3), newest=TEN), lagging=(1,), clock=TEN + 30 * MINUTE)
    # What Kafka holds is never read, but by its record times nothing before the hour's end is left.
    watched(ledger, 1, TEN + 31 * MINUTE, eleven + 15 * MINUTE, LEFT)
    beat(ledger, 1, eleven + 15 * MINUTE, LEFT, read_past=eleven - MINUTE)
    assert hours(ledger) == [(TEN, 3, 30, None)]
    assert beat(ledger, 1, eleven + 16 * MINUTE, LEFT, read_past=eleven) == eleven
    assert hours(ledger) == [(TEN, 3, 30, "quiet")]


def test_row_26_hours_without_a_row_close_as_quiet_and_one_that_gets_rows_stays_open(
    ledger: psycopg.Connection,
) -> None:
    three = TEN + 3 * HOUR
    commit(ledger, 1, [(0, 0, 3)], landed((TEN, 3), newest=TEN), lagging=(1,), clock=three)
    watched(ledger, 1, three + MINUTE, three + 10 * MINUTE, LEFT)
    # The hour of eleven gets a row ten minutes later.
    now = three + 10 * MINUTE
    late = landed((TEN + HOUR, 1), newest=TEN)
    commit(ledger, 2, [(0, 3, 4)], late, lagging=(1,), clock=now)
    watched(ledger, 2, now + MINUTE, now + 6 * MINUTE, LEFT)
    assert beat(ledger, 2, now + 6 * MINUTE, LEFT, read_past=three) == TEN + HOUR
    assert hours(ledger) == [
        (TEN, 3, 30, "quiet"),
        (TEN + HOUR, 1, 10, None),
        (TEN + 2 * HOUR, 0, 0, "quiet"),
    ]
    watched(ledger, 2, now + 7 * MINUTE, now + 15 * MINUTE, LEFT)
    assert beat(ledger, 2, now + 15 * MINUTE, LEFT, read_past=three) == three
    assert [closed_by for *_, closed_by in hours(ledger)] == ["quiet"] * 3


def test_row_26_after_an_outage_no_hour_is_quiet_before_the_stream_was_back_for_so_long(
    ledger: psycopg.Connection,
) -> None:
    commit(ledger, 1, [(0, 0, 3)], landed((TEN, 3), newest=TEN), clock=TEN + 30 * MINUTE)
    back = TEN + 7 * 24 * HOUR
    # Messages of the outage were written to Kafka just now, so by its times all of them are past these hours.
    beat(ledger, 1, back, LEFT, read_past=back)
    assert hours(ledger) == [(TEN, 3, 30, None)]
    for number in range(2, 6):
        hour = TEN + number * HOUR
        commit(
            ledger,
            number,
            [(0, number + 1, number + 2)],
            landed((hour, 1), newest=hour),
            clock=back + number * MINUTE,
        )
        beat(ledger, number, back + number * MINUTE, {0: Backlog(9, 99, 99)}, read_past=back)
    assert ledger.execute("SELECT sum(late_rows)::int FROM ledger.batch").fetchone() == (0,)
    assert [closed_by for *_, closed_by in hours(ledger)] == ["watermark"] * 4 + [None, None]


def test_row_26_what_is_read_of_what_kafka_held_closes_quiet_hours_whatever_times_records_bear(
    ledger: psycopg.Connection,
) -> None:
    eleven = TEN + HOUR
    commit(ledger, 1, [(0, 0, 3)], landed((TEN, 3), newest=TEN), lagging=(1,), clock=eleven)
    for minute in range(16):
        # A gateway sends what is 20 days old, with times of its own: it is never read out, but read on and on.
        beat(
            ledger, 1, eleven + minute * MINUTE, {1: Backlog(10 * minute, 10 * minute + 15, 10 * minute + 15)}
        )
    assert hours(ledger) == [(TEN, 3, 30, "quiet")]


def test_row_26_no_hour_in_the_future_closes_when_the_clock_was_ahead(ledger: psycopg.Connection) -> None:
    year = 365 * 24 * HOUR
    commit_heartbeat(ledger, "devices", 0, Observation(TEN + year), lateness=MINUTE)
    # Set right again: the watermark of then stays, and closes nothing that has not ended.
    now = TEN + 30 * MINUTE
    commit(ledger, 1, [(0, 0, 1)], landed((TEN, 1), newest=now), clock=now)
    assert hours(ledger) == [(TEN, 1, 10, None)]
    commit_heartbeat(ledger, "devices", 1, Observation(TEN + 3 * HOUR), lateness=MINUTE)
    assert hours(ledger) == [
        (TEN, 1, 10, "clock"),
        (TEN + HOUR, 0, 0, "clock"),
        (TEN + 2 * HOUR, 0, 0, "clock"),
    ]


def held(connection: psycopg.Connection) -> tuple | None:
    return connection.execute("SELECT hour, held_by, held_since FROM closing").fetchone()


def test_row_26_what_holds_closing_and_since_when_is_named_until_it_is_gone(
    ledger: psycopg.Connection,
) -> None:
    commit(ledger, 1, [(0, 0, 3)], landed((TEN, 3), newest=TEN), lagging=(1,), clock=TEN + 30 * MINUTE)
    assert held(ledger) == (TEN, None, None)
    ended = TEN + HOUR + MINUTE
    beat(ledger, 1, ended, LEFT)
    beat(ledger, 1, ended + MINUTE, {1: Backlog(5, 5, 8)})
    told = "partition 1: 3 in or behind an open transaction"
    assert held(ledger) == (TEN, told, ended)
    beat(ledger, 1, ended + 2 * MINUTE, {})
    assert held(ledger) == (TEN + HOUR, None, None)


def test_the_head_does_not_grow_with_what_is_remembered(ledger: psycopg.Connection) -> None:
    size = "SELECT pg_column_size(head.*) FROM ledger.head"
    left = {p: Backlog(1, 10**12, 10**12) for p in range(4)}
    sizes = []
    for number in range(1, 40):
        now = NOW + number * MINUTE
        content = landed((TEN, 1), newest=now, partition=number % 4)
        commit(ledger, number, [(0, number, number + 1)], content, lagging=(0, 1, 2, 3), clock=now)
        beat(ledger, number, now, left)
        sizes.append(ledger.execute(size).fetchone())
    assert sizes[-1] == sizes[8]
