"""`dagster job execute` of an hour of a million events, compared with the same job with empty bodies."""

import sys
from functools import partial

from benchmarks.context import Context
from benchmarks.dagster_job import EMPTY_ASSETS, EMPTY_BODIES, OURS, execute
from benchmarks.landing import NOTE, land_hours
from benchmarks.measure import in_turns
from benchmarks.outcome import Claim, Outcome, Table, of_runs, ratio
from benchmarks.world import fresh, last_full_hour

TITLE = "An hour as a Dagster run"
EVENTS, USERS = 1_000_000, 20_000


def measure(context: Context) -> Outcome:
    """Run the same hour repeatedly: each run publishes all of it."""
    hour = last_full_hour()
    events = context.events(EVENTS)
    environment = context.environment()
    own = fresh(environment, context.folder / "own")
    land_hours(own, first=hour, hours=1, events=events, users=context.events(USERS))
    job = partial(
        execute, first=hour, last=hour, python=sys.executable, environment=own, folder=context.folder
    )
    runs = in_turns(
        {
            "ours": partial(job, OURS),
            "empty bodies": partial(job, EMPTY_BODIES),
            "six empty assets without checks": partial(job, EMPTY_ASSETS),
        },
        rounds=context.rounds,
        say=context.say,
        warm_up=not context.short,
    )
    ours, empty, bare = of_runs(runs)
    found = ratio(ours, empty)
    return Outcome(
        [Table(f"{events:,} events of {USERS:,} users", "s", [ours, empty, bare])],
        [Claim("hour of 1M events: at most 1.4x the job with empty bodies", f"{found:.2f}x", found <= 1.4)],
        notes=[
            NOTE,
            "The job with empty bodies has the same assets and the same checks, which find nothing.",
        ],
    )
