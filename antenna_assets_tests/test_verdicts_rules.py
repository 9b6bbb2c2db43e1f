"""The strict function: the literal table, 50,000 damaged messages against the oracle, and any bytes at all."""

import json
import random
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from antenna_assets.domain.schema import REASONS
from antenna_assets.streaming.verdicts.rules import Bounds, Event, Rejection, judge
from antenna_assets_tests.messages import CLOCK, DETAILS, NOW, OLDEST, TABLE, VALID, expected, message
from antenna_assets_tests.parse_oracle import Accepted, Rejected, verdict
from antenna_assets_tests.random_messages import LARGE, MESSAGE, random_message

BOUNDS = Bounds(CLOCK, OLDEST)


def in_oracles_words(found: Event | Rejection) -> Accepted | Rejected:
    return Accepted(*found) if isinstance(found, Event) else Rejected(found.reason)


def assert_the_oracle_agrees(value: bytes | None) -> str:
    found = judge(value, BOUNDS)
    assert in_oracles_words(found) == verdict(value, CLOCK, OLDEST), value
    if isinstance(found, Event):
        return "accepted"
    assert_shown_fit(found, value)
    return found.reason


def assert_shown_fit(found: Rejection, value: bytes | None) -> None:
    assert 0 < len(found.detail) <= 200
    assert not any(character < " " or character == "\x7f" for character in found.detail)
    # It can be stored.
    found.detail.encode()
    text = (value or b"").decode(errors="replace")
    shown = found.detail.removeprefix(f"{len(value or b'')} bytes that begin with ")
    assert not text.strip() or text not in shown


@pytest.mark.parametrize("name", TABLE)
def test_verdict(name: str) -> None:
    found = judge(TABLE[name][0], BOUNDS)
    assert in_oracles_words(found) == expected(name)
    if isinstance(found, Rejection):
        assert_shown_fit(found, TABLE[name][0])


@pytest.mark.parametrize("name", TABLE)
def test_oracle_agrees_with_the_table(name: str) -> None:
    assert verdict(TABLE[name][0], CLOCK, OLDEST) == expected(name)


def test_table_has_every_reason() -> None:
    assert {of for _, of in TABLE.values() if isinstance(of, str)} == set(REASONS)


@pytest.mark.parametrize("name", DETAILS)
def test_detail_says_what_was_found(name: str) -> None:
    found = judge(TABLE[name][0], BOUNDS)
    assert isinstance(found, Rejection)
    assert found.detail == DETAILS[name]


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        (message(app="[1, 2.50]"), "app is not text: [1, 2.50]"),
        (message(app='{"a": ["\\ud83d\\ude00"]}'), 'app is not text: {"a": ["\\ud83d\\ude00"]}'),
        (message(bytes="1.50e2"), "bytes is not an integer: 1.50e2"),
        (message(bytes="true", id="null"), "bytes is not an integer: true; id is not text: null"),
        (message(bytes="9" * 400), f"bytes is {'9' * 60}"),
        (message(app="[" * 200 + "]" * 200), f"app is not text: {'[' * 60}"),
        (message(app='{"a":1, "b":[]}', id='"\\ud83d\\ude00"'), 'app is not text: {"a":1, "b":[]}'),
        (b'{"a\\ud800":1,"a\\ud800":2,"b":1,"b":2,"c":1}', "given more than once: a?, b"),
        (b'{"a\\n":1,"a\\n":2}', "given more than once: a?"),
        (message(x='{"a":1,"a":1}'), "a name repeated in a nested object, or half a surrogate pair"),
        (VALID + b" x", f"{len(VALID) + 2} bytes that begin with {VALID[:44].decode()}"),
        ("ééé".encode(), "6 bytes that begin with é"),
        (b" \n", "2 bytes of white space"),
    ],
)
def test_detail_shows_what_is_written(value: bytes, detail: str) -> None:
    found = judge(value, BOUNDS)
    assert isinstance(found, Rejection)
    assert found.detail == detail


def test_a_full_hour_takes_no_more() -> None:
    bounds = Bounds(CLOCK, OLDEST, [datetime(2026, 11, 22, 9, tzinfo=UTC)])
    detail = "the hour holds 2^62 bytes already and takes no more"
    assert judge(message(timestamp=str(NOW - 3600)), bounds) == Rejection("bytes_out_of_range", detail)
    assert isinstance(judge(VALID, bounds), Event)


def test_naive_clock_is_refused() -> None:
    with pytest.raises(ValueError, match="with a time zone"):
        Bounds(CLOCK.replace(tzinfo=None), OLDEST)


@pytest.mark.parametrize("seed", range(5))
def test_ten_thousand_damaged_messages(seed: int) -> None:
    rng = random.Random(seed)
    counts = Counter(assert_the_oracle_agrees(random_message(rng)) for _ in range(10_000))
    # A generator that stops reaching a verdict proves nothing about it.
    assert set(counts) == {"accepted", *REASONS}
    assert counts["accepted"] > 1_000


@given(value=MESSAGE)
@example(value=b'{"a":"\\ud800","a":1}')
@example(value=b'["\\ud800"] 1')
@example(value=b'{"a":"\\ud800"} 1')
@example(value=b'"\\ud83d\\ude00"')
@example(value=b"[1e5,-0,{}]1")
def test_any_messages_at_all(value: bytes) -> None:
    assert_the_oracle_agrees(value)


