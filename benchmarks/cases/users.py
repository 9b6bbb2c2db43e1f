"""An hour published as a Dagster run, with ten thousand to ten million users who each have two events."""

import sys

from antenna_assets.clients.postgres import connect
from benchmarks.context import Context
from benchmarks.dagster_job import OURS, execute
from benchmarks.landing import NOTE, land_hours
from benchmarks.measure import Run
from benchmarks.outcome import Claim, Measured, Outcome, Plot, Table
from benchmarks.world import fresh, last_full_hour

TITLE = "An hour of many users"
USERS = (10_000, 100_000, 1_000_000, 10_000_000)
EVENTS_EACH = 2
GIB = 2**30
MOST_GIB = 4


def measure(context: Context) -> Outcome:
    """Publish one hour of each size: with all tables, checks and certificate."""
    done = {users: _publish(context, users) for users in sorted({*map(context.events, USERS)})}
    largest, before = max(done), sorted(done)[-2]
    peak = done[largest].peak_bytes / GIB
    growth = done[largest].seconds / done[before].seconds
    return Outcome(
        [
            Table(
                "An hour of two events for each user",
                "s",
                [Measured(f"{users:,} users", [run.seconds], run.peak_bytes) for users, run in done.items()],
            )
        ],
        [
            Claim(f"{largest:,} users: at most {MOST_GIB} GiB", f"{peak:.2f} GiB", peak <= MOST_GIB),
            Claim(
                f"{largest // before} times as many users: at most as many times the time",
                f"{growth:.1f}x",
                growth <= largest / before,
            ),
        ],
        [
            Plot(
                "Publishing an hour by its users",
                "users",
                "seconds",
                {"ours": [(users, run.seconds) for users, run in done.items()]},
                logarithmic=True,
            )
        ],
        [NOTE, "Each hour was published once, for the first time. Memory is that of the run's process."],
    )


def _publish(context: Context, users: int) -> Run:
    hour = last_full_hour()
    own = fresh(context.environment(), context.folder / f"users-{users}")
    context.say(f"landing {EVENTS_EACH * users:,} events")
    land_hours(own, first=hour, hours=1, events=EVENTS_EACH * users, users=users, even=True)
    run = execute(OURS, hour, hour, python=sys.executable, environment=own, folder=context.folder)
    with connect(own["ANTENNA_POSTGRES_URL"]) as connection:
        ((rows,),) = connection.execute("SELECT count(*) FROM bytes_agg_user_1h").fetchall()
    # One in a hundred events has an id that nobody knows.
    if rows < users:
        raise RuntimeError(f"expected at least {users:,} users of the hour, found {rows:,}")
    context.say(f"{users:,} users: {run.seconds:.1f} s, {run.peak_bytes / GIB:.2f} GiB")
    return run
