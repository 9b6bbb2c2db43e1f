"""Whose turn it is to be read: partitions that are far ahead of one that has more wait for it."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antenna_assets.streaming.embedded import turns
from antenna_assets.streaming.embedded.turns import Turns

LEAD = 20


@pytest.fixture(autouse=True, scope="module")
def _short_lead() -> Iterable[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns, "LEAD", LEAD)
        yield


def test_a_partition_that_is_too_far_ahead_waits_until_the_other_is_half_as_far_behind() -> None:
    reading = Turns([0, 1])
    reading.take({0: 20}, [])
    assert reading.waiting == set()
    reading.take({0: 1}, [])
    assert reading.waiting == {0}
    reading.take({1: 10}, [])
    assert reading.waiting == {0}
    reading.take({1: 1}, [])
    assert reading.waiting == set()


def test_nobody_waits_for_a_partition_that_is_read_out() -> None:
    reading = Turns([0, 1])
    reading.take({0: 1_000}, [1])
    assert reading.waiting == set()


def test_a_partition_that_was_read_out_owes_nothing_when_it_gets_more() -> None:
    reading = Turns([0, 1])
    reading.take({0: 1_000}, [1])
    reading.take({0: 20}, [])
    assert reading.waiting == set()
    reading.take({0: 1}, [])
    assert reading.waiting == {0}


# A few draws for each example: with thousands it takes minutes now and then.
@given(backlogs=st.lists(st.integers(0, 120), min_size=1, max_size=4), draw=st.data())
def test_every_partition_is_read_to_its_end_and_none_is_far_ahead(
    backlogs: list[int], draw: st.DataObject
) -> None:
    left = dict(enumerate(backlogs))
    reading = Turns(left)
    taken = dict.fromkeys(left, 0)
    while any(left.values()):
        ready = [partition for partition, more in left.items() if more and partition not in reading.waiting]
        # Somebody is always read, whatever was fetched until now.
        partition = draw.draw(st.sampled_from(ready))
        count = min(draw.draw(st.integers(5, 12)), left[partition])
        left[partition] -= count
        taken[partition] += count
        reading.take({partition: count}, [one for one, more in left.items() if not more])
        unfinished = [taken[one] for one, more in left.items() if more]
        assert not unfinished or max(unfinished) - min(unfinished) <= LEAD + 12
