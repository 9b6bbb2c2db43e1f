"""The schemas of events, lake tables and serving tables: name, type, unit and bounds of every column.

PostgreSQL's own definitions are in `sql/migrations/`; a test keeps them equal to these.
"""

from dataclasses import dataclass

import pyarrow as pa

from antenna_assets.domain.periods import Period

MAX_BYTES = 2**36
MAX_APP_BYTES = 256
MAX_ID_BYTES = 64

REASONS = (
    "not_json",
    "trailing_data",
    "not_an_object",
    "duplicate_field",
    "missing_field",
    "wrong_type",
    "negative_bytes",
    "bytes_out_of_range",
    "blank",
    "too_long",
    "not_utf8",
    "unstorable_text",
    "timestamp_in_future",
    "timestamp_too_old",
)

TIMESTAMP = pa.timestamp("us", tz="UTC")


def _column(name: str, type_: pa.DataType, description: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, type_, nullable=nullable, metadata={"description": description})


EVENT = pa.schema(
    [
        _column("timestamp", TIMESTAMP, "when the bytes were transferred, UTC"),
        _column("app", pa.string(), f"application, 1 to {MAX_APP_BYTES} bytes of UTF-8"),
        _column("id", pa.string(), f"user, 1 to {MAX_ID_BYTES} bytes of UTF-8"),
        _column("antenna_id", pa.string(), f"antenna, 1 to {MAX_ID_BYTES} bytes of UTF-8"),
        _column("bytes", pa.int64(), f"bytes transferred, 0 to {MAX_BYTES}"),
    ]
)

COORDINATES = pa.schema(
    [
        _column("kafka_partition", pa.int32(), "Kafka partition the message came from"),
        _column("kafka_offset", pa.int64(), "offset of the message in its partition"),
    ]
)

LANDED_SCHEMA = pa.schema([*EVENT, *COORDINATES])

REJECTED_SCHEMA = pa.schema(
    [
        _column(
            "value", pa.binary(), "the message as it was received; null if Kafka held none", nullable=True
        ),
        _column("reason", pa.string(), f"why it was rejected: one of {', '.join(REASONS)}"),
        _column("detail", pa.string(), "what was found, for a reader", nullable=True),
        *COORDINATES,
        _column("kafka_timestamp", TIMESTAMP, "timestamp of the Kafka record, UTC"),
    ]
)

USERS = pa.schema(
    [
        _column("id", pa.string(), "user"),
        _column("name", pa.string(), "display name"),
        _column("email", pa.string(), "e-mail address"),
        _column(
            "quota",
            pa.int64(),
            "bytes the user may transfer in an hour; null: unlimited, or that of the plan",
            nullable=True,
        ),
    ]
)

QUOTA_OF_THEN = pa.schema(
    [
        _column("id", pa.string(), "user"),
        _column(
            "quota",
            pa.int64(),
            "bytes the user might transfer in the hour; null: unlimited, or no quota",
            nullable=True,
        ),
    ]
)
"""Whose quota at an hour's end was not the one in the file of users."""

USER_METADATA = pa.schema(
    [
        *USERS,
        _column("plan", pa.string(), "the plan whose quotas the user has; null: none", nullable=True),
        _column(
            "zone",
            pa.string(),
            "where the user's days begin, an IANA name; null: the usual one",
            nullable=True,
        ),
    ]
)
"""The table of users. An engine is given `USERS`, with the quotas in force at an hour's end."""

RAW_PARQUET = LANDED_SCHEMA

ENRICHED_USAGE = pa.schema(
    [
        *LANDED_SCHEMA,
        _column("name", pa.string(), "the user's name; null for an unknown user", nullable=True),
        _column("email", pa.string(), "the user's e-mail; null for an unknown user", nullable=True),
        _column(
            "quota",
            pa.int64(),
            "the user's bytes per hour; null: unlimited, or an unknown user",
            nullable=True,
        ),
    ]
)

HOUR_PARTITION = ("year", "month", "day", "hour")
"""Partition columns of the lake's tables: integers, of the hour in UTC."""


@dataclass(frozen=True)
class ServingTable:
    """An hourly or live table of PostgreSQL. `columns` are those after `date`, the first one."""

    name: str
    columns: pa.Schema
    key: str
    sum_column: str


