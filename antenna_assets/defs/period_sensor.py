"""`ended_periods`: it requests runs for days and months that are over and not published, or not up to date.

The ledger knows which are due (`ledger/periods_to_publish.py`), Dagster's instance which runs are in
progress.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from uuid import uuid4

import dagster as dg
import psycopg

from antenna_assets.clients.clock import database_now
from antenna_assets.defs.jobs import PERIOD_JOBS, publishes_periods
from antenna_assets.defs.period_partitions import (
    DAYS_PER_RUN,
    MONTHS_PER_RUN,
    first_and_end_of,
)
from antenna_assets.defs.requested_runs import IN_PROGRESS, partition_keys, record_ends, run_request
from antenna_assets.defs.resources import PostgresResource
from antenna_assets.domain.listing import first_few
from antenna_assets.domain.periods import (
    PERIODS,
    NotAPeriod,
    Period,
    contiguous_periods,
    range_of_periods,
)
from antenna_assets.ledger.failing import forget_published_periods, read_failing_periods
from antenna_assets.ledger.periods_to_publish import PeriodCandidate, period_candidates
from antenna_assets.ledger.requests import OpenPeriodRequest, PeriodRequest, record_period_request
from antenna_assets.settings import load_settings

PERIOD_REQUEST_TAG = "antenna/period_request"

PER_RUN: Mapping[Period, int] = {"day": DAYS_PER_RUN, "month": MONTHS_PER_RUN}
"""The most periods of a run."""

PER_TICK: Mapping[Period, int] = {"day": 2 * DAYS_PER_RUN, "month": MONTHS_PER_RUN}
"""The most periods of all runs that one tick requests."""

RETRIES = 3
"""Reserved for periods that failed before, and no more while others wait: neither side starves the other."""

NAMED = 5
"""Periods that one sentence of a tick names."""


@dg.sensor(
    jobs=[*PERIOD_JOBS.values()],
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def ended_periods(context: dg.SensorEvaluationContext, postgres: PostgresResource) -> dg.SensorResult:
    """Request runs for the days and months that are due: oldest first, the newest always.

    What late rows changed is published again `ANTENNA_REPUBLISH_WAIT` after the last publication at the
    earliest.
    """
    requests: dict[str, PeriodRequest] = {}
    messages: list[str] = []
    with postgres.connection() as connection:
        now = database_now(connection)
        record_ends(connection, context.instance, PERIOD_REQUEST_TAG, OpenPeriodRequest, now)
        forget_published_periods(connection)
        for period in PERIODS:
            first, end = first_and_end_of(period)
            found = period_candidates(
                connection,
                period,
                first=first,
                end=end,
                running=_running(context.instance, period),
                now=now,
                wait=load_settings().republish_wait,
                limit=PER_TICK[period],
            )
            for planned in plan_periods(period, [one for one in found if one.waits_until is None]):
                requests[f"{planned.name}#{uuid4().hex}"] = planned
            messages += _waiting_message(period, found)
        messages += _failing_message(connection)
        for key, planned in requests.items():
            record_period_request(connection, key, planned)
    return dg.SensorResult(
        run_requests=[
            run_request(
                key,
                PERIOD_REQUEST_TAG,
                planned.days[0].isoformat(),
                planned.days[-1].isoformat(),
                job=PERIOD_JOBS[planned.period].name,
            )
            for key, planned in requests.items()
        ],
        skip_reason=None
        if requests
        else "; ".join(["every day and month that is over is published", *messages]),
    )


def plan_periods(period: Period, candidates: Sequence[PeriodCandidate]) -> list[PeriodRequest]:
    """The runs to request now, oldest first. Periods that failed run alone, so that they delay no others.

    Args:
        candidates: not waiting, ascending.
    """
    newest = [one.day for one in candidates[-1:]]
    left = PER_TICK[period] - len(newest)
    fresh = [one.day for one in candidates if not one.attempts and one.day not in newest]
    failed = [one.day for one in candidates if one.attempts and one.day not in newest]
    again = failed[: max(RETRIES, left - len(fresh))]
    days = sorted([*fresh[: left - len(again)], *(day for day in newest if not candidates[-1].attempts)])
    alone = [*again, *(day for day in newest if candidates[-1].attempts)]
    groups = [*contiguous_periods(period, days, PER_RUN[period]), *([day] for day in alone)]
    return [PeriodRequest(period, group) for group in sorted(groups)]


def _running(instance: dg.DagsterInstance, period: Period) -> frozenset[date]:
    """The periods of all runs in progress, backfills and manual runs included."""
    days: set[date] = set()
    for run in instance.get_runs(dg.RunsFilter(statuses=IN_PROGRESS)):
        if publishes_periods(run, period):
            try:
                days.update(range_of_periods(period, *partition_keys(run.tags)))
            except NotAPeriod:
                continue  # Such a run fails.
    return frozenset(days)


def _waiting_message(period: Period, found: Sequence[PeriodCandidate]) -> list[str]:
    waiting = [f"{one.day} (at {one.waits_until:%H:%M:%S} UTC)" for one in found if one.waits_until]
    return [f"{period}s to publish again, after a wait: {first_few(waiting, NAMED)}"] if waiting else []


def _failing_message(connection: psycopg.Connection) -> list[str]:
    failing = [
        f"{one.period} {one.day} ({one.attempts} attempts, "
        + (
            "stuck: fix the cause, then publish it)"
            if one.stuck
            else f"next at {one.next_attempt:%H:%M:%S} UTC)"
        )
        for one in read_failing_periods(connection)
    ]
    return [f"failing: {first_few(failing, NAMED)}"] if failing else []
