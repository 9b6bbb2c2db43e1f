"""Reading a topic to its end: ours to committed ledger and live tables, the peers to what they guarantee.

Sustained speed excludes the start and the first micro-batch: it is the difference between a long and a short
topic.
"""

import shutil
from collections.abc import Callable
from datetime import datetime
from functools import partial
from itertools import count
from pathlib import Path

import duckdb

from antenna_assets.domain.hours import HOUR
from antenna_assets.settings import PREFIX
from antenna_assets.simulator.send import Target, send
from antenna_assets.stack.jars import spark_jars
from antenna_assets.stack.kafka_topic import ensure_topic
from benchmarks.context import PROJECT, Context
from benchmarks.flink_jars import flink_classpath
from benchmarks.landing import landed_files
from benchmarks.measure import ContenderFailed, Run, in_turns, run
from benchmarks.outcome import Claim, Measured, Outcome, Table, of_runs
from benchmarks.stream_data import messages
from benchmarks.world import PARTITIONS, fresh, last_full_hour

TITLE = "The stream"
USERS = 20_000
SHORT_TOPIC, LONG_TOPIC = 1_200_000, 4_200_000
EVENTS_PER_HOUR = 2_100_000
"""The same in both topics, so that the cost of windows is in the difference, too."""
OURS, OURS_ON_SPARK = "ours", "ours on Spark"
SPARK, FLINK, POLARS = "usual Spark shape", "Flink SQL", "confluent-kafka and Polars"


def measure(context: Context) -> Outcome:
    """Let every contender read both topics in turns; the short form has one topic."""
    sizes = [context.events(LONG_TOPIC)] if context.short else [SHORT_TOPIC, LONG_TOPIC]
    start = last_full_hour() - HOUR
    environment = context.environment()
    contenders = {
        events: _contenders(context, environment, _filled(context, environment, events, start), events)
        for events in sizes
    }
    runs = {
        events: in_turns(
            contenders[events], rounds=context.rounds, say=context.say, warm_up=not context.short
        )
        for events in sizes
    }
    tables = [Table(f"{events:,} events, whole process", "s", of_runs(runs[events])) for events in sizes]
    if context.short:
        return Outcome(tables)
    rates = sustained(runs[SHORT_TOPIC], runs[LONG_TOPIC])
    return Outcome(
        [Table("sustained", "events/s", rates), *tables],
        _claims({measured.contender: measured.spread.median for measured in rates}),
        notes=[
            "The guarantees differ: ours is exactly once with a proof; Flink's files are exactly once, its"
            " sums are discarded; the usual Spark shape's files are exactly once for readers of its log, its"
            " sums are discarded; the loop has no guarantee."
        ],
    )


def sustained(short: dict[str, list[Run]], long: dict[str, list[Run]]) -> list[Measured]:
    """Return the events per second beyond those of the short topic, round by round."""
    return [
        Measured(
            name,
            [
                (LONG_TOPIC - SHORT_TOPIC) / (more.seconds - less.seconds)
                for less, more in zip(short[name], long[name], strict=True)
            ],
        )
        for name in long
    ]


def _filled(context: Context, environment: dict[str, str], events: int, start: datetime) -> str:
    topic = f"bench-{events}"
    bootstrap = environment[f"{PREFIX}KAFKA_BOOTSTRAP"]
    ensure_topic(bootstrap, topic, PARTITIONS)
    context.say(f"sending {events:,} messages")
    span = HOUR * events / EVENTS_PER_HOUR
    send(messages(events, users=USERS, start=start, span=span), Target(bootstrap, topic))
    return topic


def _contenders(
    context: Context, environment: dict[str, str], topic: str, events: int
) -> dict[str, Callable[[], Run]]:
    bootstrap = environment[f"{PREFIX}KAFKA_BOOTSTRAP"]
    numbers = count()

    def once(
        command: Callable[[Path], list[str]],
        own: Callable[[Path], dict[str, str]],
        files: Callable[[Path, dict[str, str]], list[str]],
    ) -> Run:
        output = context.folder / f"stream-{next(numbers)}"
        output.mkdir()
        variables = own(output)
        done = run(command(output), env=variables, folder=context.folder)
        with duckdb.connect() as connection:
            written = files(output, variables)
            row = connection.execute(f"SELECT count(*) FROM read_parquet({written})").fetchone()
        if row != (events,):
            raise ContenderFailed(f"expected {events} rows of {topic} in {output}, found {row}")
        shutil.rmtree(output)
        return done

    def peer(module: str, venv: str, jars: list[Path]) -> Callable[[Path], list[str]]:
        given = ("--jars", ",".join(map(str, jars)))
        return lambda output: context.program(module, bootstrap, topic, str(output), *given, environment=venv)

    def plain(_output: Path) -> dict[str, str]:
        return {"PYTHONPATH": str(PROJECT)}

    def ours(engine: str) -> Callable[[], Run]:
        def ledger(output: Path) -> dict[str, str]:
            own = {f"{PREFIX}TOPIC": topic, f"{PREFIX}STREAM_ENGINE": engine}
            return {**fresh(environment, output), **own}

        return partial(
            once, lambda _: context.program("stream_antenna"), ledger, lambda _, own: landed_files(own)
        )

    def matching(pattern: str) -> Callable[[Path, dict[str, str]], list[str]]:
        return lambda output, _: [f"{output}/{pattern}"]

    spark = partial(once, peer("stream_spark", ".venv", spark_jars()), plain, matching("lake/**/*.parquet"))
    polars = partial(once, peer("stream_polars", ".venv-bench", []), plain, matching("hour=*/*.parquet"))
    found: dict[str, Callable[[], Run]] = {
        OURS: ours("duckdb"),
        OURS_ON_SPARK: ours("spark"),
        SPARK: spark,
        POLARS: polars,
    }
    # Flink's environment is half a gigabyte: the short form leaves it out.
    if not context.short:
        flink = peer("stream_flink", ".venv-flink", flink_classpath())
        found[FLINK] = partial(once, flink, plain, matching("lake/*/part-*"))
    return found


def _claims(rates: dict[str, float]) -> list[Claim]:
    def ratio(ours: str, peer: str, least: float) -> Claim:
        found = rates[ours] / rates[peer]
        return Claim(f"{ours}: at least {least}x {peer}", f"{found:.2f}x", found >= least)

    return [
        ratio(OURS, FLINK, 1.5),
        ratio(OURS, POLARS, 1.5),
        ratio(OURS_ON_SPARK, SPARK, 1.68),
    ]
