from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antenna_assets.domain.alert_rule import Alert, Event, PeriodUsage, follow, is_reached

RUNNING = PeriodUsage(published=0, live=0, quota=1000)


def look(alert: Alert | None, usage: PeriodUsage, percent: int = 80) -> tuple[Alert | None, list[Event]]:
    return follow(alert, usage, percent)


@pytest.mark.parametrize(
    ("used", "quota", "percent", "reached"),
    [
        (799, 1000, 80, False),
        (800, 1000, 80, True),
        (1000, 1000, 100, True),
        (999, 1000, 100, False),
        # No rounding: 80 % of 3 bytes are 2.4.
        (2, 3, 80, False),
        (3, 3, 80, True),
        (0, 0, 50, False),
        (1, 0, 120, True),
        (10**30, None, 50, False),
        (2**63 * 80, 2**63 * 100, 80, True),
        (2**63 * 80 - 1, 2**63 * 100, 80, False),
    ],
)
def test_a_threshold_is_reached_at_exactly_its_percentage(
    used: int, quota: int | None, percent: int, reached: bool
) -> None:
    assert is_reached(used, quota, percent) is reached


def test_an_hour_is_raised_by_live_sums_resolved_at_its_end_and_confirmed_by_its_publication() -> None:
    alert, events = look(None, replace(RUNNING, live=799))
    assert (alert, events) == (None, [])
    alert, events = look(alert, replace(RUNNING, live=800))
    assert (alert, events) == (Alert("live", 800, 1000), ["raised"])
    alert, events = look(alert, replace(RUNNING, live=950))
    assert events == []
    alert, events = look(alert, replace(RUNNING, live=960, over=True))
    assert (alert, events) == (Alert("live", 960, 1000, notices=2, resolved=True), ["resolved"])
    published = PeriodUsage(960, 0, 1000, complete=True, over=True, current=False)
    alert, events = look(alert, published)
    assert (alert, events) == (Alert("published", 960, 1000, notices=3, resolved=True), ["confirmed"])
    assert look(alert, published) == (alert, [])


def test_a_month_is_confirmed_once_its_published_hours_alone_reach_the_threshold() -> None:
    alert, events = look(None, replace(RUNNING, published=700, live=100))
    assert events == ["raised"]
    alert, events = look(alert, replace(RUNNING, published=790, live=20))
    assert events == []
    alert, events = look(alert, replace(RUNNING, published=810, live=3))
    assert (alert, events) == (Alert("published", 813, 1000, notices=2), ["confirmed"])
    alert, events = look(alert, replace(RUNNING, published=990, live=3))
    assert events == []


def test_what_was_published_first_is_raised_and_confirmed_at_once() -> None:
    alert, events = look(None, replace(RUNNING, published=900))
    assert (alert, events) == (Alert("published", 900, 1000, notices=2), ["raised", "confirmed"])


def test_history_raises_nothing() -> None:
    past = PeriodUsage(published=5000, live=0, quota=1000, complete=True, over=True, current=False)
    assert look(None, past) == (None, [])
    assert look(None, replace(past, complete=False, live=7000)) == (None, [])


def test_late_rows_correct_the_figure_of_an_alert() -> None:
    known = Alert("published", 960, 1000, notices=3, resolved=True)
    restated = PeriodUsage(1040, 0, 1000, complete=True, over=True, current=False)
    assert look(known, restated) == (
        Alert("published", 1040, 1000, notices=4, resolved=True),
        ["corrected"],
    )


def test_a_restatement_takes_an_alert_back_and_another_one_brings_it_back_as_a_correction() -> None:
    known = Alert("published", 960, 1000, notices=3, resolved=True)
    less = PeriodUsage(500, 0, 1000, complete=True, over=True, current=False)
    alert, events = look(known, less)
    assert (alert, events) == (Alert("taken back", 500, 1000, notices=4, resolved=True), ["corrected"])
    alert, events = look(alert, replace(less, published=400))
    assert events == []
    alert, events = look(alert, replace(less, published=900))
    assert (alert, events) == (Alert("published", 900, 1000, notices=5, resolved=True), ["corrected"])


