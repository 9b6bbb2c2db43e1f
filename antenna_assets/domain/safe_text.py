"""What a sender wrote as text that is safe to show: whatever it is, no terminal acts on it.

Where the messages come from is `operations/quarantine/messages.py`.
"""

from rich.markup import escape


def safe_text(value: bytes | str, longest: int | None = None) -> str:
    """Printable text that stands for the bytes; beyond `longest` characters it ends in `…`.

    Bytes that are not UTF-8 become `\\xff`, controls and invisible characters `\\n`, `\\x1b`, `\\u202e`, and a
    backslash is doubled, so the text tells every value from every other.
    """
    if longest is not None:
        # No more than is shown: a message may have a megabyte. A character has four bytes at most.
        cut = value[: 4 * (longest + 1)]
        return _shortened(safe_text(cut), longest)
    text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
    return "".join(_safe(letter) for letter in text)


def safe_cell(value: bytes | str, longest: int | None = None) -> str:
    """`safe_text` for a place where Rich reads markup, as the cells of its tables: `[red]` is shown, and colours nothing."""
    return escape(safe_text(value, longest))


def _safe(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":
        # What surrogateescape made of a byte that is not UTF-8.
        return f"\\x{ord(letter) - 0xDC00:02x}"
    if letter == "\\" or not letter.isprintable():
        return letter.encode("unicode_escape").decode("ascii")
    return letter


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


LABEL_LENGTH = 24
"""Characters of a name beside a bar or in a legend."""


def label(name: str) -> str:
    """A name that fits into a legend: without its middle, since names of a kind often begin alike."""
    shown = safe_text(name)
    return shown if len(shown) <= LABEL_LENGTH else f"{shown[:8]}\u2026{shown[9 - LABEL_LENGTH :]}"


def hex_lines(value: bytes) -> list[str]:
    """The bytes in hexadecimal, 32 a line, each behind its position."""
    return [f"{start:06x}  {value[start : start + 32].hex(' ')}" for start in range(0, len(value), 32)]
