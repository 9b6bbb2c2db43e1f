"""Five years of hours without events: in the ledger, in Dagster's instance and in the logs of the lake."""

from datetime import datetime, timedelta

import dagster as dg

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import HOUR, hour_key
from antenna_assets.domain.schema import ASSETS, LAKE_TABLES
from antenna_assets.engines.contract import WrittenFile
from antenna_assets.publishing.fence import USERS_VERSION, Replacement, history
from antenna_assets.publishing.lake import Lake
from antenna_assets.settings import Settings

TO_PUBLISH = 30
"""How many of the newest hours are closed and not published."""


def fill_ledger(url: str, newest: datetime, hours: int) -> None:
    """Insert closed hours with one generation each; all but the newest are published and certified."""
    oldest, last_published = newest - (hours - 1) * HOUR, newest - TO_PUBLISH * HOUR
    with connect(url) as connection:
        connection.execute(
            "INSERT INTO ledger.hour (hour, rows, bytes, closed_at, closed_by, generation)"
            " SELECT hour, 100000, 1000000, hour + interval '2 hours', 'watermark',"
            "  CASE WHEN hour <= %s THEN 1 ELSE 0 END"
            " FROM generate_series(%s::timestamptz, %s::timestamptz, interval '1 hour') AS hour",
            [last_published, oldest, newest],
        )
        connection.execute(
            "INSERT INTO ledger.hour_generation (hour, generation, up_to_batch, rows, bytes)"
            " SELECT hour, 1, 1, rows, bytes FROM ledger.hour WHERE generation = 1"
        )
        connection.execute(
            "INSERT INTO ledger.publication_head (asset, hour, generation)"
            " SELECT asset, hour, 1 FROM ledger.hour, unnest(%s::text[]) AS asset WHERE generation = 1",
            [list(ASSETS)],
        )
        # The text is as long as that of a certificate, and compresses as badly.
        connection.execute(
            "INSERT INTO ledger.certificate"
            " (number, hour, generation, users_version, issued_at, text, previous_sha256, sha256)"
            " SELECT row_number() OVER (ORDER BY hour), hour, 1, 1, now(), text,"
            "  md5(hour::text), md5(hour::text)"
            " FROM ledger.hour CROSS JOIN LATERAL"
            "  (SELECT string_agg(md5(hour::text || part), '')"
            "   FROM generate_series(1, 60) AS part) AS of_hour(text)"
            " WHERE generation = 1"
        )
        for head in (
            "UPDATE ledger.certificate_head SET number = (SELECT max(number) FROM ledger.certificate)",
            # As if alerts had been watched all the time.
            "UPDATE ledger.alert_head SET certificate = (SELECT number FROM ledger.certificate_head)",
        ):
            connection.execute(head)
        connection.execute("ANALYZE")


def fill_periods(url: str, newest: datetime, hours: int) -> None:
    """Insert publications of the days and months of these hours, as far as their hours are published."""
    oldest = (newest - (hours - 1) * HOUR).date() + timedelta(days=1)
    last = (newest - TO_PUBLISH * HOUR).date() - timedelta(days=1)
    with connect(url) as connection:
        # The certificates of days come first in their chain, then those of months.
        connection.execute(
            "CREATE TEMPORARY TABLE filled AS"
            " SELECT row_number() OVER (ORDER BY period, day) AS number, period, day FROM ("
            "  SELECT 'day' AS period, start::date AS day"
            "  FROM generate_series(%(oldest)s::date, %(last)s, '1 day') AS start"
            "  UNION ALL SELECT 'month', start::date FROM generate_series("
            "   date_trunc('month', %(oldest)s::timestamp + interval '1 month'),"
            "   date_trunc('month', %(last)s::timestamp) - interval '1 month', '1 month') AS start"
            " ) AS periods",
            {"oldest": oldest, "last": last},
        )
        connection.execute(
            "INSERT INTO ledger.period_generation"
            " (period, day, generation, first_hour, end_hour, certificates, up_to_certificate)"
            " SELECT period, day, 1,"
            # A month is made of days.
            "  CASE WHEN period = 'day' THEN day::timestamp AT TIME ZONE 'UTC' END,"
            "  CASE WHEN period = 'day' THEN (day + 1)::timestamp AT TIME ZONE 'UTC' END,"
            "  '{}', (SELECT max(number) FROM ledger.certificate) FROM filled"
        )
        connection.execute(
            "INSERT INTO ledger.period_certificate"
            " (number, period, day, generation, users_version, issued_at, text, previous_sha256, sha256)"
            " SELECT number, period, day, 1, 1, now(), md5(day::text), '', md5(number::text) FROM filled"
        )
        connection.execute(
            "INSERT INTO ledger.period_head (period, day, generation, users_version, asked_users_version)"
            " SELECT period, day, 1, 1, 1 FROM filled"
        )
        connection.execute("ANALYZE")


def fill_lake(settings: Settings, newest: datetime, hours: int) -> None:
    """Commit hours to the logs of both tables, 1,000 at a time, with a file each that does not exist."""
    lake = Lake(settings.lake_uri)
    for name in LAKE_TABLES:
        table = lake.table(name)
        table.create()
        for begin in range(0, hours, 1_000):
            some = [newest - number * HOUR for number in range(begin, min(begin + 1_000, hours))]
            replacements = [
                Replacement(
                    name,
                    hour,
                    1,
                    [WrittenFile(f"{lake.new_folder(name, hour, 1)}/part-0.parquet", 100_000, 1_000_000)],
                    {USERS_VERSION: 1} if name == "enriched_usage" else {},
                    attempt=1,
                )
                for hour in some
            ]
            loaded = table.newest()
            if loaded is None:
                raise RuntimeError(f"{name} is gone")
            files = {one.hour: one.files for one in replacements}
            versions = {key: value for one in replacements for key, value in one.versions({}).items()}
            table.replace(loaded, files, versions, history(replacements), skip_age_check=True)


def fill_instance(instance: dg.DagsterInstance, url: str, newest: datetime, hours: int) -> None:
    """Insert a materialization of each published hour by each asset, as copies of one recorded row."""
    last = newest - TO_PUBLISH * HOUR
    for asset in ASSETS:
        metadata = {
            "rows": 100_000,
            "bytes": 1_000_000,
            "generation": 1,
            "dagster/partition_row_count": 100_000,
        }
        instance.report_runless_asset_event(
            dg.AssetMaterialization(asset, partition=hour_key(last), metadata=metadata)
        )
    with connect(url) as connection:
        connection.execute(
            "INSERT INTO dagster.event_logs"
            " (run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition)"
            " SELECT run_id, replace(event, partition, key), dagster_event_type, timestamp, step_key,"
            "  asset_key, key"
            " FROM dagster.event_logs CROSS JOIN LATERAL"
            "  (SELECT to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD-HH24:MI') AS key"
            "   FROM generate_series(%s::timestamptz, %s::timestamptz, interval '1 hour') AS hour)"
            "  AS hours"
            " WHERE partition IS NOT NULL",
            [newest - (hours - 1) * HOUR, last - HOUR],
        )
        connection.execute("ANALYZE dagster.event_logs")
