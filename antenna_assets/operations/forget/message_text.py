"""The bytes of a rejected message as text: which encoding they are in, or why they are not text."""

import codecs
import re
from collections.abc import Iterator

COMPRESSED = "compressed"
BINARY = "no text"

_MAGIC = (
    b"\x1f\x8b",
    b"\x28\xb5\x2f\xfd",
    b"\x04\x22\x4d\x18",
    b"\xfd7zXZ\x00",
    b"BZh",
    b"PK\x03\x04",
    b"\xff\x06\x00\x00sNaPpY",
    b"\x78\x01",
    b"\x78\x9c",
    b"\x78\xda",
)
_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
"""A control character that is in no text."""

# A schema registry's frame: a zero byte and the number of the schema.
_FRAME = 5


def decode(value: bytes) -> tuple[str, str, str, str | None]:
    """Decode a message: its text, the encoding and the error handler that give the same bytes again, and why
    it is not text, if it is not."""
    for encoding in _encodings(value):
        try:
            return value.decode(encoding), encoding, "strict", None
        except UnicodeDecodeError:
            continue
    text = value.decode("utf-8", "surrogateescape")
    body = text[_FRAME:] if text.startswith("\x00") else text
    no_text = None
    if CONTROL.search(body) and not ("\x00" not in body and body.lstrip().startswith(("{", "[", '"'))):
        no_text = COMPRESSED if value.startswith(_MAGIC) else BINARY
    return text, "utf-8", "surrogateescape", no_text


def _encodings(value: bytes) -> Iterator[str]:
    for mark, encoding in _BOMS:
        if value.startswith(mark):
            yield encoding
    # Without a byte order mark: in text that is mostly ASCII every other byte is zero, or three of four.
    quarter = len(value) // 4
    if not quarter or b"\x00" not in value:
        return
    for encoding, width, zero in (
        ("utf-32-le", 4, 3),
        ("utf-32-be", 4, 0),
        ("utf-16-le", 2, 1),
        ("utf-16-be", 2, 0),
    ):
        high = value[zero::width]
        if len(value) % width == 0 and high.count(0) * 2 > len(high):
            try:
                if not CONTROL.search(value.decode(encoding)):
                    yield encoding
            except UnicodeDecodeError:
                continue
