"""The engine's work for one hour: raw and enriched files, four aggregates; no ledger, Delta or serving."""

import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import count
from pathlib import Path

import duckdb

from antenna_assets.engines.duckdb import PARQUET
from benchmarks.context import PROJECT, Context
from benchmarks.hour_data import users_select
from benchmarks.landing import NOTE, land_hours, landed_files
from benchmarks.measure import ContenderFailed, Run, in_turns, run
from benchmarks.outcome import Claim, Measured, Outcome, Plot, Table, of_runs, ratio
from benchmarks.world import PARTITIONS, fresh, last_full_hour

TITLE = "An hour's transformations"
OURS, SPARK = "ours (DuckDB)", "plain PySpark"
CONTENDERS = {
    OURS: ("hour_antenna", ".venv", {}),
    "plain DuckDB": ("hour_duckdb", ".venv", {}),
    "Polars": ("hour_polars", ".venv-bench", {}),
    "ours (Spark, local[*])": ("hour_antenna", ".venv", {"ANTENNA_ENGINE": "spark"}),
    SPARK: ("hour_spark", ".venv", {}),
}
GIB = 2**30


@dataclass(frozen=True)
class Size:
    """The size of an hour.

    Attributes:
        contenders: which ones run; `once`: each of them once.
        repeats: the hour has the files of one with so many times fewer events as often as that.
    """

    events: int
    users: int
    warm_up: bool = True
    once: bool = False
    contenders: Collection[str] = tuple(CONTENDERS)
    repeats: int = 1


# Both Spark contenders take equally long, and over a minute from 5 million events on.
EMBEDDED = (OURS, "plain DuckDB", "Polars")
SIZES = (
    Size(1_000_000, 20_000),
    Size(5_000_000, 200_000, contenders=EMBEDDED),
    # No warm-up: a round takes over three minutes, and the smaller hours have warmed the programs up.
    Size(20_000_000, 1_000_000, warm_up=False, contenders=(*EMBEDDED, SPARK)),
    # The stream would land these for half an hour each.
    Size(40_000_000, 1_000_000, warm_up=False, once=True, contenders=EMBEDDED, repeats=2),
    # Larger than the memory limit.
    Size(100_000_000, 1_000_000, warm_up=False, once=True, contenders=(OURS,), repeats=5),
)
COMPARED, LARGEST = 20_000_000, 100_000_000


def measure(context: Context) -> Outcome:
    """Measure hours of 1 to 100 million events; the design's targets are for 20 million."""
    tables, claims = [], []
    seconds: dict[str, list[tuple[float, float]]] = {}
    memory: dict[str, list[tuple[float, float]]] = {}
    landed_hour = cache(partial(_landed, context))
    for size in SIZES[:1] if context.short else SIZES:
        events, users = context.events(size.events), context.events(size.users)
        landed = landed_hour(events // size.repeats, users)
        measured = _hour(context, landed, events, users, size)
        tables.append(Table(f"{events:,} events of {users:,} users", "s", list(measured.values())))
        for name, contender in measured.items():
            seconds.setdefault(name, []).append((events, contender.spread.median))
            memory.setdefault(name, []).append((events, (contender.peak_bytes or 0) / GIB))
        if size.events == COMPARED:
            claims += _claims(measured)
        if size.events in (COMPARED, LARGEST):
            peak = (measured[OURS].peak_bytes or 0) / GIB
            claims.append(Claim(f"{events:,} events: at most 4 GiB", f"{peak:.2f} GiB", peak <= 4))
    plots = [
        Plot("Time of an hour", "events", "seconds", seconds, logarithmic=True),
        Plot("Memory of an hour", "events", "GiB", memory, logarithmic=True),
    ]
    notes = [
        "Larger hours are the files of that of 20 million two and five times, with partitions of their own.",
        "From 20 million events on there was no warm-up, and from 40 million on each contender ran once.",
    ]
    return Outcome(tables, claims, plots, [NOTE] if context.short else [NOTE, *notes])


def _hour(
    context: Context, landed: Sequence[str], events: int, users: int, size: Size
) -> dict[str, Measured]:
    context.say(f"an hour of {events:,} events of {users:,} users")
    data = _data(context, landed, events, users, size.repeats)
    numbers = count()

    def contender(module: str, environment: str, variables: dict[str, str]) -> Callable[[], Run]:
        def once() -> Run:
            output = context.folder / f"output-{next(numbers)}"
            command = context.program(module, str(data), str(output), environment=environment)
            done = run(command, env={**variables, "PYTHONPATH": str(PROJECT)}, folder=context.folder)
            shutil.rmtree(output)
            return done

        return once

    runs = in_turns(
        {name: contender(*CONTENDERS[name]) for name in size.contenders},
        rounds=1 if size.once else context.rounds,
        say=context.say,
        warm_up=not context.short and size.warm_up,
    )
    answers = {name: done[-1].figures for name, done in runs.items()}
    if len({tuple(sorted(figures.items())) for figures in answers.values()}) != 1:
        raise ContenderFailed(f"the contenders do not agree: {answers}")
    shutil.rmtree(data)
    return {measured.contender: measured for measured in of_runs(runs)}


def _data(context: Context, landed: Sequence[str], events: int, users: int, repeats: int) -> Path:
    """Return a folder with landed files, each so many times, and with that of the users."""
    data = context.folder / f"hour-{events}"
    data.mkdir()
    with duckdb.connect() as database:
        for number, file in enumerate(landed):
            (data / f"landed-{number:04}.parquet").hardlink_to(file)
            for repeat in range(1, repeats):
                database.execute(
                    f"COPY (SELECT * REPLACE (kafka_partition + {repeat * PARTITIONS} AS kafka_partition)"
                    f" FROM read_parquet('{file}', hive_partitioning = false))"
                    f" TO '{data}/landed-{number:04}-{repeat}.parquet' ({PARQUET})"
                )
        database.execute(f"COPY ({users_select(users)}) TO '{data}/users.parquet' (COMPRESSION zstd)")
    return data


def _landed(context: Context, events: int, users: int) -> list[str]:
    """Return the files of an hour that the stream has landed."""
    own = fresh(context.environment(), context.folder / f"own-{events}")
    land_hours(own, first=last_full_hour(), hours=1, events=events, users=users)
    return landed_files(own)


def _claims(measured: dict[str, Measured]) -> list[Claim]:
    bare = ratio(measured[OURS], measured["plain DuckDB"])
    spark = ratio(measured[SPARK], measured[OURS])
    return [
        Claim("20M events, 1M users: at most 1.0x a bare DuckDB script", f"{bare:.2f}x", bare <= 1),
        Claim("20M events, 1M users: at least 8x faster than plain PySpark", f"{spark:.1f}x", spark >= 8),
    ]