def _serving(name: str, key: str, sum_column: str, *extra: pa.Field) -> ServingTable:
    columns = [
        _column(key, pa.string(), f"the {'user' if key == 'id' else key.removesuffix('_id')}"),
        *extra,
        _column(sum_column, pa.int64(), "sum of bytes in the window"),
    ]
    return ServingTable(name, pa.schema(columns), key, sum_column)


_EMAIL = _column("email", pa.string(), "the user's e-mail; null for an unknown user", nullable=True)
_KNOWN_EMAIL = _column("email", pa.string(), "the user's e-mail")
_QUOTA = _column("quota", pa.int64(), "bytes the user may transfer in an hour")

LIVE_TABLES = {
    table.name: table
    for table in (
        _serving("bytes_agg_antenna", "antenna_id", "sum_antenna_bytes"),
        _serving("bytes_agg_user", "id", "sum_user_bytes"),
        _serving("bytes_agg_app", "app", "sum_app_bytes"),
    )
}

HOURLY_TABLES = {
    table.name: table
    for table in (
        _serving("bytes_agg_antenna_1h", "antenna_id", "sum_antenna_bytes"),
        _serving("bytes_agg_user_1h", "id", "sum_user_bytes", _EMAIL),
        _serving("bytes_agg_app_1h", "app", "sum_app_bytes"),
        _serving("users_over_quota_1h", "id", "sum_user_bytes", _KNOWN_EMAIL, _QUOTA),
    )
}

WINDOW = pa.schema(
    [
        _column("begins", TIMESTAMP, "first instant of the window, UTC"),
        _column("ends", TIMESTAMP, "the first instant after it, UTC"),
    ]
)
"""The window of a day, as input of its transformation."""

OWN_WINDOWS = pa.schema([_column("id", pa.string(), "user"), *WINDOW])
"""The windows of users whose day is not that of the billing zone."""


@dataclass(frozen=True)
class PeriodTable:
    """A table of PostgreSQL with a row for each user and period; `columns` are all of them, in their order.

    The first column is the period's first calendar day.
    """

    name: str
    period: Period
    columns: pa.Schema

    @property
    def day(self) -> str:
        """The name of the first column."""
        return self.columns.names[0]


_WIDE_SUM = pa.decimal128(38, 0)


def _of_period(name: str, period: Period, *extra: pa.Field) -> PeriodTable:
    day = "day" if period == "day" else "month"
    columns = [
        _column(
            day, pa.date32(), f"the {day}, by the user's calendar{'' if day == 'day' else ': its first day'}"
        ),
        _column("id", pa.string(), "the user"),
        _column("date", TIMESTAMP, f"first instant of the user's {day}, UTC"),
        _EMAIL,
        *extra,
        _column("sum_user_bytes", _WIDE_SUM, f"sum of bytes in the {day}"),
    ]
    return PeriodTable(name, period, pa.schema(columns))


def _quota_of(period: Period) -> pa.Field:
    return pa.field(
        "quota",
        pa.int64(),
        nullable=False,
        # Another one than that of the hours' quotas.
        metadata={"description": f"bytes the user may transfer in a {period}", "unit": f"bytes a {period}"},
    )


PERIOD_TABLES = {
    table.name: table
    for table in (
        _of_period("bytes_agg_user_1d", "day"),
        _of_period("users_over_quota_1d", "day", _quota_of("day")),
        _of_period("users_over_quota_1mo", "month", _quota_of("month")),
    )
}

LAKE_TABLES = {"raw_parquet": RAW_PARQUET, "enriched_usage": ENRICHED_USAGE}

ASSETS = (*LAKE_TABLES, *HOURLY_TABLES)
"""The six hourly assets in the order of the data."""

DATE = _column("date", TIMESTAMP, "first instant of the window, UTC")
"""The first column of every serving table."""

SUMS = tuple(dict.fromkeys(table.sum_column for table in (*LIVE_TABLES.values(), *HOURLY_TABLES.values())))
"""The columns that are sums of `bytes`."""

UNITS = {
    **dict.fromkeys(("timestamp", "kafka_timestamp", "date"), "UTC"),
    "bytes": "bytes",
    "quota": "bytes an hour",
    **dict.fromkeys(SUMS, "bytes"),
}
"""The unit of each column. Not in the schemas, as Delta tables would keep it with the fields."""

PERSONAL = ("name", "email")
"""Columns that identify a user; no log, preview or plot shows them."""
