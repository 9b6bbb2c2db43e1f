"""The fields of an event, as fragments of Spark SQL that `parse.py` and `reasons.py` share."""

from antenna_assets.streaming.verdicts.fields import FIELDS, TEXTS, WHITE

__all__ = ["FIELDS", "ISO", "ISO_FAR", "ISO_WITHOUT_ZONE", "TEXTS", "is_blank"]

# As escapes of a SQL text.
_WHITE = "".join(f"\\u{ord(character):04x}" for character in WHITE)

# \z and not $, which matches before a final newline as well.
_DAY_AND_CLOCK = r"-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?(Z|[+-][0-9]{2}:?[0-9]{2})\z"
ISO = rf"r'^[0-9]{{4}}{_DAY_AND_CLOCK}'"
ISO_FAR = rf"r'^[+]?[1-9][0-9]{{4,5}}{_DAY_AND_CLOCK}'"
ISO_WITHOUT_ZONE = r"r'^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]*)?)?)?\z'"


def is_blank(text: str) -> str:
    return f"btrim({text}, '{_WHITE}') = ''"
