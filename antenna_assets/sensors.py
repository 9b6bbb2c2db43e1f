"""`closed_hours`, the one trigger: it asks for runs of the closed hours that are not wholly published.

What is closed and published is in the ledger; what became of earlier requests, in Dagster's instance. The policy is
in `requests.py`.
"""

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime

import dagster as dg

from antenna_assets.checks import FRESHNESS, evaluation
from antenna_assets.claims.history import hours_are_fresh
from antenna_assets.crash import commit_point
from antenna_assets.hours import NotAnHour, hour_key, parse_hour, range_of_hours
from antenna_assets.jobs import hourly_usage, publishes_hours
from antenna_assets.ledger import hours_to_publish, newest_closed_hour
from antenna_assets.requests import (
    HOURS_PER_RUN,
    LONGEST_WAIT,
    Attempt,
    FailingHour,
    Request,
    failing_hours,
    hours_and_batch,
    plan_requests,
)
from antenna_assets.resources import PostgresResource
from antenna_assets.retries import read_failing_hours, record_failing_hours

PARTITION_TAG = "dagster/partition"
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"
REQUEST_TAG = "antenna/request"
# Looked at in a tick, so that hours that run or wait do not hide those behind them.
HOURS_LOOKED_AT = 8 * HOURS_PER_RUN

# Not NOT_STARTED: that is a run whose launch broke off. Run monitoring ends it, and meanwhile its hours are free.
_IN_PROGRESS = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_ENDED = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.SUCCESS]


@dg.sensor(job=hourly_usage, minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.RUNNING)
def closed_hours(context: dg.SensorEvaluationContext, postgres: PostgresResource) -> dg.SensorResult:
    """Ask for runs of the closed hours that are dirty or not wholly published, at most 24 hours a tick.

    It also tells when hours begin to come late, and when they are in time again: no run does while nothing runs.
    """
    commit_point("sensor.before_query")
    now = datetime.now(UTC)
    # Before the ended ones: a run that ends in between is then in both, and not in neither.
    running = _running_hours(context.instance)
    with postgres.connection() as connection:
        fresh = hours_are_fresh(connection, now)
        todo = hours_to_publish(connection, limit=HOURS_LOOKED_AT)
        known = read_failing_hours(connection)
        failing = failing_hours(todo, _attempts(context.instance), known) if todo else {}
        record_failing_hours(connection, list(failing.values()))
        newest = newest_closed_hour(connection)
    requests = plan_requests(todo, running=running, failing=failing, newest=newest, now=now)
    if failing:
        context.log.warning(_told(failing.values()))
    state = "fresh" if fresh.holds else "late"
    changed = state != (context.cursor or "fresh")
    commit_point("sensor.before_requests")
    return dg.SensorResult(
        run_requests=[_run_request(request) for request in requests],
        skip_reason=None if requests else _why_nothing(len(todo), failing.values()),
        asset_events=[evaluation(FRESHNESS, fresh)] if changed else [],
        cursor=state,
    )


def _why_nothing(todo: int, failing: Collection[FailingHour]) -> str:
    if not todo:
        return "every closed hour is published"
    told = f"; {_told(failing)}" if failing else ""
    return f"{todo} hours are not published, none to be asked for now{told}"


def _run_request(request: Request) -> dg.RunRequest:
    tags = {REQUEST_TAG: request.name}
    first, last = hour_key(request.hours[0]), hour_key(request.hours[-1])
    if first == last:
        return dg.RunRequest(run_key=request.run_key, partition_key=first, tags=tags)
    range_ = {RANGE_START_TAG: first, RANGE_END_TAG: last}
    return dg.RunRequest(run_key=request.run_key, tags={**tags, **range_})


def _running_hours(instance: dg.DagsterInstance) -> frozenset[datetime]:
    """The hours of all runs in progress, those of backfills and of people included."""
    hours: set[datetime] = set()
    for run in filter(publishes_hours, instance.get_runs(dg.RunsFilter(statuses=_IN_PROGRESS))):
        tags = run.tags
        # A run whose keys are no hours ends by itself, with an error that says so.
        with suppress(NotAnHour):
            if PARTITION_TAG in tags:
                hours.add(parse_hour(tags[PARTITION_TAG]))
            elif RANGE_START_TAG in tags:
                hours.update(range_of_hours(tags[RANGE_START_TAG], tags[RANGE_END_TAG]))
    return frozenset(hours)


def _attempts(instance: dg.DagsterInstance) -> list[Attempt]:
    """The ended attempts of the last day. Older ones would not change the wait, which is the longest by then."""
    since = datetime.now(UTC) - 24 * LONGEST_WAIT
    records = instance.get_run_records(
        dg.RunsFilter(job_name=hourly_usage.name, statuses=_ENDED, created_after=since)
    )
    found: list[Attempt] = []
    for record in records:
        run = record.dagster_run
        if REQUEST_TAG in run.tags:
            ended = datetime.fromtimestamp(record.end_time or 0, UTC)
            found.append(Attempt(*hours_and_batch(run.tags[REQUEST_TAG]), run.run_id, ended))
    return found


def _told(failing: Iterable[FailingHour]) -> str:
    """A sentence on the hours that failed, the next ones to be tried first, and one on those that are stuck."""
    ordered = sorted(failing, key=lambda one: one.next_attempt)
    waiting = [
        f"{hour_key(one.hour)} ({one.attempts} attempts, next at {one.next_attempt:%H:%M:%S} UTC)"
        for one in ordered
        if not one.stuck
    ]
    stuck = [f"{hour_key(one.hour)} ({one.attempts} attempts)" for one in ordered if one.stuck]
    told = []
    if waiting:
        told.append(f"failing hours: {_first_few(waiting)}")
    if stuck:
        told.append(
            f"stuck hours: {_first_few(stuck)}: mend the cause, then `antenna backfill --from HOUR` publishes one"
        )
    return "; ".join(told)


def _first_few(items: Sequence[str]) -> str:
    more = f" and {len(items) - 5} more" if len(items) > 5 else ""
    return f"{', '.join(items[:5])}{more}"
