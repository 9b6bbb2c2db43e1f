"""The sensor's query and whole ticks with five years of hours in the ledger, the newest of them still to publish."""

from datetime import datetime, timedelta

from antenna_assets.database import connect
from antenna_assets.hours import HOUR
from antenna_assets.schema import ASSETS
from antenna_assets.settings import PREFIX
from benchmarks.context import Context
from benchmarks.measure import in_turns, run
from benchmarks.outcome import Claim, Measured, Outcome, Table
from benchmarks.world import fresh, last_full_hour

TITLE = "The sensor"
HOURS, TO_PUBLISH = 43_800, 30
QUERIES, TICKS = 200, 10


def measure(context: Context) -> Outcome:
    """All hours are published but the newest ones."""
    hours = 240 if context.short else HOURS
    newest = last_full_hour()
    environment = context.environment()
    own = fresh(environment, context.folder / "own")
    own[f"{PREFIX}START"] = (newest - hours * HOUR - timedelta(days=1)).strftime("%Y-%m-%dT%H:00:00Z")
    _history(own[f"{PREFIX}POSTGRES_URL"], newest, hours)
    command = context.program("sensor_ticks", str(QUERIES), str(TICKS))
    runs = in_turns(
        {"ours": lambda: run(command, env=own, folder=context.folder)},
        rounds=context.rounds,
        say=context.say,
        warm_up=not context.short,
    )["ours"]
    measured = {
        name: Measured(name, [one.figures[name] for one in runs])
        for name in ("query median", "query p99", "tick median", "tick longest")
    }
    p99, longest = measured["query p99"].spread.median, measured["tick longest"].spread.median
    return Outcome(
        [Table(f"{hours:,} hours, {TO_PUBLISH} of them to publish", "s", list(measured.values()))],
        [
            Claim("43,800 hours: query p99 at most 100 ms", f"{p99 * 1000:.0f} ms", p99 <= 0.1),
            Claim("43,800 hours: a tick at most 1 s", f"{longest:.2f} s", longest <= 1),
        ],
        notes=[f"Each round is a process of its own, with {QUERIES} queries and {TICKS} ticks."],
    )


def _history(url: str, newest: datetime, hours: int) -> None:
    """Closed hours with a generation each, all but the newest published by all six assets, with a certificate."""
    oldest, last_published = newest - (hours - 1) * HOUR, newest - TO_PUBLISH * HOUR
    with connect(url) as connection:
        connection.execute(
            "INSERT INTO ledger.hour (hour, rows, bytes, closed_at, closed_by, generation)"
            " SELECT hour, 100000, 1000000, hour + interval '2 hours', 'watermark', CASE WHEN hour <= %s THEN 1 ELSE 0 END"
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
        # The text has the length of a certificate and compresses as badly.
        connection.execute(
            "INSERT INTO ledger.certificate"
            " (number, hour, generation, users_version, issued_at, text, previous_sha256, sha256)"
            " SELECT row_number() OVER (ORDER BY hour), hour, 1, 1, now(), text, md5(hour::text), md5(hour::text)"
            " FROM ledger.hour CROSS JOIN LATERAL"
            "  (SELECT string_agg(md5(hour::text || part), '') FROM generate_series(1, 60) AS part) AS of_hour(text)"
            " WHERE generation = 1"
        )
        connection.execute("ANALYZE")
