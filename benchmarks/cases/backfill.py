"""A month of hours in runs of 24, as a backfill makes them; beside one run for each hour and beside empty bodies."""

import sys
import time
from functools import partial

from antenna_assets.hours import HOUR
from benchmarks.context import Context
from benchmarks.dagster_job import EMPTY_BODIES, OURS, execute
from benchmarks.measure import Run, in_turns
from benchmarks.outcome import Claim, Measured, Outcome, Plot, Table
from benchmarks.world import fresh, land_hours, last_full_hour

TITLE = "A backfill"
EVENTS, USERS = 100_000, 20_000
HOURS, HOURS_PER_RUN = 744, 24
SAMPLE = 5
"""Single-hour runs that are measured; a month of them would take more than an hour."""
GROWTH = (1, 24, 168, 744)


def measure(context: Context) -> Outcome:
    """Every hour is run once in ranges; then some alone."""
    hours = 4 if context.short else HOURS
    environment = context.environment()
    own = fresh(environment, context.folder / "own")
    first = last_full_hour() - (hours - 1) * HOUR
    context.say(f"landing {hours} hours")
    began = time.perf_counter()
    land_hours(own, first=first, hours=hours, events=context.events(EVENTS), users=context.events(USERS))
    context.say(f"landed {hours} hours in {time.perf_counter() - began:.0f} s")
    job = partial(execute, python=sys.executable, environment=own, folder=context.folder)
    ranges = [
        (first + start * HOUR, first + (min(start + HOURS_PER_RUN, hours) - 1) * HOUR)
        for start in range(0, hours, HOURS_PER_RUN)
    ]
    done: list[Run] = []
    line: list[tuple[float, float]] = []
    for number, (begin, end) in enumerate(ranges):
        done.append(job(OURS, begin, end))
        count = min((number + 1) * HOURS_PER_RUN, hours)
        context.say(f"{count} of {hours} hours: {done[-1].seconds:.1f} s")
        if count in GROWTH:
            line.append((count, sum(run.seconds for run in done)))
    alone = in_turns(
        {
            "one hour, ours": partial(job, OURS, first, first),
            "24 hours, empty bodies": partial(job, EMPTY_BODIES, *ranges[0]),
        },
        rounds=1 if context.short else SAMPLE,
        say=context.say,
        warm_up=not context.short,
    )
    total = sum(run.seconds for run in done)
    singles = [run.seconds for run in alone["one hour, ours"]]
    each = Measured(
        f"a run for each hour (from {len(singles)} runs)", [seconds * hours for seconds in singles]
    )
    empty = [run.seconds * len(ranges) for run in alone["24 hours, empty bodies"]]
    ours = Measured("ours, runs of 24 hours", [total], max(run.peak_bytes for run in done))
    faster = each.spread.median / total
    return Outcome(
        [
            Table(
                f"{hours} hours of {EVENTS:,} events",
                "s",
                [ours, each, Measured("empty bodies, runs of 24 hours", empty)],
            )
        ],
        [
            Claim("744 hours: at least 8x faster than one run per hour", f"{faster:.1f}x", faster >= 8),
            Claim("744 hours: at most 10 minutes", f"{total / 60:.1f} minutes", total <= 600),
        ],
        [
            Plot(
                "A backfill, runs of 24 hours",
                "hours",
                "seconds",
                {"ours": [(1, singles[0]), *line]},
                logarithmic=True,
            )
        ],
        ["The backfill ran once, each of its hours for the first time. Its runs came one after the other."],
    )
