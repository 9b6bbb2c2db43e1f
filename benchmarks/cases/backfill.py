"""Backfill a month of hours in the runs of a backfill; compared with one run per hour and empty assets.

Two runs at a time in all of them, as the instance is configured.
"""

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import datetime
from functools import partial

from antenna_assets.defs.partitions import HOURS_PER_BACKFILL_RUN
from antenna_assets.domain.hours import HOUR
from benchmarks.context import Context
from benchmarks.dagster_job import EMPTY_BODIES, OURS, execute
from benchmarks.landing import NOTE
from benchmarks.measure import Run, in_turns
from benchmarks.month import EVENTS
from benchmarks.outcome import Claim, Measured, Outcome, Plot, Table

TITLE = "A backfill"
AT_A_TIME = 2
MONTHS = 3
"""How often the month is published, each time for the first time."""

SAMPLE = 5
"""Measured pairs of single-hour runs; a whole month of them would take most of an hour."""

_RUNS = f"runs of {HOURS_PER_BACKFILL_RUN} hours"
_EMPTY = f"two {_RUNS}, empty bodies"


def measure(context: Context) -> Outcome:
    """Publish the month in ranges of hours, then some of its hours alone."""
    month = context.month()
    first, hours = month.first, month.hours
    ranges = [
        (first + start * HOUR, first + (min(start + HOURS_PER_BACKFILL_RUN, hours) - 1) * HOUR)
        for start in range(0, hours, HOURS_PER_BACKFILL_RUN)
    ]
    months = []
    for number in range(1 if context.short else MONTHS):
        own = month.copy(context.folder / f"month-{number}")
        job = partial(execute, python=sys.executable, environment=own, folder=context.folder)
        months.append(_one_after_the_other(job, ranges, hours, context))
    alone = in_turns(
        {
            "two hours, ours": partial(
                _together, [partial(job, OURS, hour, hour) for hour in (first, first + HOUR)]
            ),
            _EMPTY: partial(_together, [partial(job, EMPTY_BODIES, *one) for one in ranges[:AT_A_TIME]]),
        },
        rounds=1 if context.short else SAMPLE,
        say=context.say,
        warm_up=not context.short,
    )
    months.sort(key=lambda one: _total(one[1]))
    done, line = months[len(months) // 2]
    total = _total(line)
    pairs = [run.seconds for run in alone["two hours, ours"]]
    each = Measured(
        f"a run for each hour (from {len(pairs)} pairs of runs)",
        [seconds * hours / AT_A_TIME for seconds in pairs],
    )
    empty = [run.seconds * len(ranges) / AT_A_TIME for run in alone[_EMPTY]]
    memory = sum(sorted(run.peak_bytes for run in done)[-AT_A_TIME:])
    ours = Measured(f"ours, {_RUNS}", [_total(line) for _, line in months], memory)
    faster = each.spread.median / total
    return Outcome(
        [
            Table(
                f"{hours} hours of {EVENTS:,} events",
                "s",
                [ours, each, Measured(f"empty bodies, {_RUNS}", empty)],
            )
        ],
        [
            Claim("744 hours: at least 8x faster than one run per hour", f"{faster:.1f}x", faster >= 8),
            Claim("744 hours: at most 3 minutes", f"{total / 60:.1f} minutes", total <= 180),
        ],
        [
            Plot(
                f"A backfill, {_RUNS}",
                "hours",
                "seconds",
                {"ours": line},
                logarithmic=True,
            )
        ],
        [
            NOTE,
            "Each backfill publishes a copy of the month for the first time; the plot has the median one."
            " Two runs at a time in all of these.",
        ],
    )


def _one_after_the_other(
    job: Callable[..., Run], ranges: Sequence[tuple[datetime, datetime]], hours: int, context: Context
) -> tuple[list[Run], list[tuple[float, float]]]:
    """Run ranges of hours, `AT_A_TIME` of them at once, as Dagster does: a slot that is free takes the next.

    Returns:
        The runs, and how many hours were done after how many seconds.
    """
    began = time.perf_counter()
    done: list[Run] = []
    line: list[tuple[float, float]] = []
    with ThreadPoolExecutor(AT_A_TIME) as workers:
        for finished in as_completed([workers.submit(job, OURS, *one) for one in ranges]):
            done.append(finished.result())
            seconds = time.perf_counter() - began
            count = min(len(done) * HOURS_PER_BACKFILL_RUN, hours)
            context.say(f"{count} of {hours} hours: {seconds:.1f} s")
            line.append((count, seconds))
    return done, line


def _total(line: Sequence[tuple[float, float]]) -> float:
    """The seconds after which all hours were done."""
    return line[-1][1]


def _together(jobs: list[Callable[[], Run]]) -> Run:
    """Run jobs concurrently. Returns the time until the last one has ended, and the sum of their memory."""
    began = time.perf_counter()
    with ThreadPoolExecutor(len(jobs)) as workers:
        runs = [future.result() for future in [workers.submit(job) for job in jobs]]
    return Run(time.perf_counter() - began, sum(run.peak_bytes for run in runs))
