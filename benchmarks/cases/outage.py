"""Recovery from an outage: Dagster's daemon and sensor publish a week of closed hours."""

import time

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import HOUR
from antenna_assets.ledger.hours_to_publish import hours_to_publish
from antenna_assets.settings import PREFIX
from antenna_assets_tests.faults.dagster_daemon import dagster
from benchmarks.context import Context
from benchmarks.landing import NOTE, land_hours
from benchmarks.measure import ContenderFailed
from benchmarks.outcome import Claim, Measured, Outcome, Table
from benchmarks.world import fresh, last_full_hour, settings_of

TITLE = "After a week's outage"
EVENTS, USERS = 100_000, 20_000
HOURS = 168
LONGEST = 1800.0


def measure(context: Context) -> Outcome:
    """Measure once, from the daemon's start until every hour is published, and until the newest one is."""
    hours = 4 if context.short else HOURS
    own = fresh(context.environment(), context.folder / "own")
    context.say(f"landing {hours} hours")
    land_hours(
        own,
        first=last_full_hour() - (hours - 1) * HOUR,
        hours=hours,
        events=context.events(EVENTS),
        users=context.events(USERS),
    )
    url = own[f"{PREFIX}POSTGRES_URL"]
    settings = settings_of(own)
    with dagster(settings, settings.home / "dagster", show_log=False) as on, connect(url) as connection:
        # An hour that has ended during the landing is closed as well, and empty.
        newest = hours_to_publish(connection, limit=1)[-1].hour
        began = time.perf_counter()
        on.start()
        newest_after = None
        while todo := hours_to_publish(connection, limit=hours):
            seconds = time.perf_counter() - began
            if newest_after is None and todo[-1].hour != newest:
                newest_after = seconds
                context.say(f"the newest hour was published after {seconds:.0f} s")
            if seconds > LONGEST:
                raise ContenderFailed(f"{len(todo)} hours are not published after {seconds:.0f} s")
            time.sleep(0.5)
        all_after = time.perf_counter() - began
    return Outcome(
        [
            Table(
                f"{hours} hours of {EVENTS:,} events",
                "s",
                [
                    Measured("every hour is published", [all_after]),
                    Measured("the newest one is", [newest_after or all_after]),
                ],
            )
        ],
        [
            Claim(
                "a week's outage: caught up within 10 minutes",
                f"{all_after / 60:.1f} minutes",
                all_after <= 600,
            )
        ],
        notes=[NOTE, "The sensor ticks every 30 s and requests at most 24 hours; two runs at a time."],
    )
