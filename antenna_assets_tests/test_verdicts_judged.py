"""Verdicts on batches: as the strict function gives them, whatever layouts were learned."""

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from antenna_assets.domain.schema import REJECTED_SCHEMA
from antenna_assets.streaming.envelope import MESSAGES
from antenna_assets.streaming.verdicts import judged
from antenna_assets.streaming.verdicts.judged import ACCEPTED_SCHEMA, Judge
from antenna_assets.streaming.verdicts.rules import Bounds, Event, judge
from antenna_assets_tests.messages import CLOCK, NOW, OLDEST, TABLE, VALID, message
from antenna_assets_tests.random_messages import MESSAGE, SNIPPETS, random_message

BOUNDS = Bounds(CLOCK, OLDEST)


@pytest.fixture(autouse=True)
def every_batch_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judged, "FEW", 0)


@pytest.fixture
def judge_() -> Iterator[Judge]:
    found = Judge(threads=2)
    yield found
    found.close()


def batch(values: list[bytes | None]) -> pa.Table:
    columns = [
        values,
        [number % 3 for number in range(len(values))],
        range(len(values)),
        [datetime(2026, 11, 22, 10, tzinfo=UTC)] * len(values),
    ]
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, MESSAGES, strict=True)],
        schema=MESSAGES,
    )


def found_by(judge_: Judge, values: list[bytes | None], bounds: Bounds = BOUNDS) -> list[dict]:
    """The rows of both tables in the order of the messages."""
    found = judge_.judge(batch(values), bounds)
    assert found.accepted.schema.equals(ACCEPTED_SCHEMA)
    assert found.rejected.schema.equals(REJECTED_SCHEMA)
    found.accepted.validate(full=True)
    found.rejected.validate(full=True)
    rows = found.accepted.to_pylist() + found.rejected.to_pylist()
    return sorted(rows, key=lambda row: row["kafka_offset"])


