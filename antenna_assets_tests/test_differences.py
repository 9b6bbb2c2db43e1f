"""Keyed rows are compared in one place; `antenna check`, `antenna verify` and a backfill's dry run rely on it."""

from hypothesis import given
from hypothesis import strategies as st

from antenna_assets.domain.differences import differences

ROWS = st.dictionaries(st.text(max_size=2), st.tuples(st.integers(0, 3), st.none() | st.integers(0, 1)))


def test_rows_that_differ_come_in_the_order_of_their_keys() -> None:
    expected = {"b": (1,), "a": (2,), "d": (4,), "c": (3,)}
    found = {"a": (2,), "b": (7,), "c": (3,), "e": (5,)}
    assert [*differences(expected, found)] == [("b", (1,), (7,)), ("d", (4,), None), ("e", None, (5,))]


def test_a_missing_key_has_the_value_that_the_caller_names() -> None:
    assert [*differences({"late": 2, "blank": 0}, {"blank": 1}, absent=0)] == [
        ("blank", 0, 1),
        ("late", 2, 0),
    ]
    assert [*differences({"blank": 0}, {}, absent=0)] == []


@given(ROWS, ROWS)
def test_putting_the_differences_right_makes_both_equal(expected: dict, found: dict) -> None:
    repaired = dict(found)
    for key, left, right in differences(expected, found):
        assert left != right
        if left is None:
            del repaired[key]
        else:
            repaired[key] = left
    assert repaired == expected
