"""What a message is: the verdict on each Kafka message, as one pass of native Spark expressions.

Nothing here reads a clock, a setting or a broker, and nothing is written; `land.py` does that.

A message is accepted when it is one JSON object (RFC 8259, UTF-8) with the five fields of design 2.1. The
first reason that applies, in the order of `schema.REASONS` but with `blank` (a message) and `not_utf8` ahead of
all, is its verdict. Choices that the design leaves open:

- `timestamp` as a number: a plain decimal is cut after the microsecond, never rounded. With an exponent, more
  than 38 digits or more than 38 decimals it is read as a double and taken to the nearest microsecond, half up.
- `timestamp` as text: `YYYY-MM-DDThh:mm:ss`, up to nine decimals (cut after six), then `Z`, `+hh:mm` or `+hhmm`
  up to 18:00. A space for the `T`, second 60, hour 24 or an impossible date is `wrong_type`; a year of five or six
  digits is `timestamp_in_future`.
- `bytes` 5.0 and 1e3 are `wrong_type`: not written as integers. A number of 2^63 and beyond is
  `bytes_out_of_range` or `negative_bytes`, however it is written. -0 is 0.
- A JSON null in a field is `wrong_type`; the message `null` is `not_an_object`. Blank means empty or all Unicode
  white space; a blank text for the timestamp is `blank`, for bytes it is `wrong_type`.
- `trailing_data` is a complete object or array with more behind it; a scalar with more behind it is `not_json`.
- `not_json` stands for a name repeated inside a nested object (or inside an array that has more behind it), for half
  a surrogate pair, and for what is beyond Spark's parser: more than 1,000 levels (exactly 1,000: `trailing_data`) or a
  number of more than 1,000 digits, wherever it stands.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import uuid4

from pyspark.sql import DataFrame

from antenna_assets.domain.hours import EPOCH, HOUR, MICROSECOND
from antenna_assets.domain.schema import MAX_APP_BYTES, MAX_BYTES, MAX_ID_BYTES
from antenna_assets.streaming.envelope import clamped_in_spark
from antenna_assets.streaming.spark.layout import Layout
from antenna_assets.streaming.spark.layout import steps as layout_steps

SESSION_CONF = {
    # Both are Spark's defaults, and a verdict depends on them: without the first a repeated field wins silently,
    # without the second half a surrogate pair becomes a question mark.
    "spark.sql.variant.allowDuplicateKeys": "false",
    "spark.sql.variant.validateUnicodeInJsonParsing": "true",
}
"""What the verdicts depend on in their session."""

AHEAD = timedelta(minutes=5)
"""How far ahead of the clock an event may be."""


_TEXTS = {"app": MAX_APP_BYTES, "id": MAX_ID_BYTES, "antenna_id": MAX_ID_BYTES}
_FIELDS = ("bytes", "timestamp", *_TEXTS)

# Unicode's White_Space, as escapes of a SQL text.
_WHITE = "\\t\\n\\u000b\\u000c\\r \\u0085\\u00a0\\u1680\\u2028\\u2029\\u202f\\u205f\\u3000" + "".join(
    f"\\u{code:04x}" for code in range(0x2000, 0x200B)
)

# \z and not $, which matches before a final newline as well.
_DAY_AND_CLOCK = r"-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?(Z|[+-][0-9]{2}:?[0-9]{2})\z"
_ISO = rf"r'^[0-9]{{4}}{_DAY_AND_CLOCK}'"
_ISO_FAR = rf"r'^[+]?[1-9][0-9]{{4,5}}{_DAY_AND_CLOCK}'"
_ISO_WITHOUT_ZONE = r"r'^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]*)?)?)?\z'"


def _is_blank(text: str) -> str:
    return f"btrim({text}, '{_WHITE}') = ''"


def _text_is_fine(name: str, longest: int) -> str:
    # An ASCII character in front, as almost always, saves the search through the white space.
    return f"""octet_length({name}) BETWEEN 1 AND {longest}
        AND (ascii({name}) BETWEEN 33 AND 126 OR NOT {_is_blank(name)})
        AND NOT contains({name}, '\\u0000')"""


def _listed(separator: str, *cases: str) -> str:
    """The details of those cases (`<condition> THEN <detail>`) that hold; empty if none does."""
    return f"concat_ws('{separator}', {', '.join(f'CASE WHEN {case} END' for case in cases)})"


def _let(name: str, columns: dict[str, str], body: str) -> str:
    """`body`, in which `<name>.<column>` stands for the columns: SQL's lambda, for want of a LET."""
    pairs = ", ".join(f"'{column}', {sql}" for column, sql in columns.items())
    return f"get(transform(array(named_struct({pairs})), {name} -> {body}), 0)"


