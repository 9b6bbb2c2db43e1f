"""A user's id within text: messages that were rejected, whatever is wrong with them, and what Dagster was told.

Where an id may be is for `lake.py` and `tables.py`.
"""

import base64
import json
import re
from html import escape

from antenna_assets.plot import label

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_PICTURE = re.compile(r"(?<=data:image/svg\+xml;base64,)[A-Za-z0-9+/=]+")
# A shorter text, or a number, may mean anything where it stands by itself.
_SURE_CHARACTERS = 8


def replaced(text: bytes, old: str, new: str) -> bytes:
    """The text with `new` for `old`: in each JSON string that is `old`, however it is spelled, and in broken text
    wherever `old` stands by itself. All else stays byte for byte."""

    def string(match: re.Match[bytes]) -> bytes:
        try:
            value = json.loads(match[0], strict=False)
        except ValueError:
            return match[0]
        return json.dumps(new).encode() if value == old else match[0]

    found = _STRING.sub(string, text)
    if len(old) < _SURE_CHARACTERS or old.isdigit():
        return found
    alone = rb"(?<![\w-])" + re.escape(old.encode()) + rb"(?![\w-])"
    return re.sub(alone, new.encode().replace(b"\\", rb"\\"), found)


def redrawn(text: str, old: str, new: str) -> str:
    """The text with `new` for `old` in the labels of the pictures that are embedded in it."""

    def picture(match: re.Match[str]) -> str:
        svg = base64.b64decode(match[0]).decode()
        changed = svg.replace(f">{escape(label(old))}<", f">{escape(label(new))}<")
        return base64.b64encode(changed.encode()).decode()

    return _PICTURE.sub(picture, text)
