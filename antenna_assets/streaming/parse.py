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
- `not_json` stands for a name repeated inside a nested object, for half a surrogate pair, and for what goes
  beyond Spark's limits: 998 levels of nesting, numbers of 1,000 characters, names of 50,000.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from antenna_assets.schema import MAX_APP_BYTES, MAX_BYTES, MAX_ID_BYTES

SESSION_CONF = {
    # Both are Spark's defaults, and a verdict depends on them: without the first a repeated field wins silently,
    # without the second half a surrogate pair becomes a question mark.
    "spark.sql.variant.allowDuplicateKeys": "false",
    "spark.sql.variant.validateUnicodeInJsonParsing": "true",
}

AHEAD = timedelta(minutes=5)
"""How far ahead of the clock an event may be."""

_TEXTS = {"app": MAX_APP_BYTES, "id": MAX_ID_BYTES, "antenna_id": MAX_ID_BYTES}
_FIELDS = ("bytes", "timestamp", *_TEXTS)

# The cast to binary is null for everything but text: the type check comes with the value. One struct is 20 %
# cheaper than five paths, and its array tells how many values the message holds.
_SHAPE = "array<struct<timestamp:variant,bytes:variant,app:binary,id:binary,antenna_id:binary>>"

# Unicode's White_Space.
_WHITE = "\t\n\x0b\x0c\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"

# \z and not $, which matches before a final newline as well.
_CLOCK = r"-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
_ISO = rf"^[0-9]{{4}}{_CLOCK}(Z|[+-][0-9]{{2}}:?[0-9]{{2}})\z"
_ISO_FAR = rf"^\+?[1-9][0-9]{{4,5}}{_CLOCK}(Z|[+-][0-9]{{2}}:?[0-9]{{2}})\z"
_ISO_WITHOUT_ZONE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]*)?)?)?\z"

_TWO_63 = 2.0**63


def parsed(messages: DataFrame, *, clock: datetime, oldest: datetime) -> DataFrame:
    """The messages with their verdicts, one row each.

    Args:
        messages: `value` (binary or null), `partition`, `offset`, `timestamp`, as Spark reads them from Kafka.
        clock: the wall clock of the verdicts, aware; an event more than five minutes ahead is in the future.
        oldest: the oldest event time to accept, aware.

    Returns:
        The five columns of the event (UTC, microseconds; undefined when rejected), `kafka_partition`, `kafka_offset`,
        `kafka_timestamp`, `value`, `reason` (null: accepted), `detail` (what was found, at most 200 characters)
        and `hour` (`yyyyMMddHH` in UTC; null when rejected).
    """
    newest, oldest_time = _instant(clock + AHEAD), _instant(oldest)
    text = F.col("text")
    read = (
        messages.select(
            "value",
            F.col("partition").alias("kafka_partition"),
            F.col("offset").alias("kafka_offset"),
            F.col("timestamp").alias("kafka_timestamp"),
            F.col("value").cast("string").alias("text"),
        )
        .withColumn("array", _array(text))
        .withColumn("single", _is_single(text, F.col("array")))
        .withColumn("event", F.when(F.col("single"), F.get("array", F.lit(0))))
        .drop("array")
        .select("*", *(F.col(f"event.{name}").alias(f"the_{name}") for name in _FIELDS))
        .withColumn("bytes_type", F.schema_of_variant("the_bytes"))
        .withColumn("time_type", F.schema_of_variant("the_timestamp"))
        .withColumn("bytes", F.try_variant_get("the_bytes", "$", "bigint"))
        .withColumn("time", _time(F.col("the_timestamp"), F.col("time_type")))
        .withColumn("fine", F.coalesce(_is_fine(newest, oldest_time), F.lit(False)))
        # Only a rejected message is read a second time, field by field, for its reason.
        .withColumn("again", F.when(~F.col("fine") & F.col("event").isNotNull(), F.try_parse_json(text)))
        .select("*", *(F.when(~F.col("fine"), _type_of(name)).alias(f"{name}_kind") for name in _FIELDS))
        .withColumn("found", F.when(~F.col("fine"), _found(newest)))
    )
    accepted = F.col("found").isNull()
    return read.select(
        F.col("time").alias("timestamp"),
        *(F.col(f"the_{name}").cast("string").alias(name) for name in _TEXTS),
        "bytes",
        "kafka_partition",
        "kafka_offset",
        "kafka_timestamp",
        "value",
        F.col("found.reason").alias("reason"),
        F.col("found.detail").alias("detail"),
        F.when(accepted, _hour(F.col("time"))).alias("hour"),
    )


def _instant(moment: datetime) -> Column:
    if moment.tzinfo is None:
        raise ValueError(f"expected an instant with a time zone, found {moment.isoformat()}")
    micros = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return F.timestamp_micros(F.lit(micros).cast("bigint"))


