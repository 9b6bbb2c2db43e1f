"""Why a message is rejected: Spark SQL that finds the reason, and a detail of at most 200 characters.

The names in it (`text`, `single`, `event`, `time`, `newest` ...) are the columns of the steps in `parse.py`.
"""

from antenna_assets.domain.schema import MAX_BYTES
from antenna_assets.streaming.spark.fields import FIELDS, ISO_FAR, ISO_WITHOUT_ZONE, TEXTS, is_blank


def _listed(separator: str, *cases: str) -> str:
    """The details of the cases (`<condition> THEN <detail>`) that apply; empty if none does."""
    return f"concat_ws('{separator}', {', '.join(f'CASE WHEN {case} END' for case in cases)})"


def _let(name: str, columns: dict[str, str], body: str) -> str:
    """`body` with `<name>.<column>` bound to the columns: a lambda, as SQL has no LET."""
    pairs = ", ".join(f"'{column}', {sql}" for column, sql in columns.items())
    return f"get(transform(array(named_struct({pairs})), {name} -> {body}), 0)"


def _found(reason: str, detail: str) -> str:
    return f"named_struct('reason', '{reason}', 'detail', {detail})"


def _shown(name: str) -> str:
    return f"left(to_json(field.{name}), 60)"


# At most half of a message is shown: it may hold what its sender does not want in a log.
_BEGINNING = (
    "concat(octet_length(value), ' bytes that begin with ', left(text, least(80, char_length(text) div 2)))"
)

# The first five in their order. Sorting puts equal names side by side, each with its place; comparing all
# names with each other would take minutes for a message of a megabyte.
_REPEATED_NAMES = _let(
    "by_name",
    {"all": "sort_array(transform(syntax.names, (name, place) -> struct(name, place)))"},
    """transform(slice(sort_array(transform(
        filter(by_name.all, (one, number) -> get(by_name.all, number + 1).name = one.name
            AND (number = 0 OR get(by_name.all, number - 1).name <> one.name)),
        one -> struct(one.place AS place, one.name AS name))), 1, 5), one -> one.name)""",
)

# `json_object_keys` accepts repeated names and stops behind the object, so it tells a repeated name and
# trailing data from bad syntax. It also accepts raw control characters and single quotes, which `from_json`
# can refuse. Each failing parser costs 5 us or more: most messages that are not JSON meet only this one more.
_NOT_ONE_VALUE = _let(
    "syntax",
    {"names": "json_object_keys(text)"},
    f"""CASE
    WHEN (syntax.names IS NOT NULL OR ltrim(' \\t\\r\\n', text) LIKE '[%')
        AND try_parse_json(text) IS NOT NULL
    THEN {_found("trailing_data", _BEGINNING)}
    WHEN syntax.names IS NULL THEN {_found("not_json", _BEGINNING)}
    WHEN from_json(text, 'x STRING, _corrupt_record STRING',
        map('allowSingleQuotes', 'false', 'allowNonNumericNumbers', 'false'))._corrupt_record IS NOT NULL
    THEN {_found("not_json", _BEGINNING)}
    WHEN json_array_length(concat('[', text, ']')) = 1
        AND size(json_object_keys(concat('{{"":', text, '}}'))) = 1
    THEN CASE WHEN size(syntax.names) > size(array_distinct(syntax.names)) THEN {
        _found(
            "duplicate_field",
            f"concat('given more than once: ', array_join({_REPEATED_NAMES}, ', '))",
        )
    } ELSE {_found("not_json", "'a name repeated in a nested object, or half a surrogate pair'")} END
    ELSE {_found("trailing_data", _BEGINNING)} END""",
)

