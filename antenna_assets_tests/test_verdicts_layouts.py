"""How messages are laid out; that cutting by layouts changes no verdict is in `test_verdicts_judged.py`."""

import json
from collections import Counter

import pytest

from antenna_assets.streaming.verdicts.layouts import MOST_LAYOUTS, Layout, Layouts, layout_of

COMPACT = b'{"bytes":12,"timestamp":1795343400.5,"app":"web","id":"u-1","antenna_id":"a-1"}'
WIDE = b' { "id" : "u-1", "bytes": 12,\t"app": "web" ,"antenna_id": "a-1", "timestamp": 1795343400 }\r\n'
MORE = COMPACT[:-1] + b',"model":"m","signal":-71.5e0,"roaming":false,"":null}'


def layout(message: bytes) -> Layout:
    found = layout_of(message)
    assert found is not None
    return found


def test_a_layout_is_what_stands_around_the_values() -> None:
    assert layout(COMPACT) == Layout(
        ("bytes", "timestamp", "app", "id", "antenna_id"),
        (False, False, True, True, True),
        ('{"bytes":', ',"timestamp":', ',"app":"', '","id":"', '","antenna_id":"', '"}'),
    )
    assert layout(WIDE) == Layout(
        ("id", "bytes", "app", "antenna_id", "timestamp"),
        (True, False, True, True, False),
        (' { "id" : "', '", "bytes": ', ',\t"app": "', '" ,"antenna_id": "', '", "timestamp": ', " }\r\n"),
    )


def test_further_fields_with_a_scalar_are_part_of_it() -> None:
    found = layout(MORE)
    assert found.names[5:] == ("model", "signal", "roaming", "")
    assert found.quoted[5:] == (True, False, False, False)
    assert found.around[5:] == ('","model":"', '","signal":', ',"roaming":', ',"":', "}")


def test_the_values_do_not_matter() -> None:
    other = {"bytes": 0, "timestamp": 3, "app": "a, b: {c}", "id": "", "antenna_id": "x"}
    assert layout(json.dumps(other, separators=(",", ":")).encode()) == layout(COMPACT)


def test_members_are_separated_by_what_stands_between_all_of_them() -> None:
    assert layout(COMPACT).separator == ',"'
    assert layout(COMPACT.replace(b',"', b', "')).separator == ', "'
    assert layout(COMPACT.replace(b',"', b'\n,\t"')).separator == '\n,\t"'
    assert layout(WIDE).separator == ","


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"hello",
        b"{}",
        b"{" * 1000,
        COMPACT + b"}",
        COMPACT + b"x",
        COMPACT[:-1] + b",}",
        COMPACT[:-1] + b',"more":[]}',
        COMPACT[:-1] + b',"id":"u"}',
        COMPACT[:-1] + b',"w\\u0065b":1}',
        COMPACT[:-1] + b"," + b",".join(b'"n%d":1' % number for number in range(100)) + b"}",
        COMPACT.replace(b'"bytes":12,', b""),
        COMPACT.replace(b"antenna_id", b"antenna"),
        COMPACT.replace(b"12", b'"12"'),
        COMPACT.replace(b"12", b"true"),
        COMPACT.replace(b'"web"', b"3"),
        COMPACT.replace(b"web", rb"w\u0065b"),
        COMPACT.replace(b"web", "wéb".encode()),
        COMPACT.replace(b"web", b"w\xffb"),
        COMPACT.replace(b",", b",\x0b"),
    ],
)
def test_what_is_no_plain_event_has_none(message: bytes) -> None:
    assert layout_of(message) is None


def spaced(count: int) -> bytes:
    return b" " * count + COMPACT


def test_a_message_of_its_own_teaches_nothing() -> None:
    layouts = Layouts()
    assert not layouts.learn([COMPACT, WIDE, b"hello"], each=100)
    assert layouts.known == ()
    assert layouts.learn([COMPACT, WIDE, COMPACT], each=100)
    assert layouts.known == (layout(COMPACT),)


def test_the_heaviest_are_kept_and_are_first() -> None:
    layouts = Layouts()
    for count in range(12):
        layouts.learn([spaced(count)] * (count + 2), each=10)
    assert layouts.known == tuple(layout(spaced(count)) for count in range(11, 11 - MOST_LAYOUTS, -1))


def test_a_light_one_takes_no_place() -> None:
    layouts = Layouts()
    layouts.learn([spaced(count) for count in range(MOST_LAYOUTS)] * 5, each=10)
    before = layouts.known
    assert not layouts.learn([WIDE, WIDE], each=10)
    assert layouts.known == before


def test_one_without_messages_for_long_is_forgotten() -> None:
    layouts = Layouts()
    layouts.learn([COMPACT] * 5 + [WIDE] * 5, each=1_000)
    used = Counter({layout(WIDE): 3})
    for _ in range(100):
        layouts.record(used)
    assert layouts.known == (layout(WIDE),)