EXTRA = st.recursive(
    st.sampled_from(["1", '"a"', '"\\ud83d\\ude00"', "-0.5e3", "[]", "{}", "null", " true "]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda parts: "[" + ",".join(parts) + "]")
        | st.lists(st.tuples(st.sampled_from("abc"), inner), max_size=3).map(
            lambda pairs: "{ " + " ,".join(f'"{name}" :\n{part}' for name, part in pairs) + "}"
        )
    ),
)


@given(extra=EXTRA, behind=st.sampled_from(["", " ", "]", "x", ",1"]), damage=st.integers(0, 200))
def test_both_parsers_read_the_same(extra: str, behind: str, damage: int) -> None:
    """The texts with half of an escaped pair in them are read by the exact one."""
    value = message(x=extra) + behind.encode()
    value = value[:damage] + value[damage + 1 :]
    # An escape that only the exact parser is asked about.
    exact = value.replace(b'"u-1"', b'"u-1\\ud83d\\ude00"')
    plain = value.replace(b'"u-1"', '"u-1\U0001f600"'.encode())
    assert_the_oracle_agrees(exact)
    assert in_oracles_words(judge(exact, BOUNDS)) == in_oracles_words(judge(plain, BOUNDS))


@pytest.mark.parametrize("name", LARGE)
def test_row_32_a_message_of_a_megabyte_is_judged_in_seconds(name: str) -> None:
    value, reason = LARGE[name]
    begin = time.process_time()
    found = judge(value, BOUNDS)
    assert time.process_time() - begin < 10
    assert getattr(found, "reason", None) == reason
    if name == "many names, one of them twice":
        assert getattr(found, "detail", None) == "given more than once: n3, n7"


HUGE = {
    "open brackets": (b"[" * 10_000_000, "not_json"),
    "open braces": (b'{"a":' * 2_000_000, "not_json"),
    "brackets": (message(x="[" * 5_000_000 + "]" * 5_000_000), "not_json"),
    "arrays": (message(x="[" + "[]," * 3_000_000 + "[]]"), None),
    "arrays and texts": (message(x="[" + '["]\\\\\\"["],' * 800_000 + "[]]"), None),
    "short texts": (message(x="[" + '"",' * 3_000_000 + '"["]', y="[" * 999 + "]" * 999), "trailing_data"),
    "half a text": (message(x="[" * 999 + "]" * 999) + b'"' + b"\\" * 9_000_001, "trailing_data"),
    "digits": (message(timestamp="1" * 10_000_000), "not_json"),
    "an exponent": (message(x="1e" + "9" * 10_000_000), "not_json"),
    "numbers of 640 digits": (message(x="[" + "9" * 640 + ("," + "9" * 640) * 15_000 + "]"), None),
    "surrogate pairs": (message(x='"' + "\\ud83d\\ude00" * 800_000 + '"'), None),
    "backslashes": (message(x='"' + "\\" * 10_000_000 + '"'), None),
    "NULs": (message(app='"' + "\\u0000" * 1_600_000 + '"'), "too_long"),
    "no UTF-8": (b"\xff" * 10_000_000, "not_utf8"),
}


@pytest.mark.parametrize("name", HUGE)
def test_ten_megabytes_of_anything_are_judged_in_seconds(name: str) -> None:
    value, reason = HUGE[name]
    begin = time.process_time()
    assert getattr(judge(value, BOUNDS), "reason", None) == reason
    assert time.process_time() - begin < 30


def test_a_deep_call_stack_changes_no_verdict() -> None:
    """The standard library's parser counts its levels together with those of its callers."""
    deep = message(x="[" * 990 + "]" * 990)

    def down(levels: int) -> Event | Rejection:
        return down(levels - 1) if levels else judge(deep, BOUNDS)

    assert isinstance(down(600), Event)


def test_numbers_are_read_alike_however_pythons_limit_of_digits_is_set() -> None:
    program = (
        "from datetime import datetime, UTC\n"
        "from antenna_assets.streaming.verdicts.rules import Bounds, judge\n"
        "from antenna_assets_tests.messages import *\n"
        "bounds = Bounds(CLOCK, OLDEST)\n"
        "for digits in (600, 639, 641, 700, 1000):\n"
        "    assert judge(message(x='1' * digits), bounds).app == 'web', digits\n"
        "    assert judge(message(bytes='1' * digits), bounds).reason == 'bytes_out_of_range', digits\n"
        "assert judge(message(x='1' * 1001), bounds).reason == 'not_json'\n"
    )
    subprocess.run([sys.executable, "-X", "int_max_str_digits=640", "-c", program], check=True)


def test_the_rules_need_no_engine() -> None:
    program = (
        "import sys, antenna_assets.streaming.verdicts.rules\n"
        "print(*({'pyspark', 'duckdb', 'confluent_kafka'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "\n"


def test_json_dumps_writes_what_is_accepted() -> None:
    event = {"bytes": 7, "timestamp": NOW + 0.5, "app": "vidéo", "id": "u", "antenna_id": "a"}
    found = Event(NOW * 1_000_000 + 500_000, "vidéo", "u", "a", 7)
    assert judge(json.dumps(event).encode(), BOUNDS) == found
    assert judge(json.dumps(event, ensure_ascii=False).encode(), BOUNDS) == found