_HAS_NO_ZONE = f"coalesce(read.time_text RLIKE {ISO_WITHOUT_ZONE}, false)"
_MISSING = _listed(", ", *(f"type.{name} IS NULL THEN '{name}'" for name in FIELDS))
_WRONG = _listed(
    "; ",
    "NOT (type.bytes = 'BIGINT' OR read.bytes_huge)"
    f" THEN concat('bytes is not an integer: ', {_shown('bytes')})",
    f"{_HAS_NO_ZONE} THEN concat('timestamp has no time zone: ', {_shown('timestamp')})",
    f"""NOT (type.timestamp IN ('BIGINT', 'DECIMAL', 'DOUBLE') OR time IS NOT NULL OR read.time_far
        OR read.time_blank OR {_HAS_NO_ZONE})
        THEN concat('timestamp is neither Unix seconds nor ISO-8601 with a zone: ', {_shown("timestamp")})""",
    *(f"type.{name} <> 'STRING' THEN concat('{name} is not text: ', {_shown(name)})" for name in TEXTS),
)
_BLANK = _listed(
    ", ", "read.time_blank THEN 'timestamp'", *(f"{is_blank(name)} THEN '{name}'" for name in TEXTS)
)
_TOO_LONG = _listed(
    "; ",
    *(
        f"octet_length({name}) > {longest}"
        f" THEN concat('{name} has ', octet_length({name}), ' bytes, at most {longest} fit')"
        for name, longest in TEXTS.items()
    ),
)
_NUL = _listed(", ", *(f"contains({name}, '\\u0000') THEN '{name}'" for name in TEXTS))

_FIELD_FAULT = _let(
    "field",
    {name: f"try_variant_get(message.again, '$.{name}', 'variant')" for name in FIELDS},
    _let(
        "type",
        # Null for a missing field, VOID for a JSON null.
        {name: f"substring_index(schema_of_variant(field.{name}), '(', 1)" for name in FIELDS},
        _let(
            "read",
            {
                "bytes_huge": """type.bytes IN ('BIGINT', 'DECIMAL', 'DOUBLE')
                    AND abs(try_variant_get(field.bytes, '$', 'double')) >= 9223372036854775808D""",
                "time_text": """CASE WHEN type.timestamp = 'STRING'
                    THEN try_variant_get(field.timestamp, '$', 'string') END""",
                "time_far": f"""coalesce(CASE WHEN type.timestamp = 'STRING'
                    THEN try_variant_get(field.timestamp, '$', 'string') RLIKE {ISO_FAR} END, false)""",
                "time_blank": f"""coalesce(CASE WHEN type.timestamp = 'STRING'
                    THEN {is_blank("try_variant_get(field.timestamp, '$', 'string')")} END, false)""",
            },
            f"""CASE WHEN {_MISSING} <> '' THEN {_found("missing_field", f"concat('missing: ', {_MISSING})")}
            WHEN {_WRONG} <> '' THEN {_found("wrong_type", _WRONG)}
            WHEN bytes < 0 OR read.bytes_huge AND try_variant_get(field.bytes, '$', 'double') < 0
                THEN {_found("negative_bytes", f"concat('bytes is ', {_shown('bytes')})")}
            WHEN bytes > {MAX_BYTES} OR read.bytes_huge
                THEN {_found("bytes_out_of_range", f"concat('bytes is ', {_shown('bytes')})")}
            WHEN {_BLANK} <> '' THEN {_found("blank", f"concat('blank: ', {_BLANK})")}
            WHEN {_TOO_LONG} <> '' THEN {_found("too_long", _TOO_LONG)}
            WHEN {_NUL} <> '' THEN {_found("unstorable_text", f"concat('NUL in ', {_NUL})")}
            -- Seconds beyond what a timestamp holds have no time: their sign tells.
            WHEN coalesce(time > newest, read.time_far OR try_variant_get(field.timestamp, '$', 'double') > 0)
                THEN {_found("timestamp_in_future", f"concat('timestamp is ', {_shown('timestamp')})")}
            ELSE {_found("timestamp_too_old", f"concat('timestamp is ', {_shown('timestamp')})")} END""",
        ),
    ),
)

_BAD_FIELD = _let("message", {"again": "try_parse_json(text)"}, _FIELD_FAULT)

_FULL_HOUR = "'the hour holds 2^62 bytes already and takes no more'"

REASON_AND_DETAIL = f"""CASE WHEN valid THEN {_found("bytes_out_of_range", _FULL_HOUR)}
    WHEN value IS NULL THEN {_found("blank", "'no value'")}
    WHEN NOT is_valid_utf8(text) THEN {_found("not_utf8", "concat(octet_length(value), ' bytes')")}
    WHEN {is_blank("text")} THEN {_found("blank", "concat(octet_length(value), ' bytes of white space')")}
    WHEN NOT single THEN {_NOT_ONE_VALUE}
    WHEN NOT is_object THEN {_found("not_an_object", _BEGINNING)}
    ELSE {_BAD_FIELD} END"""
"""Of a message that is not accepted: a struct of `reason` and `detail`."""
