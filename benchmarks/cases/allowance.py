"""Whether a user may go on: a million users, five years of hours, beside a stream of 10,000 events a second.

Alerts are watched meanwhile. Questions come from a process of their own, for users and periods in turn.
"""

import multiprocessing
import os
import random
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection as PipeEnd
from multiprocessing.synchronize import Event
from pathlib import Path

import psycopg

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import HOUR, hour_of
from antenna_assets.domain.schema import ASSETS
from antenna_assets.ledger.user_hours import make_user_days
from antenna_assets.settings import PREFIX
from antenna_assets.simulator.send import Target, send
from antenna_assets.stack.kafka_topic import ensure_topic
from benchmarks.cases.live_delay import PATIENCE_SECONDS, Watch, delays_of
from benchmarks.context import Context
from benchmarks.history_data import fill_ledger
from benchmarks.measure import ContenderFailed
from benchmarks.outcome import Claim, Measured, Outcome, Table
from benchmarks.stream_data import messages
from benchmarks.world import ANTENNA, PARTITIONS, add_users, fresh, last_full_hour

TITLE = "An allowance"
USERS, HOURS, ACTIVE = 1_000_000, 43_800, 200_000
"""Users, hours of history, and users that have bytes in a published hour or day."""
RATE, SECONDS, WARM_UP_SECONDS = 10_000, 120, 40
QUESTIONS_A_SECOND = 50
PERIODS = ("hour", "day", "month")
FLOOR = "SELECT 1"
"""Asked in turn with the periods: what any question waits for on the same busy cores."""


def measure(context: Context) -> Outcome:
    """Ask all the time while a stream counts and alerts are watched."""
    users, hours, active = (2_000, 100, 100) if context.short else (USERS, HOURS, ACTIVE)
    seconds, warm_up = (6, 0) if context.short else (SECONDS, WARM_UP_SECONDS)
    rate = 500 if context.short else RATE
    topic = "bench-allowance"
    environment = context.environment()
    bootstrap = environment[f"{PREFIX}KAFKA_BOOTSTRAP"]
    ensure_topic(bootstrap, topic, PARTITIONS)
    first = last_full_hour() - hours * HOUR
    own = {
        **fresh(environment, context.folder / "own"),
        f"{PREFIX}TOPIC": topic,
        f"{PREFIX}START": f"{first:%Y-%m-%dT%H:%M:%SZ}",
    }
    url = own[f"{PREFIX}POSTGRES_URL"]
    context.say(f"filling {hours:,} hours and {users:,} users")
    _fill(url, users, hours, active)
    total = rate * (warm_up + seconds)
    watch = Watch(url, total)
    watch.start()
    asking = _Asking(url, users)
    with (
        _Running(own, context.folder / "stream.log", "stream"),
        _Running(own, context.folder / "watch.log", "alerts", "watch"),
    ):
        asking.start()
        start = datetime.now(UTC) - timedelta(minutes=1)
        send(
            messages(total, users=users, start=start, span=timedelta(seconds=warm_up + seconds)),
            Target(bootstrap, topic),
            rate=rate,
        )
        watch.join(timeout=PATIENCE_SECONDS)
        asking.stop()
    if watch.is_alive():
        raise ContenderFailed(f"expected {total} messages in the ledger, found {watch.read}")
    delays = delays_of(url, bootstrap, topic, watch.seen, skip=rate * warm_up)
    answers = {of: asking.after(warm_up, of) for of in (*PERIODS, FLOOR)}
    return _outcome(delays, answers, asking.answers, [_notices(url), _places(url)])


def _outcome(
    delays: list[float], answers: dict[str, list[float]], kinds: dict[str, int], notes: list[str]
) -> Outcome:
    rows = [
        Measured(f"{of}, p{share * 100:.0f}", [1000 * _at(took, share)])
        for of, took in answers.items()
        for share in (0.5, 0.99)
    ]
    slowest = max(_at(answers[period], 0.99) for period in PERIODS)
    p95 = _at(delays, 0.95)
    said = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
    return Outcome(
        [
            Table(f"{sum(map(len, answers.values())):,} questions", "ms", rows),
            Table(f"{len(delays):,} events until they are counted", "s", [Measured("p95", [p95])]),
        ],
        [
            Claim("an allowance: p99 at most 10 ms", f"{1000 * slowest:.1f} ms", slowest <= 0.01),
            Claim("with alerts watched: live p95 at most 0.5 s", f"{p95:.2f} s", p95 <= 0.5),
        ],
        notes=[f"The answers: {said}.", *notes],
    )


def _at(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


class _Running:
    """A command of ours, for as long as the block lasts."""

    def __init__(self, environment: dict[str, str], log: Path, *command: str) -> None:
        self._environment, self._log, self._command = environment, log, command

    def __enter__(self) -> None:
        output = self._log.open("wb")
        variables = {**os.environ, **self._environment}
        self._process = subprocess.Popen(
            (*ANTENNA, *self._command), env=variables, stdout=output, stderr=output
        )

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)
        code = self._process.wait(PATIENCE_SECONDS)
        if code:
            raise ContenderFailed(f"{self._command} ended with {code}: {self._log.read_text()[-2_000:]}")


