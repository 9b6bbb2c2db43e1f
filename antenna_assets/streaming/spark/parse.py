"""Parsing and validating Kafka messages in one pass of native Spark expressions.

Nothing here reads a clock, a setting or a broker, or writes anything. Why a message is rejected is found in
`reasons.py`.

The verdicts and values are those of `streaming/verdicts/rules.py`, where the rules are.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from uuid import uuid4

from pyspark.sql import DataFrame

from antenna_assets.domain.hours import EPOCH, HOUR, MICROSECOND
from antenna_assets.domain.schema import MAX_BYTES
from antenna_assets.streaming.envelope import clamped_in_spark
from antenna_assets.streaming.spark.fields import FIELDS, ISO, TEXTS, is_blank
from antenna_assets.streaming.spark.layout import Layout
from antenna_assets.streaming.spark.layout import steps as layout_steps
from antenna_assets.streaming.spark.reasons import REASON_AND_DETAIL
from antenna_assets.streaming.verdicts.bounds import AHEAD

SESSION_CONF = {
    # Both are Spark's defaults, and verdicts depend on them: without the first the last of repeated fields
    # wins silently, without the second half a surrogate pair becomes a question mark.
    "spark.sql.variant.allowDuplicateKeys": "false",
    "spark.sql.variant.validateUnicodeInJsonParsing": "true",
}
"""Configuration of the session that the verdicts depend on."""


def _text_is_fine(name: str, longest: int) -> str:
    # An ASCII character in front, as almost always, saves the search for white space.
    return f"""octet_length({name}) BETWEEN 1 AND {longest}
        AND (ascii({name}) BETWEEN 33 AND 126 OR NOT {is_blank(name)})
        AND NOT contains({name}, '\\u0000')"""


# SQL text, because building the same with Column calls took 0.4 s of every micro-batch: 5,600 calls to the
# JVM. Each step is a separate projection, so that Spark evaluates it once; within one it repeats an
# expression at each use.
_TEXT = {"text": "CAST(value AS string)"}
_STEPS: list[dict[str, str]] = [
    {
        # The parser stops behind the first value; within brackets it has to read to the end. A cast to binary
        # is null for everything but text, which makes it the type check, too. One struct is cheaper than five
        # paths.
        "array": """CASE WHEN NOT plain AND is_valid_utf8(text) THEN try_variant_get(
            try_parse_json(concat('[', text, ']')), '$',
            'array<struct<timestamp:variant,bytes:variant,app:binary,id:binary,antenna_id:binary>>') END"""
    },
    {
        # `{...}] junk` closes our own bracket and hides the rest. A message that also parses within braces
        # has no such bracket: it would be an error there. Few messages hold a bracket and pay for this.
        "single": """coalesce(size(array) = 1 AND (
            NOT contains(text, ']') OR try_parse_json(concat('{"":', text, '}')) IS NOT NULL), false)"""
    },
    {"event": "CASE WHEN single THEN get(array, 0) END"},
    {"is_object": "event IS NOT NULL", **{f"the_{name}": f"event.{name}" for name in FIELDS}},
    {
        "bytes_type": "schema_of_variant(the_bytes)",
        "time_type": "schema_of_variant(the_timestamp)",
        "bytes": "CASE WHEN plain THEN cut_bytes ELSE try_variant_get(the_bytes, '$', 'bigint') END",
        **{name: f"CASE WHEN plain THEN cut_{name} ELSE CAST(the_{name} AS string) END" for name in TEXTS},
    },
    {
        # Exact from an integer and from a decimal, and cut after the microsecond. From a double Spark's own
        # cast computes seconds * 1e6 and cuts it: 1.700000000123456e9 would become .123455.
        "time": f"""CASE
            WHEN plain THEN CAST(cut_timestamp AS timestamp)
            WHEN time_type = 'BIGINT' OR time_type LIKE 'DECIMAL%'
            THEN try_variant_get(the_timestamp, '$', 'timestamp')
            WHEN time_type = 'STRING' THEN CASE
                WHEN try_variant_get(the_timestamp, '$', 'string') RLIKE {ISO}
                THEN try_cast(try_variant_get(the_timestamp, '$', 'string') AS timestamp) END
            WHEN time_type = 'DOUBLE' AND abs(try_variant_get(the_timestamp, '$', 'double')) < 9e12D
            THEN timestamp_micros(
                floor(try_variant_get(the_timestamp, '$', 'double')) * 1000000L + floor(0.5D + 1e6D * (
                    try_variant_get(the_timestamp, '$', 'double')
                    - floor(try_variant_get(the_timestamp, '$', 'double')))))
            END"""
    },
    {
        "valid": f"""coalesce((plain OR bytes_type = 'BIGINT') AND bytes BETWEEN 0 AND {MAX_BYTES}
            AND time BETWEEN oldest AND newest
            AND {" AND ".join(_text_is_fine(name, longest) for name, longest in TEXTS.items())}, false)"""
    },
    {"fine": "valid"},
    {
        # Independent of the session's time zone, unlike `date_format`.
        "hours": "CASE WHEN fine THEN CAST(floor(unix_seconds(time) / 3600) AS int) END"
    },
    {"day": "date_from_unix_date(CAST(floor(hours / 24) AS int))"},
    {
        "hour": """CAST(year(day) * 1000000 + month(day) * 10000 + dayofmonth(day) * 100
            + pmod(hours, 24) AS string)"""
    },
]

# Not one of the steps: most messages need no reason, and with the search for one the generated code is three
# times as long. Within the last step it had 15,271 bytes of bytecode; the JVM compiles no method beyond
# 8,000.
_REASON = {"found": f"CASE WHEN NOT fine THEN {REASON_AND_DETAIL} END"}

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
        messages: `value` (binary or null), `partition`, `offset`, `timestamp`, as Spark reads them from
            Kafka.
        clock: PostgreSQL's clock, aware; an event more than five minutes ahead of it is in the future.
        oldest: the oldest event time to accept, aware.
        full: hours that take no more events, see `ledger.full_hours`.

    Returns:
        The five columns of the event (UTC, microseconds; undefined when rejected), `kafka_partition`,
        `kafka_offset`, `kafka_timestamp`, `value`, `reason` (null: accepted), `detail` (what was found, at
        most 200 characters, never the whole message) and `hour` (`yyyyMMddHH` in UTC; null when rejected).
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
    """As `parsed`, without reasons: `hour` is null when rejected, and `value` is null when accepted.

    Args:
        layout: that of most messages. It changes no verdict; messages of this layout take half the time.
    """
    columns = (*_EVENT, *_COORDINATES, "CASE WHEN NOT fine THEN value END AS value", "hour")
    steps = [_TEXT, *layout_steps(layout), *_STEPS]
    return _selected(messages, columns, steps, clock=clock, oldest=oldest, full=full)


def explain_rejections(
    rejected: DataFrame, *, clock: datetime, oldest: datetime, full: Collection[datetime] = ()
) -> DataFrame:
    """The rows that `validated` rejected, with `reason` and `detail`; clock and bounds must be the same."""
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
    # Spark writes a number into the code that it generates, but an array beside it: as plain numbers the
    # bounds, new in each micro-batch, made it compile everything again, and Java start slowly again. The
    # index, which is 0 and 1 for any partition, keeps Spark from folding the array.
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
    # One text for all steps: a `selectExpr` for each took 0.3 s of every micro-batch while another is
    # committed. Dropping the view would make Spark forget that the messages are persisted, if they themselves
    # are, not a part of them.
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
