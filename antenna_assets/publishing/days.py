"""Publishing a day: the users' bytes from `enriched_usage`, and who was over the quota of the day.

Both tables are replaced in one transaction, which certifies the day.
"""

import posixpath
from collections.abc import Iterable, Sequence
from datetime import date

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from antenna_assets.domain.schema import ENRICHED_USAGE, PERIOD_TABLES
from antenna_assets.engines.contract import Dataset
from antenna_assets.engines.transforms import transform
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.billing_zone import require_billing_zone
from antenna_assets.ledger.certificate import UNKNOWN_USERS
from antenna_assets.ledger.period_generations import PeriodGeneration, seal_day
from antenna_assets.ledger.period_publications import move_period_head, record_period
from antenna_assets.ledger.publications import require_nobody_forgotten
from antenna_assets.publishing.copying import Copied, copy_rows
from antenna_assets.publishing.csv_rows import csv_lines
from antenna_assets.publishing.lake import Lake
from antenna_assets.publishing.outcomes import PublishingRun
from antenna_assets.publishing.over_quota import PublishedPeriod, replace_over_quota
from antenna_assets.publishing.windows import Windows, hold_zones, write_windows

USERS = PERIOD_TABLES["bytes_agg_user_1d"]
OVER = PERIOD_TABLES["users_over_quota_1d"]

COMPUTED = pa.schema([field for field in USERS.columns if field.name != USERS.day])
"""The columns of the transformation's result."""

ORDERED = f"SELECT * FROM (\n{transform(USERS.name)}\n) AS rows ORDER BY id"  # noqa: S608
"""The rows of a day in the order of the ids' bytes, in which they are digested."""


def publish_day(run: PublishingRun, day: date, zone: str) -> PublishedPeriod:
    """Publish a day from the newest certificates of its hours, from the very files that they name.

    Args:
        zone: ANTENNA_BILLING_ZONE of this process.

    Raises:
        BillingZoneRefused: it is not the ledger's.
        PeriodNotReady: an hour of the day is not over or not published.
        ZonesChanged, ForgottenMeanwhile: a zone was changed, or a user forgotten, since the run began.
        EngineError: the rows cannot be computed.
        Superseded: a newer generation of the day is published.
            After each of these nothing was changed.
    """
    connection = run.connection
    require_billing_zone(connection, zone)
    sealed = seal_day(connection, day)
    connection.execute("SELECT ledger.make_user_months(%s)", [[day]])
    with run.tables.scratch() as scratch:
        windows, inputs = write_windows(connection, day, scratch)
        files = certified_files(connection, run.tables, "enriched_usage", sealed.certificates)
        usage = Dataset(files, ENRICHED_USAGE)
        inputs["enriched_usage"] = usage
        with run.engine.stream(ORDERED, inputs, COMPUTED, f"{scratch}/rows") as rows:
            commit_point("period.computed")
            with connection.transaction():
                hold_zones(connection, windows)
                published = _replace(run, sealed, windows, rows)
                require_nobody_forgotten(connection)
    commit_point("period.committed")
    return published


def certified_files(
    connection: psycopg.Connection, lake: Lake, table: str, certificates: Sequence[int]
) -> list[str]:
    """The files of a lake table that some certificates of hours name."""
    rows = connection.execute(
        "SELECT file ->> 'path' FROM ledger.certificate,"
        " jsonb_array_elements(text::jsonb #> ARRAY['content', 'published', %s, 'files']) AS file"
        " WHERE number = ANY(%s) ORDER BY hour, 1",
        [table, list(certificates)],
    )
    return [posixpath.join(lake.location(table), path) for (path,) in rows]


def day_lines(day: date, rows: pa.RecordBatch) -> pa.Buffer:
    """Rows of a day as PostgreSQL writes them as CSV, with the day as first column.

    Args:
        rows: with the columns `COMPUTED`.
    """
    seconds = pc.cast(rows["date"], pa.timestamp("s", tz="UTC"))
    columns = {
        USERS.day: pa.repeat(pa.scalar(day.isoformat()), rows.num_rows),
        "id": rows["id"],
        # As text: formatted, a time is as long as its unit.
        "date": pc.strftime(seconds, format="%Y-%m-%d %H:%M:%S+00"),
        "email": rows["email"],
        "sum_user_bytes": pc.cast(rows["sum_user_bytes"], pa.string()),
    }
    return csv_lines(pa.table(columns))


def _replace(
    run: PublishingRun, sealed: PeriodGeneration, windows: Windows, rows: Iterable[pa.RecordBatch]
) -> PublishedPeriod:
    connection = run.connection
    # The fence comes first, and locks the day until the transaction ends.
    move_period_head(connection, sealed)
    commit_point("period.fenced")
    connection.execute(
        sql.SQL("DELETE FROM {} WHERE day = %s").format(sql.Identifier(USERS.name)), [sealed.day]
    )
    copied = copy_rows(
        connection,
        USERS.name,
        USERS.columns.names,
        rows,
        csv_of=lambda batch: day_lines(sealed.day, batch),
        sum_column="sum_user_bytes",
    )
    commit_point("period.copied")
    over = replace_over_quota(connection, OVER, sealed.day)
    tables = {USERS.name: _certified(copied), OVER.name: over.content}
    content = {
        **windows.content,
        "unknown_users": copied.content[UNKNOWN_USERS],
        "published": tables,
    }
    certificate = record_period(connection, sealed, over.users_version, run.run_id, content)
    return PublishedPeriod(sealed, over.users_version, content, certificate)


def _certified(copied: Copied) -> dict[str, object]:
    digests = {name: value for name, value in copied.content.items() if name != UNKNOWN_USERS}
    return {"rows": copied.rows, "bytes": copied.bytes, **digests}
