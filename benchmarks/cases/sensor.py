"""The sensors of hours and of days, with five years of both, the newest of them still to publish."""

from datetime import timedelta

from antenna_assets.domain.hours import HOUR
from antenna_assets.settings import PREFIX
from benchmarks.context import Context
from benchmarks.history_data import TO_PUBLISH, fill_ledger, fill_periods
from benchmarks.measure import in_turns, run
from benchmarks.outcome import Claim, Measured, Outcome, Table
from benchmarks.world import fresh, last_full_hour

TITLE = "The sensor"
HOURS = 43_800
QUERIES, TICKS = 200, 10


def measure(context: Context) -> Outcome:
    """All hours but the newest are published."""
    hours = 240 if context.short else HOURS
    newest = last_full_hour()
    environment = context.environment()
    own = fresh(environment, context.folder / "own")
    own[f"{PREFIX}START"] = (newest - hours * HOUR - timedelta(days=1)).strftime("%Y-%m-%dT%H:00:00Z")
    fill_ledger(own[f"{PREFIX}POSTGRES_URL"], newest, hours)
    fill_periods(own[f"{PREFIX}POSTGRES_URL"], newest, hours)
    command = context.program("sensor_ticks", str(QUERIES), str(TICKS))
    runs = in_turns(
        {"ours": lambda: run(command, env=own, folder=context.folder)},
        rounds=context.rounds,
        say=context.say,
        warm_up=not context.short,
    )["ours"]
    measured = {
        name: Measured(name, [run_.figures[name] for run_ in runs])
        for name in (
            "query median",
            "query p99",
            "tick median",
            "tick longest",
            "tick of days, median",
            "tick of days, longest",
        )
    }
    p99, longest, of_days = (
        measured[name].spread.median for name in ("query p99", "tick longest", "tick of days, longest")
    )
    return Outcome(
        [Table(f"{hours:,} hours, {TO_PUBLISH} of them to publish", "s", list(measured.values()))],
        [
            Claim("43,800 hours: query p99 at most 100 ms", f"{p99 * 1000:.0f} ms", p99 <= 0.1),
            Claim("43,800 hours: a tick at most 1 s", f"{longest:.2f} s", longest <= 1),
            Claim("their days and months: a tick at most 1 s", f"{of_days:.2f} s", of_days <= 1),
        ],
        notes=[f"Each round is its own process, with {QUERIES} queries and {TICKS} ticks of each sensor."],
    )
