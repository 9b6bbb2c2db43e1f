"""Messages that the stream must reject: valid ones with exactly one defect.

The reasons are those of the event's contract, except for the two about time. Defects on which two parsers may
legitimately disagree (a JSON null in a field, `1e3` bytes, a comment) are left out: the answers must be
exact.
"""

from collections.abc import Callable, Mapping

Fields = Mapping[str, str]
"""JSON text by field name, in the order of the message."""


def json_object(fields: Fields) -> str:
    """Return the JSON object with these fields."""
    return "{" + ",".join(f'"{name}":{text}' for name, text in fields.items()) + "}"


def _with(**texts: str) -> Callable[[Fields], bytes]:
    return lambda fields: json_object({**fields, **texts}).encode()


def _without(name: str) -> Callable[[Fields], bytes]:
    return lambda fields: json_object({key: text for key, text in fields.items() if key != name}).encode()


def _around(before: str, after: str) -> Callable[[Fields], bytes]:
    return lambda fields: (before + json_object(fields) + after).encode()


def _exactly(value: bytes | None) -> Callable[[Fields], bytes | None]:
    return lambda _fields: value


def _twice(name: str) -> Callable[[Fields], bytes]:
    return lambda fields: f'{json_object(fields)[:-1]},"{name}":{fields[name]}}}'.encode()


def _truncated(fields: Fields) -> bytes:
    return json_object(fields).encode()[:-1]


def _single_quotes(fields: Fields) -> bytes:
    return json_object(fields).replace('"', "'").encode()


def _object_twice(fields: Fields) -> bytes:
    return (json_object(fields) * 2).encode()


def _bad_byte(byte: bytes) -> Callable[[Fields], bytes]:
    return lambda fields: json_object({**fields, "app": '"~"'}).encode().replace(b"~", byte)


SHAPES: dict[str, tuple[Callable[[Fields], bytes | None], ...]] = {
    "not_json": (_truncated, _exactly(b"GET / HTTP/1.1"), _with(bytes="NaN"), _single_quotes),
    "trailing_data": (_around("", " trailing"), _object_twice, _around("", "}")),
    "not_an_object": (_around("[", "]"), _exactly(b'"SKYPE"'), _exactly(b"42"), _exactly(b"true")),
    "duplicate_field": tuple(map(_twice, ("bytes", "id", "timestamp"))),
    "missing_field": (*map(_without, ("bytes", "timestamp", "app", "id", "antenna_id")), _exactly(b"{}")),
    "wrong_type": (
        _with(bytes='"12"'),
        _with(app="5"),
        _with(id="[1]"),
        _with(bytes="1.5"),
        _with(antenna_id='{"a":1}'),
        _with(timestamp="true"),
    ),
    "negative_bytes": (_with(bytes="-1"), _with(bytes=str(-(2**40)))),
    "bytes_out_of_range": (_with(bytes=str(2**36 + 1)), _with(bytes=str(2**63 - 1))),
    "blank": (
        _exactly(None),
        _exactly(b""),
        _with(app='""'),
        _with(id='""'),
        _exactly(b"  \n"),
        _with(antenna_id='""'),
    ),
    "too_long": (
        _with(app='"' + "a" * 257 + '"'),
        _with(id='"' + "1" * 65 + '"'),
        _with(antenna_id='"' + "1" * 100 + '"'),
        # 129 characters, 258 bytes: the bound is on bytes.
        _with(app='"' + "é" * 129 + '"'),
    ),
    "not_utf8": tuple(map(_bad_byte, (b"\xff", b"\xc3(", b"\xed\xa0\x80"))),
    "unstorable_text": (_with(app='"SKY\\u0000PE"'), _with(id='"\\u0000"')),
}
"""By reason, the defects that lead to it."""

REASONS = tuple(SHAPES)


def malformed(number: int, fields: Fields) -> tuple[bytes | None, str]:
    """Return value and reason of the malformed message `number`; any twelve in a row have twelve reasons."""
    turn, place = divmod(number, len(REASONS))
    reason = REASONS[place]
    shapes = SHAPES[reason]
    return shapes[turn % len(shapes)](fields), reason