def expected_of(values: list[bytes | None], bounds: Bounds = BOUNDS) -> list[dict]:
    """The same by the strict function, one by one."""
    rows = []
    for offset, value in enumerate(values):
        verdict = judge(value, bounds)
        place = {"kafka_partition": offset % 3, "kafka_offset": offset}
        if isinstance(verdict, Event):
            event = verdict._asdict()
            micros = event.pop("micros")
            time = datetime.fromtimestamp(micros // 1_000_000, UTC).replace(microsecond=micros % 1_000_000)
            rows.append({"timestamp": time, **event, **place, "hour": f"{time:%Y%m%d%H}"})
        else:
            rows.append(
                {"value": value, **verdict._asdict(), **place}
                | {"kafka_timestamp": datetime(2026, 11, 22, 10, tzinfo=UTC)}
            )
    return rows


def assert_as_the_rules(judge_: Judge, values: list[bytes | None], bounds: Bounds = BOUNDS) -> None:
    assert found_by(judge_, values, bounds) == expected_of(values, bounds)


COMPACT = VALID.replace(b" ", b"")


def test_the_table_with_and_without_layouts(judge_: Judge) -> None:
    values = [value for value, _ in TABLE.values()]
    values += [value and value.replace(b" ", b"") for value in values]
    assert_as_the_rules(judge_, values)
    assert_as_the_rules(judge_, [VALID, COMPACT] * 50 + values)
    assert len(judge_.layouts) >= 2
    assert_as_the_rules(judge_, values)


def test_an_empty_batch_has_empty_tables(judge_: Judge) -> None:
    assert found_by(judge_, []) == []


def test_a_batch_of_nothing_but_nulls_is_blank(judge_: Judge) -> None:
    assert [row["reason"] for row in found_by(judge_, [None, None])] == ["blank", "blank"]


@pytest.mark.parametrize("seed", range(5))
def test_ten_thousand_damaged_messages(judge_: Judge, seed: int) -> None:
    rng = random.Random(seed)
    values = [random_message(rng) for _ in range(10_000)]
    assert_as_the_rules(judge_, values)
    assert judge_.layouts
    assert_as_the_rules(judge_, values)


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(values=st.lists(st.none() | MESSAGE, max_size=30))
def test_any_messages_at_all(judge_: Judge, values: list[bytes | None]) -> None:
    assert_as_the_rules(judge_, [VALID, COMPACT] * 20 + values)


NAMES = ["bytes", "timestamp", "app", "id", "antenna_id"]
SPACE = st.sampled_from(["", "", " ", "  ", "\t", "\n", "\r\n"])


@st.composite
def layouts(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """The names of the fields and the white space around each token."""
    extra = draw(
        st.lists(st.sampled_from(["x", "Bytes", "a'b", "", "$1", "{", "é"]), unique=True, max_size=3)
    )
    names = draw(st.permutations(NAMES + extra))
    return names, draw(st.lists(SPACE, min_size=4 * len(names) + 2, max_size=4 * len(names) + 2))


def written(layout: tuple[list[str], list[str]], values: dict[str, str]) -> bytes:
    names, spaces = layout
    space = iter(spaces)
    members = (
        f'{next(space)}"{name}"{next(space)}:{next(space)}{values[name]}{next(space)}' for name in names
    )
    return (next(space) + "{" + ",".join(members) + "}" + next(space)).encode()


TEXT = st.text(st.sampled_from("ab ,:{}[]'/$%\x7f~é\t") | st.characters(codec="utf-8"), max_size=12)
NUMBER = st.sampled_from(
    [
        "0",
        "-0",
        "-1",
        "7",
        "07",
        "1_0",
        "+1",
        " 1",
        "1.",
        "1.0",
        "1e1",
        "68719476736",
        "68719476737",
        "9" * 19,
        "9" * 20,
    ]
)
DECIMALS = st.text("0123456789", max_size=9)
SECONDS = st.builds(
    lambda seconds, point, decimals, behind: f"{seconds}{point}{decimals}{behind}",
    st.integers(NOW - 3_024_010, NOW + 310),
    st.sampled_from(["", ".", ".", "."]),
    DECIMALS,
    st.sampled_from(["", "", "", "", "e0", "_1", " "]),
)
SCALAR = st.sampled_from(
    [
        "1",
        "-1.5e-3",
        "01",
        "1_0",
        "true",
        "false",
        "null",
        "nul",
        "[]",
        "{}",
        '"a"',
        '"\t"',
        '"\\n"',
        "1" * 1001,
        "NaN",
    ]
)


@st.composite
def values_of(draw: st.DrawFn) -> dict[str, str]:
    raw = draw(st.booleans())
    texts = {name: draw(TEXT) for name in ("app", "id", "antenna_id")}
    quoted = {name: f'"{text}"' if raw else json.dumps(text) for name, text in texts.items()}
    extra = {name: draw(SCALAR) for name in ("x", "Bytes", "a'b", "", "$1", "{", "é")}
    return {"bytes": draw(NUMBER), "timestamp": draw(SECONDS), **quoted, **extra}


PLAIN = {
    "bytes": "12",
    "timestamp": f"{NOW}.25",
    "app": '"web"',
    "id": '"u"',
    "antenna_id": '"a"',
    **dict.fromkeys(("x", "Bytes", "a'b"), "1.5"),
    **dict.fromkeys(("", "$1", "{", "é"), '"text"'),
}


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    some=st.lists(st.tuples(layouts(), st.lists(values_of(), max_size=6)), min_size=1, max_size=10),
    cut=st.integers(0, 100),
    snippet=st.sampled_from(SNIPPETS),
)
def test_layouts_change_no_verdict(judge_: Judge, some: list, cut: int, snippet: bytes) -> None:
    """Plain events teach the layouts, and hostile ones in the same layouts are judged by them."""
    taught = [written(layout, PLAIN) for layout, _ in some for _ in range(8)]
    hostile = [written(layout, values) for layout, hostile in some for values in hostile]
    damaged = [value[:cut] + snippet + value[cut + 1 :] for value in taught[::8]]
    assert_as_the_rules(judge_, taught + hostile + damaged)


def test_a_learned_layout_is_cut_and_not_parsed(judge_: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    values = [written((NAMES[turn:] + NAMES[:turn], [" "] * 30), PLAIN) for turn in range(5)] * 20
    found_by(judge_, values)
    monkeypatch.setattr(judged, "judge", None)
    assert len(found_by(judge_, values)) == 100


def test_of_many_layouts_the_most_frequent_are_known(judge_: Judge) -> None:
    layouts = [(NAMES, [" " * number, *[""] * 30]) for number in range(20)]
    values = [written(layout, PLAIN) for number, layout in enumerate(layouts) for _ in range(2 + 10 * number)]
    assert_as_the_rules(judge_, values)
    known = {layout.around[0] for layout in judge_.layouts}
    assert len(judge_.layouts) == 8
    assert " " * 19 + '{"bytes":' in known


def test_a_layout_that_is_used_no_more_is_forgotten(judge_: Judge) -> None:
    found_by(judge_, [VALID] * 100)
    for _ in range(60):
        found_by(judge_, [COMPACT] * 100)
    assert len(judge_.layouts) == 1


def test_a_full_hour_takes_no_more(judge_: Judge) -> None:
    bounds = Bounds(CLOCK, OLDEST, [datetime(2026, 11, 22, 9, tzinfo=UTC)])
    values = [message(timestamp=str(NOW - back)) for back in range(0, 7200, 60)]
    assert_as_the_rules(judge_, values, bounds)
    assert_as_the_rules(judge_, values, bounds)


def test_the_bounds_are_exact_to_the_microsecond(judge_: Judge) -> None:
    times = [f"{seconds}.{micros:06}" for seconds in (NOW + 299, NOW + 300, NOW - 3_024_001, NOW - 3_024_000)
             for micros in (0, 1, 999_999)]  # fmt: skip
    assert_as_the_rules(judge_, [VALID] * 100 + [message(timestamp=time) for time in times])


def test_every_microsecond_is_cut_exactly(judge_: Judge) -> None:
    rng = random.Random(0)
    values = [
        message(timestamp=f"{NOW - rng.randrange(3_000_000)}.{rng.randrange(10**6):06}")
        for _ in range(20_000)
    ]
    assert_as_the_rules(judge_, values)


def test_small_batches_are_judged_one_by_one(judge_: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judged, "FEW", 1_000)
    assert_as_the_rules(judge_, [VALID] * 500)
    assert judge_.layouts == ()
