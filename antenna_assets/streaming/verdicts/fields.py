"""The fields of an event, and what each of its texts may be."""

from antenna_assets.domain.schema import MAX_APP_BYTES, MAX_ID_BYTES

TEXTS = {"app": MAX_APP_BYTES, "id": MAX_ID_BYTES, "antenna_id": MAX_ID_BYTES}
"""Fields that are text, with the most bytes of UTF-8 that they may have."""

FIELDS = ("bytes", "timestamp", *TEXTS)

WHITE = (
    "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""Unicode's White_Space. `str.strip()` without it would also take four control characters."""


def is_blank(text: str) -> bool:
    """Whether a text is empty or all white space."""
    return not text.strip(WHITE)


def fits(name: str, text: str) -> bool:
    """Whether a text can be the field's value: not blank, not too long, no NUL."""
    if not text.isascii():
        size = len(text.encode())
    elif text[:1] > " ":
        return len(text) <= TEXTS[name] and "\0" not in text
    else:
        size = len(text)
    return size <= TEXTS[name] and "\0" not in text and not is_blank(text)
