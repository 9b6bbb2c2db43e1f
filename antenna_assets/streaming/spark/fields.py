"""The fields of an event, as fragments of Spark SQL that `parse.py` and `reasons.py` share."""

from antenna_assets.domain.schema import MAX_APP_BYTES, MAX_ID_BYTES

TEXTS = {"app": MAX_APP_BYTES, "id": MAX_ID_BYTES, "antenna_id": MAX_ID_BYTES}
FIELDS = ("bytes", "timestamp", *TEXTS)

# Unicode's White_Space, as escapes of a SQL text.
_WHITE = "\\t\\n\\u000b\\u000c\\r \\u0085\\u00a0\\u1680\\u2028\\u2029\\u202f\\u205f\\u3000" + "".join(
    f"\\u{code:04x}" for code in range(0x2000, 0x200B)
)

# \z and not $, which matches before a final newline as well.
_DAY_AND_CLOCK = r"-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?(Z|[+-][0-9]{2}:?[0-9]{2})\z"
ISO = rf"r'^[0-9]{{4}}{_DAY_AND_CLOCK}'"
ISO_FAR = rf"r'^[+]?[1-9][0-9]{{4,5}}{_DAY_AND_CLOCK}'"
ISO_WITHOUT_ZONE = r"r'^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]*)?)?)?\z'"


def is_blank(text: str) -> str:
    return f"btrim({text}, '{_WHITE}') = ''"