class _Asking:
    """A process that asks about users at random, so many times a second; when and how long each answer took.

    In a thread beside the sender it would measure how long it waits for Python's lock.
    """

    def __init__(self, url: str, users: int) -> None:
        spawning = multiprocessing.get_context("spawn")
        self._stopped = spawning.Event()
        self._results, self._sender = spawning.Pipe(duplex=False)
        arguments = (url, users, self._stopped, self._sender)
        self._process = spawning.Process(target=_ask, args=arguments, daemon=True)
        self._took: list[tuple[float, str, float]] = []
        self.answers: dict[str, int] = {}

    def start(self) -> None:
        self._process.start()
        # Then the end of the process is the end of what it sends.
        self._sender.close()

    def stop(self) -> None:
        self._stopped.set()
        try:
            self._took, self.answers = self._results.recv()
        except EOFError as error:
            raise ContenderFailed("expected answers, found that the process that asks has failed") from error
        self._process.join()

    def after(self, seconds: float, of: str) -> list[float]:
        """How long answers on a period, or the floor, took; without those of the first seconds."""
        first = self._took[0][0] + seconds
        return [took for began, asked, took in self._took if asked == of and began >= first]


def _ask(url: str, users: int, stopped: Event, sender: PipeEnd) -> None:
    chosen = random.Random(5)
    took: list[tuple[float, str, float]] = []
    answers: dict[str, int] = {}
    with connect(url) as connection:
        while not stopped.wait(1 / QUESTIONS_A_SECOND):
            of = (*PERIODS, FLOOR)[len(took) % (len(PERIODS) + 1)]
            user = f"00000000-0000-0000-0000-{chosen.randrange(users) + 1:012}"
            began = time.perf_counter()
            if of == FLOOR:
                connection.execute(FLOOR).fetchall()
            else:
                query = "SELECT answer FROM allowance(%s, 1000, %s)"
                answer = connection.execute(query, [user, of]).fetchall()[0][0]
                answers[answer] = answers.get(answer, 0) + 1
            took.append((began, of, time.perf_counter() - began))
    sender.send((took, answers))


def _notices(url: str) -> str:
    with connect(url) as connection:
        ((notices,),) = connection.execute("SELECT count(*) FROM outbox").fetchall()
    return f"The watch wrote {notices:,} notices meanwhile."


def _places(url: str) -> str:
    """What a sum is of: it depends on when the case runs."""
    with connect(url) as connection:
        ((days, hours),) = connection.execute(
            "SELECT (SELECT count(DISTINCT day) FROM bytes_agg_user_1d),"
            " (SELECT count(DISTINCT date) FROM bytes_agg_user_1h)"
        ).fetchall()
    return (
        f"Each sum of the month is of {days} published days and {hours} published hours and the live windows"
        " since, that of the day without those days: it takes longer late in a day and in a month."
    )


def _fill(url: str, users: int, hours: int, active: int) -> None:
    """Publish all hours, with users in those of this day, and the days of this month before it."""
    newest = last_full_hour()
    fill_ledger(url, newest, hours)
    with connect(url) as connection:
        connection.execute(
            "INSERT INTO ledger.hour_generation (hour, generation, up_to_batch, rows, bytes, certified)"
            " SELECT hour, 1, 1, rows, bytes, true FROM ledger.hour WHERE generation = 0"
        )
        connection.execute("UPDATE ledger.hour SET generation = 1 WHERE generation = 0")
        connection.execute(
            "INSERT INTO ledger.publication_head (asset, hour, generation)"
            " SELECT asset, hour, 1 FROM ledger.hour, unnest(%s::text[]) AS asset ON CONFLICT DO NOTHING",
            [list(ASSETS)],
        )
        add_users(connection, users)
        connection.execute(
            "INSERT INTO user_quota_change (id, period, valid_from, quota)"
            " SELECT id, period, '-infinity', 24 * quota FROM user_metadata, unnest(%s::text[]) AS period",
            [list(PERIODS[1:])],
        )
        _fill_tables(connection, newest, hours, active)
        connection.execute("VACUUM ANALYZE")


def _fill_tables(connection: psycopg.Connection, newest: datetime, hours: int, active: int) -> None:
    make_user_days(connection, [newest - number * HOUR for number in range(0, hours, 24)])
    today = hour_of(newest).replace(hour=0)
    user = "'00000000-0000-0000-0000-' || lpad(n::text, 12, '0')"
    connection.execute(
        f"INSERT INTO bytes_agg_user_1h SELECT hour, {user}, NULL, mod(n, 40000)"
        " FROM generate_series(%s::timestamptz, %s, interval '1 hour') AS hour, generate_series(1, %s) AS n",
        [today, newest, active],
    )
    first = today.replace(day=1)
    days = [first + number * 24 * HOUR for number in range((today - first).days)]
    if not days:
        return
    dates = [day.date() for day in days]
    connection.execute("SELECT ledger.make_user_months(%s)", [dates])
    connection.execute(
        "INSERT INTO ledger.period_generation"
        " (period, day, generation, first_hour, end_hour, certificates, up_to_certificate)"
        " SELECT 'day', start::date, 1, start, start + interval '1 day', '{}', 2000000000"
        " FROM unnest(%s::timestamptz[]) AS start",
        [days],
    )
    connection.execute(
        "INSERT INTO ledger.period_head (period, day, generation, users_version, asked_users_version)"
        " SELECT 'day', day, 1, 1, 1 FROM unnest(%s::date[]) AS day",
        [dates],
    )
    connection.execute(
        f"INSERT INTO bytes_agg_user_1d (day, id, date, email, sum_user_bytes)"
        f" SELECT start::date, {user}, start, NULL, mod(n, 40000)"
        " FROM unnest(%s::timestamptz[]) AS start, generate_series(1, %s) AS n",
        [days, active],
    )