def _found(reason: str, detail: str) -> str:
    return f"named_struct('reason', '{reason}', 'detail', {detail})"


def _shown(name: str) -> str:
    return f"left(to_json(field.{name}), 60)"


# At most half of a message is shown: it may hold what its sender would not want in a log.
_BEGINNING = (
    "concat(octet_length(value), ' bytes that begin with ', left(text, least(80, char_length(text) div 2)))"
)

# The first five in their order. By sorting, as each look through all names for each of them would take minutes for a
# message of a megabyte: equal names lie side by side then, and each knows its place.
_REPEATED_NAMES = _let(
    "by_name",
    {"all": "sort_array(transform(syntax.names, (name, place) -> struct(name, place)))"},
    """transform(slice(sort_array(transform(
        filter(by_name.all, (one, number) -> get(by_name.all, number + 1).name = one.name
            AND (number = 0 OR get(by_name.all, number - 1).name <> one.name)),
        one -> struct(one.place AS place, one.name AS name))), 1, 5), one -> one.name)""",
)

# `json_object_keys` goes through an object without regard for repeated names and stops behind it: it tells a repeated
# name and trailing data from bad syntax. It lets raw control characters and single quotes pass, which `from_json` can
# refuse. Each failing parser costs 5 us and more, so most of what is not JSON meets only this one more.
_NOT_ONE_VALUE = _let(
    "syntax",
    {"names": "json_object_keys(text)"},
    f"""CASE
    WHEN (syntax.names IS NOT NULL OR ltrim(' \\t\\r\\n', text) LIKE '[%') AND try_parse_json(text) IS NOT NULL
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

_HAS_NO_ZONE = f"coalesce(read.time_text RLIKE {_ISO_WITHOUT_ZONE}, false)"
_MISSING = _listed(", ", *(f"type.{name} IS NULL THEN '{name}'" for name in _FIELDS))
_WRONG = _listed(
    "; ",
    f"NOT (type.bytes = 'BIGINT' OR read.bytes_huge) THEN concat('bytes is not an integer: ', {_shown('bytes')})",
    f"{_HAS_NO_ZONE} THEN concat('timestamp has no time zone: ', {_shown('timestamp')})",
    f"""NOT (type.timestamp IN ('BIGINT', 'DECIMAL', 'DOUBLE') OR time IS NOT NULL OR read.time_far OR read.time_blank
        OR {_HAS_NO_ZONE})
        THEN concat('timestamp is neither Unix seconds nor ISO-8601 with a zone: ', {_shown("timestamp")})""",
    *(f"type.{name} <> 'STRING' THEN concat('{name} is not text: ', {_shown(name)})" for name in _TEXTS),
)
_BLANK = _listed(
    ", ", "read.time_blank THEN 'timestamp'", *(f"{_is_blank(name)} THEN '{name}'" for name in _TEXTS)
)
_TOO_LONG = _listed(
    "; ",
    *(
        f"octet_length({name}) > {longest} THEN concat('{name} has ', octet_length({name}), ' bytes, at most {longest} fit')"
        for name, longest in _TEXTS.items()
    ),
)
_NUL = _listed(", ", *(f"contains({name}, '\\u0000') THEN '{name}'" for name in _TEXTS))

_FIELD_FAULT = _let(
    "field",
    {name: f"try_variant_get(message.again, '$.{name}', 'variant')" for name in _FIELDS},
    _let(
        "type",
        # Null for a missing field, VOID for a JSON null.
        {name: f"substring_index(schema_of_variant(field.{name}), '(', 1)" for name in _FIELDS},
        _let(
            "read",
            {
                "bytes_huge": """type.bytes IN ('BIGINT', 'DECIMAL', 'DOUBLE')
                    AND abs(try_variant_get(field.bytes, '$', 'double')) >= 9223372036854775808D""",
                "time_text": "CASE WHEN type.timestamp = 'STRING' THEN try_variant_get(field.timestamp, '$', 'string') END",
                "time_far": f"""coalesce(CASE WHEN type.timestamp = 'STRING'
                    THEN try_variant_get(field.timestamp, '$', 'string') RLIKE {_ISO_FAR} END, false)""",
                "time_blank": f"""coalesce(CASE WHEN type.timestamp = 'STRING'
                    THEN {_is_blank("try_variant_get(field.timestamp, '$', 'string')")} END, false)""",
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

_FOUND = f"""CASE WHEN valid THEN {_found("bytes_out_of_range", "'the hour holds 2^62 bytes already and takes no more'")}
    WHEN value IS NULL THEN {_found("blank", "'no value'")}
    WHEN NOT is_valid_utf8(text) THEN {_found("not_utf8", "concat(octet_length(value), ' bytes')")}
    WHEN {_is_blank("text")} THEN {_found("blank", "concat(octet_length(value), ' bytes of white space')")}
    WHEN NOT single THEN {_NOT_ONE_VALUE}
    WHEN NOT is_object THEN {_found("not_an_object", _BEGINNING)}
    ELSE {_BAD_FIELD} END"""


# SQL text, because building the same with Column calls took 0.4 s of every micro-batch: 5,600 calls to the JVM.
# Each step is a projection of its own, so Spark evaluates it once; within one it repeats an expression at each use.
_TEXT = {"text": "CAST(value AS string)"}
_STEPS: list[dict[str, str]] = [
    {
        # The parser stops behind the first value; within brackets it has to go on to the end. A cast to binary is
        # null for everything but text: the type check comes with the value. One struct is cheaper than five paths.
        "array": """CASE WHEN NOT plain AND is_valid_utf8(text) THEN try_variant_get(
            try_parse_json(concat('[', text, ']')), '$',
            'array<struct<timestamp:variant,bytes:variant,app:binary,id:binary,antenna_id:binary>>') END"""
    },
    {
        # `{...}] junk` closes our own bracket and hides what follows it. What also parses within braces has no such
        # bracket: the one that ends the array is an error there. Few messages hold a bracket and pay for this.
        "single": """coalesce(size(array) = 1 AND (
            NOT contains(text, ']') OR try_parse_json(concat('{"":', text, '}')) IS NOT NULL), false)"""
    },
    {"event": "CASE WHEN single THEN get(array, 0) END"},
    {"is_object": "event IS NOT NULL", **{f"the_{name}": f"event.{name}" for name in _FIELDS}},
    {
        "bytes_type": "schema_of_variant(the_bytes)",
        "time_type": "schema_of_variant(the_timestamp)",
        "bytes": "CASE WHEN plain THEN cut_bytes ELSE try_variant_get(the_bytes, '$', 'bigint') END",
        **{name: f"CASE WHEN plain THEN cut_{name} ELSE CAST(the_{name} AS string) END" for name in _TEXTS},
    },
    {
        # Exact from an integer and from a decimal, and cut after the microsecond. From a double Spark's own cast
        # computes seconds * 1e6 and cuts: 1.700000000123456e9 would become .123455.
        "time": f"""CASE
            WHEN plain THEN CAST(cut_timestamp AS timestamp)
            WHEN time_type = 'BIGINT' OR time_type LIKE 'DECIMAL%' THEN try_variant_get(the_timestamp, '$', 'timestamp')
            WHEN time_type = 'STRING' THEN CASE
                WHEN try_variant_get(the_timestamp, '$', 'string') RLIKE {_ISO}
                THEN try_cast(try_variant_get(the_timestamp, '$', 'string') AS timestamp) END
            WHEN time_type = 'DOUBLE' AND abs(try_variant_get(the_timestamp, '$', 'double')) < 9e12D THEN timestamp_micros(
                floor(try_variant_get(the_timestamp, '$', 'double')) * 1000000L + floor(0.5D + 1e6D * (
                    try_variant_get(the_timestamp, '$', 'double') - floor(try_variant_get(the_timestamp, '$', 'double')))))
            END"""
    },
    {
        "valid": f"""coalesce((plain OR bytes_type = 'BIGINT') AND bytes BETWEEN 0 AND {MAX_BYTES} AND time BETWEEN oldest AND newest
            AND {" AND ".join(_text_is_fine(name, longest) for name, longest in _TEXTS.items())}, false)"""
    },
    {"fine": "valid"},
    {
        # `date_format` follows the session's time zone; these do not.
        "hours": "CASE WHEN fine THEN CAST(floor(unix_seconds(time) / 3600) AS int) END"
    },
    {"day": "date_from_unix_date(CAST(floor(hours / 24) AS int))"},
    {
        "hour": "CAST(year(day) * 1000000 + month(day) * 10000 + dayofmonth(day) * 100 + pmod(hours, 24) AS string)"
    },
]

# Apart from the steps: most messages need no reason, and with the search for one the generated code is three times as
# long. Within the last step it had 15,271 bytes of bytecode, and from 8,000 on the JVM never compiles a method.
_REASON = {"found": f"CASE WHEN NOT fine THEN {_FOUND} END"}

_EVENT = ("time AS timestamp", "app", "id", "antenna_id", "bytes")
_COORDINATES = ("kafka_partition", "kafka_offset", "kafka_timestamp")
_WHY = (
    "found.reason AS reason",
    r"left(regexp_replace(found.detail, r'[\x00-\x1f\x7f]', '?'), 200) AS detail",
)


def parsed(
    messages: DataFrame, *, clock: datetime, oldest: datetime, full: Collection[datetime] = ()
) -> DataFrame:
    """The messages with their verdicts, one row each.

    Args:
        messages: `value` (binary or null), `partition`, `offset`, `timestamp`, as Spark reads them from Kafka.
        clock: the wall clock of the verdicts, aware; an event more than five minutes ahead is in the future.
        oldest: the oldest event time to accept, aware.
        full: hours that take no more events, see `ledger.full_hours`.

    Returns:
        The five columns of the event (UTC, microseconds; undefined when rejected), `kafka_partition`, `kafka_offset`,
        `kafka_timestamp`, `value`, `reason` (null: accepted), `detail` (what was found, at most 200 characters, never
        the whole message) and `hour` (`yyyyMMddHH` in UTC; null when rejected).
    """
    columns = (*_EVENT, *_COORDINATES, "value", *_WHY, "hour")
    steps = [_TEXT, *layout_steps(None), *_STEPS, _REASON]
    return _selected(messages, columns, steps, clock=clock, oldest=oldest, full=full)


def validated(
    messages: DataFrame,
    *,
    clock: datetime,
    oldest: datetime,
    full: Collection[datetime] = (),
    layout: Layout | None = None,
) -> DataFrame:
    """As `parsed`, without the reasons: `hour` is null when rejected, and `value` is null when accepted.

    Args:
        layout: how most messages are spelled. It changes no verdict; those that are spelled so take half the time.
    """
    columns = (*_EVENT, *_COORDINATES, "CASE WHEN NOT fine THEN value END AS value", "hour")
    steps = [_TEXT, *layout_steps(layout), *_STEPS]
    return _selected(messages, columns, steps, clock=clock, oldest=oldest, full=full)


def explain_rejections(
    rejected: DataFrame, *, clock: datetime, oldest: datetime, full: Collection[datetime] = ()
) -> DataFrame:
    """The rows that `validated` rejected, with `reason` and `detail`, by the same clock and bounds."""
    messages = rejected.selectExpr(
        "value", "kafka_partition AS partition", "kafka_offset AS offset", "kafka_timestamp AS timestamp"
    )
    return parsed(messages, clock=clock, oldest=oldest, full=full)


def _selected(
    messages: DataFrame,
    columns: Sequence[str],
    steps: Sequence[Mapping[str, str]],
    *,
    clock: datetime,
    oldest: datetime,
    full: Collection[datetime],
) -> DataFrame:
    # Spark writes a number into the code that it generates, but an array beside it: as plain numbers the bounds, new in
    # each micro-batch, made it compile everything anew, and Java begin slowly again. The index, which is 0 and 1 for
    # any partition, keeps Spark from taking the numbers out of the array.
    bounds = f"array({_micros(oldest)}L, {_micros(clock + AHEAD)}L)"
    view = f"messages_{uuid4().hex}"
    query = f"""SELECT value, partition AS kafka_partition, offset AS kafka_offset,
        {clamped_in_spark("timestamp")} AS kafka_timestamp,
        timestamp_micros(get({bounds}, pmod(partition, 1))) AS oldest,
        timestamp_micros(get({bounds}, pmod(partition, 1) + 1)) AS newest FROM {view}"""  # noqa: S608
    for step in steps:
        if full and "fine" in step:
            step = {"fine": f"valid AND floor(unix_seconds(time) / 3600) NOT IN ({_hours(full)})"}
        added = ", ".join(f"{sql} AS {name}" for name, sql in step.items())
        query = f"SELECT *, {added} FROM ({query})"  # noqa: S608
    # One text for all steps: a call of `selectExpr` for each took 0.3 s of every micro-batch while another is committed.
    # Dropping the view would make Spark forget that the messages are persisted, if they are themselves, not a part of them.
    session = messages.sparkSession
    messages.createTempView(view)
    try:
        return session.sql(f"SELECT {', '.join(columns)} FROM ({query})")  # noqa: S608
    finally:
        session.catalog.dropTempView(view)


def _hours(full: Collection[datetime]) -> str:
    return ", ".join(str((hour - EPOCH) // HOUR) for hour in sorted(full))


def _micros(moment: datetime) -> int:
    if moment.tzinfo is None:
        raise ValueError(f"expected an instant with a time zone, found {moment.isoformat()}")
    return (moment - EPOCH) // MICROSECOND