def test_a_larger_quota_takes_an_alert_back_and_it_is_raised_anew_when_that_is_used_as_well() -> None:
    known = Alert("live", 800, 1000)
    alert, events = look(known, replace(RUNNING, live=850, quota=2000))
    assert (alert, events) == (Alert("taken back", 850, 2000, notices=2), ["corrected"])
    alert, events = look(alert, replace(RUNNING, live=1600, quota=2000))
    assert (alert, events) == (Alert("live", 1600, 2000, notices=3), ["raised"])


def test_nothing_is_taken_back_by_a_usage_of_which_a_part_is_missing() -> None:
    known = Alert("published", 960, 1000, notices=2)
    assert look(known, replace(RUNNING, published=500, exact=False)) == (known, [])
    # Without a limit it is not reached, whatever is missing.
    alert, events = look(known, replace(RUNNING, published=500, exact=False, quota=None))
    assert (alert and alert.figure, events) == ("taken back", ["corrected"])


def test_what_is_reached_after_all_once_the_period_is_over_is_a_correction() -> None:
    known = Alert("taken back", 500, 2000, notices=3, resolved=True)
    assert look(known, replace(RUNNING, live=900, over=True)) == (
        Alert("live", 900, 1000, notices=4, resolved=True),
        ["corrected"],
    )


def test_what_is_read_just_after_the_end_is_raised_and_resolved_at_once() -> None:
    assert look(None, replace(RUNNING, live=900, over=True)) == (
        Alert("live", 900, 1000, notices=2, resolved=True),
        ["raised", "resolved"],
    )


def test_a_limit_that_is_lifted_takes_the_alert_back() -> None:
    alert, events = look(Alert("live", 800, 1000), replace(RUNNING, live=850, quota=None))
    assert (alert, events) == (Alert("taken back", 850, None, notices=2), ["corrected"])


@st.composite
def lives(draw: st.DrawFn) -> list[PeriodUsage]:
    """What is seen of a period, from its running to its restatements: any quota changes, any number of looks."""
    quotas = st.none() | st.integers(0, 20)
    seen = []
    published = live = 0
    quota = draw(quotas)
    for _ in range(draw(st.integers(1, 6))):
        live += draw(st.integers(0, 9))
        moved = draw(st.integers(0, live))
        published, live = published + moved, live - moved
        quota = draw(quotas) if draw(st.booleans()) else quota
        seen.append(PeriodUsage(published, live, quota))
    if draw(st.booleans()):
        seen.append(PeriodUsage(published, live, quota, over=True))
    for _ in range(draw(st.integers(0, 4))):
        seen.append(PeriodUsage(draw(st.integers(0, 40)), 0, quota, complete=True, over=True, current=False))
        quota = draw(quotas) if draw(st.booleans()) else quota
    return seen


def told(events: list[tuple[Event, PeriodUsage]], percent: int) -> str:
    """What a receiver holds for true that has only read the notices, by a plain reading of each."""
    held = "nothing"
    for event, usage in events:
        if event == "raised":
            held = "reached"
        if event == "corrected":
            quota = usage.quota
            enough = quota is not None and (
                usage.used > 0 if quota == 0 else usage.used * 100 >= quota * percent
            )
            held = "reached" if enough else "not reached"
    return held


@given(lives(), st.sampled_from([50, 80, 100, 120]))
def test_whoever_reads_the_notices_knows_the_truth(seen: list[PeriodUsage], percent: int) -> None:
    alert: Alert | None = None
    notices: list[tuple[Event, PeriodUsage]] = []
    for usage in seen:
        before = 0 if alert is None else alert.notices
        alert, events = follow(alert, usage, percent)
        notices += [(event, usage) for event in events]
        # Each notice has a number of its own, and a second look has nothing to say.
        assert (0 if alert is None else alert.notices) == before + len(events)
        assert follow(alert, usage, percent) == (alert, [])
        reached = is_reached(usage.used, usage.quota, percent)
        if alert is None:
            assert not (reached and usage.current)
        else:
            assert told(notices, percent) == ("reached" if reached else "not reached")
            assert (alert.figure == "taken back") is not reached
            if reached and usage.complete:
                assert (alert.figure, alert.used) == ("published", usage.used)
    kinds = [event for event, _ in notices]
    assert kinds[:1] in ([], ["raised"])
    assert kinds.count("resolved") == (1 if alert is not None and alert.resolved else 0)
    assert kinds.count("confirmed") <= kinds.count("raised") + kinds.count("corrected")
    assert all(usage.current for event, usage in notices if event == "raised")
