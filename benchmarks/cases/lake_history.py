"""A run of 24 hours, and of one, in a lake that holds five years of hours; compared with a new lake."""

import sys
from datetime import timedelta
from functools import partial

from antenna_assets.domain.hours import HOUR
from benchmarks.context import Context
from benchmarks.dagster_job import OURS, execute
from benchmarks.history_data import fill_lake
from benchmarks.landing import NOTE, land_hours
from benchmarks.measure import in_turns
from benchmarks.outcome import Claim, Outcome, Table, of_runs
from benchmarks.world import fresh, last_full_hour, settings_of

TITLE = "A lake of five years"
HOURS = 43_800
EVENTS, USERS, RANGE = 1_000, 100, 24
"""Small hours: what is measured is the work that grows with the hours that were published before."""


def measure(context: Context) -> Outcome:
    """The same hours are published again and again, in turns, in both lakes."""
    hours = 240 if context.short else HOURS
    environment = context.environment()
    first = last_full_hour() - (RANGE - 1) * HOUR
    worlds = {}
    for name in ("five years", "a new lake"):
        own = worlds[name] = fresh(environment, context.folder / name.replace(" ", "-"))
        land_hours(own, first=first, hours=RANGE, events=EVENTS, users=USERS)
        if name == "five years":
            context.say(f"filling the logs of the lake with {hours:,} hours")
            fill_lake(settings_of(own), first - timedelta(days=1), hours)
    tables, claims = [], []
    for last, what in ((first + (RANGE - 1) * HOUR, f"a run of {RANGE} hours"), (first, "a run of one hour")):
        runs = in_turns(
            {
                name: partial(
                    execute,
                    OURS,
                    first,
                    last,
                    python=sys.executable,
                    environment=own,
                    folder=context.folder,
                )
                for name, own in worlds.items()
            },
            rounds=context.rounds,
            say=context.say,
            warm_up=True,
        )
        old, new = of_runs(runs)
        tables.append(Table(f"{what}, {EVENTS:,} events each", "s", [old, new]))
        ratio = old.spread.median / new.spread.median
        claims.append(
            Claim(f"{hours:,} hours: {what}, at most 1.5x a new lake's", f"{ratio:.2f}x", ratio <= 1.5)
        )
    return Outcome(
        tables,
        claims,
        [],
        [
            NOTE,
            "The hours before have files in the logs of both tables, 1,000 hours a commit, and nowhere else.",
        ],
    )