def _any(conditions: Iterable[Column]) -> Column:
    return reduce(lambda left, right: left | right, conditions)


def _array(text: Column) -> Column:
    # The parser stops behind the first value; within brackets it has to go on to the end.
    document = F.try_parse_json(F.concat(F.lit("["), text, F.lit("]")))
    return F.when(F.is_valid_utf8(text), F.try_variant_get(document, "$", _SHAPE))


def _is_single(text: Column, array: Column) -> Column:
    # `{...}] junk` closes our own bracket and hides what follows. Text that also parses within braces has no such
    # bracket: the one that ends the array is then an error. Few messages hold a bracket and pay for this.
    closes = F.contains(text, F.lit("]")) & F.try_parse_json(F.concat(F.lit('{"":'), text, F.lit("}"))).isNull()
    return F.coalesce((F.size(array) == 1) & ~closes, F.lit(False))


def _time(value: Column, kind: Column) -> Column:
    text = F.try_variant_get(value, "$", "string")
    return (
        # Exact for both, and cut after the microsecond.
        F.when((kind == "BIGINT") | kind.startswith("DECIMAL"), F.try_variant_get(value, "$", "timestamp"))
        .when((kind == "STRING") & text.rlike(_ISO), text.try_cast("timestamp"))
        .when(kind == "DOUBLE", _time_of_double(F.try_variant_get(value, "$", "double")))
    )


def _time_of_double(seconds: Column) -> Column:
    # Spark's own cast computes seconds * 1e6 and cuts: 1.700000000123456e9 would become .123455.
    whole = F.floor(seconds)
    micros = whole * 1_000_000 + F.floor((seconds - whole) * 1e6 + 0.5)
    return F.when(F.abs(seconds) < 9e12, F.timestamp_micros(micros.cast("bigint")))


def _is_blank(text: Column) -> Column:
    # An ASCII character in front, as almost always, saves the search through 25 others.
    first = F.ascii(text)
    return ~first.between(0x21, 0x7E) & (F.btrim(text, F.lit(_WHITE)) == "")


def _is_fine(newest: Column, oldest: Column) -> Column:
    """True for an accepted message; false or null for all others."""
    fine = (
        (F.col("bytes_type") == "BIGINT")
        & F.col("bytes").between(0, MAX_BYTES)
        & F.col("time").between(oldest, newest)
    )
    for name, longest in _TEXTS.items():
        field = F.col(f"the_{name}")
        text = field.cast("string")
        fine &= F.octet_length(field).between(1, longest) & ~_is_blank(text) & ~F.contains(text, F.lit("\0"))
    return fine


def _type_of(name: str) -> Column:
    """The variant's type of a field: null when it is missing, VOID for a JSON null."""
    return F.regexp_extract(F.schema_of_variant(F.try_variant_get("again", f"$.{name}", "variant")), r"^\w+", 0)


