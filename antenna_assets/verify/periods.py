"""Verifies the published days and months: what the newest certificate of each claims.

A day is computed anew from the very files that the certificates of its hours name, a month from its days.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from antenna_assets.domain.periods import Period, next_period
from antenna_assets.domain.schema import ENRICHED_USAGE, PERIOD_TABLES, PeriodTable
from antenna_assets.ledger.chain import Content
from antenna_assets.ledger.period_generations import PeriodGeneration, read_period_generation
from antenna_assets.ledger.period_publications import certified_sources, newest_period_certificate
from antenna_assets.publishing.csv_rows import CSV_SHA256
from antenna_assets.publishing.days import ORDERED, certified_files, day_lines
from antenna_assets.publishing.lake import Lake
from antenna_assets.publishing.over_quota import EXPECTED, stored_period_sha256
from antenna_assets.publishing.users import users_version
from antenna_assets.publishing.windows import windows_of
from antenna_assets.verify.difference import ABSENT, Difference, compare
from antenna_assets.verify.parquet import Parquet
from antenna_assets.verify.period_events import load_events, load_windows

DAYS, OVER_DAY = PERIOD_TABLES["bytes_agg_user_1d"], PERIOD_TABLES["users_over_quota_1d"]
OVER_MONTH = PERIOD_TABLES["users_over_quota_1mo"]


@dataclass(frozen=True)
class _State:
    """A published period, as `ledger.period_state` has it."""

    period: Period
    day: date
    generation: int
    dirty: bool
    settled: bool

    @property
    def name(self) -> str:
        return f"{self.period} {self.day}"


@dataclass
class PeriodsVerified:
    """The result: how many periods were compared, what differs, and which are to be published again."""

    periods: int = 0
    differences: list[Difference] = field(default_factory=list)
    pending: dict[str, str] = field(default_factory=dict)


def published_periods(
    connection: psycopg.Connection, first: datetime | None, end: datetime | None
) -> list[tuple[Period, date]]:
    """The published days that have hours from `first` on and before `end`; without bounds the months, too."""
    return connection.execute(
        "SELECT period, day FROM ledger.period_state"
        " WHERE (%(first)s::timestamptz IS NULL OR end_hour > %(first)s)"
        " AND (%(end)s::timestamptz IS NULL OR first_hour < %(end)s) ORDER BY day, period",
        {"first": first, "end": end},
    ).fetchall()


def verify_period(
    connection: psycopg.Connection,
    lake: Lake,
    parquet: Parquet,
    period: Period,
    day: date,
    untrusted: set[int],
    verified: PeriodsVerified,
) -> None:
    """Compare a period with its newest certificate, in the caller's snapshot.

    Args:
        untrusted: numbers of certificates that differ in the chain.
        verified: takes the result.
    """
    with connection.cursor(row_factory=class_row(_State)) as cursor:
        state = cursor.execute(
            "SELECT period, day, generation, dirty, settled FROM ledger.period_state"
            " WHERE period = %s AND day = %s",
            [period, day],
        ).fetchone()
    certificate = newest_period_certificate(connection, period, day)
    if state is None:
        return
    if certificate is None or certificate.generation != state.generation:
        found = ABSENT if certificate is None else f"one of generation {certificate.generation}"
        expected = f"one of generation {state.generation}"
        verified.differences.append(Difference(state.name, "certificate", expected, found))
        return
    if certificate.number in untrusted:
        return  # The differences of the chain name it.
    if not state.settled:
        # Its rows may be those of a user who was forgotten since.
        verified.pending[state.name] = (
            "an hour or a day of it was published again" if state.dirty else "its quotas were changed"
        )
        return
    if period == "month" and _awaits_a_day(connection, day):
        verified.pending[state.name] = "a day of it is to be published again"
        return
    verified.periods += 1
    sealed = read_period_generation(connection, period, day, state.generation)
    verified.differences += _differences(connection, lake, parquet, sealed, certificate.content)


def _awaits_a_day(connection: psycopg.Connection, month: date) -> bool:
    """Whether a day of a month is to be published again, and the month after it: a user who was forgotten has
    another id in its rows by now."""
    return connection.execute(
        "SELECT EXISTS (SELECT FROM ledger.period_state"
        " WHERE period = 'day' AND day >= %s AND day < %s AND NOT settled)",
        [month, next_period("month", month)],
    ).fetchall()[0][0]


def _differences(
    connection: psycopg.Connection, lake: Lake, parquet: Parquet, sealed: PeriodGeneration, content: Content
) -> Iterator[Difference]:
    name = f"{sealed.period} {sealed.day}"
    yield from compare(
        name,
        "certificates that it was computed from",
        content["certificates"],
        certified_sources(connection, sealed),
    )
    published: dict[str, Any] = content["published"]
    tables = [DAYS, OVER_DAY] if sealed.period == "day" else [OVER_MONTH]
    for table in tables:
        yield from compare(name, table.name, published[table.name], _stored(connection, table, sealed.day))
    if sealed.period == "day":
        windows = windows_of(connection, sealed.day)
        yield from compare(name, "windows", {key: content[key] for key in windows.content}, windows.content)
        yield from _day_differences(connection, lake, parquet, sealed, published[DAYS.name][CSV_SHA256])
    yield from _over_differences(connection, tables[-1], sealed.day, content["users_version"])


def _stored(connection: psycopg.Connection, table: PeriodTable, day: date) -> dict[str, int | str]:
    query = sql.SQL("SELECT count(*), coalesce(sum(sum_user_bytes), 0) FROM {} WHERE {} = %s").format(
        sql.Identifier(table.name), sql.Identifier(table.day)
    )
    ((rows, bytes_),) = connection.execute(query, [day]).fetchall()
    return {"rows": rows, "bytes": int(bytes_), CSV_SHA256: stored_period_sha256(connection, table, day)}


def _day_differences(
    connection: psycopg.Connection, lake: Lake, parquet: Parquet, sealed: PeriodGeneration, certified: str
) -> Iterator[Difference]:
    """Compare the certified rows with those that follow from the files of the hours."""
    name = f"day {sealed.day}"
    files = certified_files(connection, lake, "enriched_usage", sealed.certificates)
    try:
        load_windows(connection, parquet, sealed.day)
        load_events(parquet, "enriched_usage", ENRICHED_USAGE, files)
        digest = hashlib.sha256()
        for batch in parquet.connection.sql(ORDERED).to_arrow_reader():
            digest.update(day_lines(sealed.day, batch))
    except parquet.errors as error:
        yield Difference(name, "files of its hours", "files that can be read", str(error))
        return
    yield from compare(
        name, f"{DAYS.name}, SHA-256 of the rows computed from the lake", digest.hexdigest(), certified
    )


def _over_differences(
    connection: psycopg.Connection, table: PeriodTable, day: date, published_with: int
) -> Iterator[Difference]:
    """Compare the users over quota with those by the quotas of then, if these were not changed since."""
    if users_version(connection) != published_with:
        return
    names = {
        "table": sql.Identifier(table.name),
        "day": sql.Identifier(table.day),
        "expected": sql.SQL(EXPECTED[table.period]),
    }
    query = sql.SQL(
        "WITH expected AS ({expected}), stored AS (SELECT * FROM {table} WHERE {day} = %(day)s)"
        " SELECT (SELECT count(*) FROM (SELECT * FROM expected EXCEPT SELECT * FROM stored) AS missing),"
        " (SELECT count(*) FROM (SELECT * FROM stored EXCEPT SELECT * FROM expected) AS wrong)"
    ).format(**names)
    values = {"day": day, "next": next_period(table.period, day)}
    ((missing, wrong),) = connection.execute(query, values).fetchall()
    for count, what in ((missing, "rows that are missing"), (wrong, "rows that should not be there")):
        if count:
            yield Difference(f"{table.period} {day}", f"{table.name}, {what}", "0", f"{count:,}")
