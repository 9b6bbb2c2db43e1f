"""`closed_hours`, the one trigger: it requests runs for the closed hours that are not wholly published.

The ledger knows which hours are closed, published and failing, Dagster's instance which runs are in progress.
The policy is in `sensor_policy.py`.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from uuid import uuid4

import dagster as dg

from antenna_assets.clients.clock import database_now
from antenna_assets.defs.checks import FRESHNESS, evaluation
from antenna_assets.defs.jobs import hourly_usage, publishes_hours
from antenna_assets.defs.partitions import first_and_end
from antenna_assets.defs.requested_runs import IN_PROGRESS, partition_keys, record_ends, run_request
from antenna_assets.defs.resources import PostgresResource
from antenna_assets.defs.sensor_policy import HOURS_PER_RUN, plan_requests
from antenna_assets.domain.counted import counted
from antenna_assets.domain.hours import HOUR, NotAnHour, hour_key, hours_between, parse_hour
from antenna_assets.domain.listing import first_few
from antenna_assets.failpoints import commit_point
from antenna_assets.ledger.corrections import ask_for_hours_of_corrections
from antenna_assets.ledger.failing import FailingHour, forget_published_hours, read_failing_hours
from antenna_assets.ledger.hours_to_publish import (
    LeftOut,
    candidates,
    newest_closed_hour,
    read_left_out,
    record_left_out,
)
from antenna_assets.ledger.newcomers import ask_for_hours_of_newcomers
from antenna_assets.ledger.republish_wait import waiting_hours
from antenna_assets.ledger.requests import OpenHourRequest, record_hour_request
from antenna_assets.settings import load_settings
from antenna_assets.verify.claims.history import hours_are_fresh

REQUEST_TAG = "antenna/request"
HOURS_NAMED = 5
"""Hours that one sentence of a tick names."""


@dg.sensor(job=hourly_usage, minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.RUNNING)
def closed_hours(context: dg.SensorEvaluationContext, postgres: PostgresResource) -> dg.SensorResult:
    """Request runs for the closed hours that are dirty or not wholly published, at most 24 hours a tick.

    Hours whose unknown users are known now are asked for again. It also records when hours become late, and
    when they are in time again: without runs, nothing else would.
    """
    commit_point("sensor.before_query")
    # Dagster's partitions, by this machine's clock: a single key outside them would fail the whole tick.
    first, end = first_and_end()
    # Before the ended ones: a run that ends in between is then in both lists, not in neither.
    running = _running_hours(context.instance, first, end)
    with postgres.connection() as connection:
        now = database_now(connection)
        fresh = hours_are_fresh(connection, now)
        record_ends(connection, context.instance, REQUEST_TAG, OpenHourRequest, now)
        forget_published_hours(connection)
        known_now = ask_for_hours_of_newcomers(connection, now)
        corrected = ask_for_hours_of_corrections(connection, now)
        record_left_out(connection, first=first, end=end)
        newest = newest_closed_hour(connection, first=first, end=end)
        found = candidates(
            connection, first=first, end=end, running=running, newest=newest, now=now, limit=HOURS_PER_RUN
        )
        waiting = waiting_hours(found, newest=newest, now=now, longest=load_settings().republish_wait)
        requests = plan_requests([one for one in found if one.hour not in waiting], newest=newest)
        keyed = {f"{request.name}#{uuid4().hex}": request for request in requests}
        for key, request in keyed.items():
            record_hour_request(connection, key, request)
        failing, left_out = read_failing_hours(connection), read_left_out(connection)
    messages = [*_failing_message(failing), *_left_out_message(left_out)]
    if messages:
        context.log.warning("; ".join(messages))
    messages += _waiting_message(waiting) + _newcomers_message(known_now) + _corrected_message(corrected)
    state = "fresh" if fresh.passed else "late"
    changed = state != (context.cursor or "fresh")
    commit_point("sensor.before_requests")
    return dg.SensorResult(
        run_requests=[
            run_request(key, REQUEST_TAG, hour_key(request.hours[0]), hour_key(request.hours[-1]))
            for key, request in keyed.items()
        ],
        skip_reason=None if requests else _skip_reason(len(running), messages),
        asset_events=[evaluation(FRESHNESS, fresh)] if changed else [],
        cursor=state,
    )


def _skip_reason(running: int, messages: Sequence[str]) -> str:
    if not running and not messages:
        return "every closed hour is published"
    in_progress = [f"{counted(running, 'hour is', 'hours are')} left to runs in progress"] if running else []
    return "; ".join(["nothing to ask for now", *in_progress, *messages])


def _running_hours(instance: dg.DagsterInstance, first: datetime, end: datetime) -> frozenset[datetime]:
    """The hours from `first` to before `end` of all runs in progress, backfills and manual runs included."""
    hours: set[datetime] = set()
    for run in filter(publishes_hours, instance.get_runs(dg.RunsFilter(statuses=IN_PROGRESS))):
        try:
            begin, last = map(parse_hour, partition_keys(run.tags))
        except NotAnHour:
            continue  # Such a run fails.
        hours.update(hours_between(max(begin, first), min(last, end - HOUR) + HOUR))
    return frozenset(hours)


def _failing_message(failing: Iterable[FailingHour]) -> list[str]:
    """A sentence on the hours that failed, soonest retry first, and one on those that are stuck."""
    ordered = sorted(failing, key=lambda one: one.next_attempt)
    waiting = [
        f"{hour_key(one.hour)} ({counted(one.attempts, 'attempt')}, next at {one.next_attempt:%H:%M:%S} UTC)"
        for one in ordered
        if not one.stuck
    ]
    stuck = [f"{hour_key(one.hour)} ({counted(one.attempts, 'attempt')})" for one in ordered if one.stuck]
    messages = []
    if waiting:
        messages.append(f"failing hours: {first_few(waiting, HOURS_NAMED)}")
    if stuck:
        messages.append(
            f"stuck hours: {first_few(stuck, HOURS_NAMED)}: fix the cause, then `antenna backfill --from "
            "HOUR` publishes one"
        )
    return messages


def _left_out_message(left_out: Sequence[LeftOut]) -> list[str]:
    return [
        f"hours left out, {one.reason}: {first_few(one.hours, HOURS_NAMED, total=one.count)}"
        for one in left_out
    ]


def _newcomers_message(hours: Sequence[datetime]) -> list[str]:
    if not hours:
        return []
    named = first_few([hour_key(hour) for hour in hours], HOURS_NAMED)
    return [f"hours with users who were unknown and are known now, to be published again: {named}"]


def _corrected_message(hours: Sequence[datetime]) -> list[str]:
    if not hours:
        return []
    named = first_few([hour_key(hour) for hour in hours], HOURS_NAMED)
    return [f"hours whose runs had read quotas that were corrected since, to be published again: {named}"]


def _waiting_message(waiting: Mapping[datetime, datetime]) -> list[str]:
    """A sentence on the published hours whose late rows wait, soonest first."""
    if not waiting:
        return []
    due = sorted(waiting.items(), key=lambda item: item[1])
    hours = [f"{hour_key(hour)} (at {until:%H:%M:%S} UTC)" for hour, until in due]
    return [f"hours with late rows, published again after a wait: {first_few(hours, HOURS_NAMED)}"]