def _found(newest: Column) -> Column:
    """Why a message was rejected: a struct of reason and detail."""
    text, value = F.col("text"), F.col("value")
    head = F.substring(text, F.lit(1), F.least(F.lit(80), F.floor(F.char_length(text) / 2).cast("int")))
    starts = F.concat(F.format_number(F.octet_length(value), 0), F.lit(" bytes that start with "), head)
    # These two go through the text without regard for repeated names, and stop behind the first value.
    names, first_array = F.json_object_keys(text), F.json_array_length(text)
    complete = (F.json_array_length(F.concat(F.lit("["), text, F.lit("]"))) == 1) & (
        F.size(F.json_object_keys(F.concat(F.lit('{"":'), text, F.lit("}")))) == 1
    )
    repeated = F.size(names) > F.size(F.array_distinct(names))

    kinds = {name: F.col(f"{name}_kind") for name in _FIELDS}
    missing = F.concat_ws(", ", *(F.when(kind.isNull(), F.lit(name)) for name, kind in kinds.items()))

    bytes_double = F.try_variant_get("the_bytes", "$", "double")
    is_number = F.col("bytes_type").isin("BIGINT", "DOUBLE") | F.col("bytes_type").startswith("DECIMAL")
    is_huge = is_number & (F.abs(bytes_double) >= _TWO_63)
    is_integer = (F.col("bytes_type") == "BIGINT") | is_huge
    shown = {name: _shown(name) for name in _FIELDS}

    time_text = F.when(kinds["timestamp"] == "STRING", F.try_variant_get("the_timestamp", "$", "string"))
    time_far = F.coalesce(time_text.rlike(_ISO_FAR), F.lit(False))
    time_blank = F.coalesce(F.btrim(time_text, F.lit(_WHITE)) == "", F.lit(False))
    time_fits = kinds["timestamp"].isin("BIGINT", "DECIMAL", "DOUBLE") | time_far | time_blank | F.col("time").isNotNull()
    time_wrong = F.when(
        time_text.rlike(_ISO_WITHOUT_ZONE), F.concat(F.lit("timestamp has no time zone: "), shown["timestamp"])
    ).when(
        ~time_fits, F.concat(F.lit("timestamp is neither Unix seconds nor ISO-8601 with a zone: "), shown["timestamp"])
    )
    wrong = F.concat_ws(
        "; ",
        F.when(~is_integer, F.concat(F.lit("bytes is not an integer: "), shown["bytes"])),
        time_wrong,
        *(
            F.when(kinds[name] != "STRING", F.concat(F.lit(f"{name} is not text: "), shown[name]))
            for name in _TEXTS
        ),
    )

    texts = {name: F.col(f"the_{name}") for name in _TEXTS}
    blank = F.concat_ws(
        ", ",
        F.when(time_blank, F.lit("timestamp")),
        *(F.when(F.btrim(field.cast("string"), F.lit(_WHITE)) == "", F.lit(name)) for name, field in texts.items()),
    )
    too_long = F.concat_ws(
        "; ",
        *(
            F.when(
                F.octet_length(field) > _TEXTS[name],
                F.concat(F.lit(f"{name} has "), F.octet_length(field), F.lit(f" bytes, at most {_TEXTS[name]} fit")),
            )
            for name, field in texts.items()
        ),
    )
    unstorable = F.concat_ws(
        ", ", *(F.when(F.contains(field.cast("string"), F.lit("\0")), F.lit(name)) for name, field in texts.items())
    )
    # Seconds beyond the timestamp type have no time: their sign tells.
    in_future = F.coalesce(
        F.col("time") > newest, time_far | (F.try_variant_get("the_timestamp", "$", "double") > 0), F.lit(False)
    )
    event_time = F.concat(F.lit("timestamp is "), shown["timestamp"])

    rules = [
        ("blank", value.isNull(), F.lit("no value")),
        ("not_utf8", ~F.is_valid_utf8(text), F.concat(F.format_number(F.octet_length(value), 0), F.lit(" bytes"))),
        (
            "blank",
            F.btrim(text, F.lit(_WHITE)) == "",
            F.concat(F.format_number(F.octet_length(value), 0), F.lit(" bytes of white space")),
        ),
        ("duplicate_field", ~F.col("single") & complete & repeated, _repeated(names)),
        (
            "not_json",
            ~F.col("single") & complete,
            F.lit("a name repeated in a nested object, or half a surrogate pair, or beyond a limit of the parser"),
        ),
        ("trailing_data", ~F.col("single") & (names.isNotNull() | first_array.isNotNull()), starts),
        ("not_json", ~F.col("single"), starts),
        ("not_an_object", F.col("event").isNull(), starts),
        ("missing_field", missing != "", F.concat(F.lit("missing: "), missing)),
        ("wrong_type", wrong != "", wrong),
        (
            "negative_bytes",
            (F.col("bytes") < 0) | (is_huge & (bytes_double < 0)),
            F.concat(F.lit("bytes is "), shown["bytes"]),
        ),
        (
            "bytes_out_of_range",
            (F.col("bytes") > MAX_BYTES) | is_huge,
            F.concat(F.lit("bytes is "), shown["bytes"], F.lit(f", at most {MAX_BYTES} are accepted")),
        ),
        ("blank", blank != "", F.concat(F.lit("blank: "), blank)),
        ("too_long", too_long != "", too_long),
        ("unstorable_text", unstorable != "", F.concat(F.lit("NUL in "), unstorable)),
        ("timestamp_in_future", in_future, event_time),
    ]
    found = F.struct(F.lit("timestamp_too_old").alias("reason"), _clean(event_time).alias("detail"))
    for reason, condition, detail in reversed(rules):
        verdict = F.struct(F.lit(reason).alias("reason"), _clean(detail).alias("detail"))
        found = F.when(F.coalesce(condition, F.lit(False)), verdict).otherwise(found)
    return found


def _shown(name: str) -> Column:
    """The beginning of a field as JSON."""
    return F.substring(F.to_json(F.try_variant_get("again", f"$.{name}", "variant")), 1, 60)


def _repeated(names: Column) -> Column:
    twice = F.filter(F.array_distinct(names), lambda name: F.size(F.filter(names, lambda other: other == name)) > 1)
    return F.concat(F.lit("given more than once: "), F.array_join(F.slice(twice, 1, 5), ", "))


def _clean(detail: Column) -> Column:
    return F.substring(F.regexp_replace(detail, r"[\x00-\x1f\x7f]", "?"), 1, 200)


def _hour(time: Column) -> Column:
    # `date_format` follows the session's time zone; this does not.
    hours = F.floor(F.unix_seconds(time) / 3600).cast("int")
    day = F.date_from_unix_date(F.floor(hours / 24).cast("int"))
    number = F.year(day) * 1_000_000 + F.month(day) * 10_000 + F.dayofmonth(day) * 100 + F.pmod(hours, F.lit(24))
    return number.cast("string")
