"""`closed_hours`, the one trigger: it asks for runs of the closed hours that are not wholly published.

What is closed and published is in the ledger; what became of earlier requests, in Dagster's instance. The policy is
in `plan_requests`, which is pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg

from antenna_assets.crash import commit_point
from antenna_assets.hours import contiguous, hour_key, hours_between, parse_hour
from antenna_assets.jobs import hourly_usage
from antenna_assets.ledger import HourToPublish, hours_to_publish
from antenna_assets.partitions import HOURS_PER_RUN
from antenna_assets.resources import PostgresResource

PARTITION_TAG = "dagster/partition"
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"
REQUEST_TAG = "antenna/request"
FIRST_WAIT = timedelta(seconds=30)
LONGEST_WAIT = timedelta(hours=1)
# Looked at in a tick, so that hours that run or wait do not hide those behind them.
HOURS_LOOKED_AT = 8 * HOURS_PER_RUN

# Not NOT_STARTED: that is a run whose launch broke off, and nothing would ever end it.
_IN_PROGRESS = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dataclass(frozen=True)
class Request:
    """Hours to run together. `name` is the same for every attempt at the same hours of the same batches."""

    hours: Sequence[datetime]
    name: str
    attempt: int

    @property
    def run_key(self) -> str:
        """Dagster spends a run key even if its run fails: each attempt has its own."""
        return f"{self.name}#{self.attempt}"


def request_name(hours: Sequence[HourToPublish]) -> str:
    """What names the work: the hours, and the newest batch and generation in them."""
    newest = max((hour.up_to_batch, hour.generation) for hour in hours)
    return f"{hour_key(hours[0].hour)}..{hour_key(hours[-1].hour)}@{newest[0]}"


def plan_requests(
    todo: Sequence[HourToPublish],
    *,
    running: frozenset[datetime],
    ended: Mapping[str, Sequence[datetime]],
    now: datetime,
) -> tuple[list[Request], list[str]]:
    """What to ask for now, oldest first, and the names of the requests that wait for their next attempt.

    Args:
        todo: hours with something to publish, ascending.
        running: hours that a run in progress covers; they are left to it.
        ended: when the earlier attempts at a request ended, by its name, ascending. A request that is still in `todo`
            was not satisfied by them: its next attempt waits twice as long each time.
    """
    free = {hour.hour: hour for hour in todo if hour.hour not in running}
    requests: list[Request] = []
    waiting: list[str] = []
    left = HOURS_PER_RUN
    for hours in contiguous(free, HOURS_PER_RUN):
        name = request_name([free[hour] for hour in hours])
        attempts = ended.get(name, ())
        if attempts and now < attempts[-1] + min(FIRST_WAIT * 2 ** (len(attempts) - 1), LONGEST_WAIT):
            waiting.append(name)
        elif len(hours) <= left:
            requests.append(Request(hours, name, len(attempts)))
            left -= len(hours)
    return requests, waiting


@dg.sensor(job=hourly_usage, minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.RUNNING)
def closed_hours(
    context: dg.SensorEvaluationContext, postgres: PostgresResource
) -> dg.SensorResult | dg.SkipReason:
    """Ask for runs of the closed hours that are dirty or not wholly published, at most 24 hours a tick."""
    commit_point("sensor.before_query")
    with postgres.connection() as connection:
        todo = hours_to_publish(connection, limit=HOURS_LOOKED_AT)
    if not todo:
        return dg.SkipReason("every closed hour is published")
    requests, waiting = plan_requests(
        todo,
        running=_running_hours(context.instance),
        ended=_ended_attempts(context.instance),
        now=datetime.now(UTC),
    )
    if not requests:
        waits = f"; {len(waiting)} wait for another attempt: {', '.join(waiting)}" if waiting else ""
        return dg.SkipReason(f"{len(todo)} hours are not published, none to be asked for now{waits}")
    commit_point("sensor.before_requests")
    return dg.SensorResult(run_requests=[_run_request(request) for request in requests])


def _run_request(request: Request) -> dg.RunRequest:
    tags = {REQUEST_TAG: request.name}
    first, last = hour_key(request.hours[0]), hour_key(request.hours[-1])
    if first == last:
        return dg.RunRequest(run_key=request.run_key, partition_key=first, tags=tags)
    range_ = {RANGE_START_TAG: first, RANGE_END_TAG: last}
    return dg.RunRequest(run_key=request.run_key, tags={**tags, **range_})


def _running_hours(instance: dg.DagsterInstance) -> frozenset[datetime]:
    runs = instance.get_runs(dg.RunsFilter(job_name=hourly_usage.name, statuses=_IN_PROGRESS))
    hours: set[datetime] = set()
    for run in runs:
        if PARTITION_TAG in run.tags:
            hours.add(parse_hour(run.tags[PARTITION_TAG]))
        elif RANGE_START_TAG in run.tags:
            first = parse_hour(run.tags[RANGE_START_TAG])
            last = parse_hour(run.tags[RANGE_END_TAG])
            hours.update([*hours_between(first, last), last])
    return frozenset(hours)


def _ended_attempts(instance: dg.DagsterInstance) -> dict[str, list[datetime]]:
    """When the attempts of the last day at each request ended."""
    since = datetime.now(UTC) - 24 * LONGEST_WAIT
    records = instance.get_run_records(
        dg.RunsFilter(
            job_name=hourly_usage.name,
            statuses=[dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.SUCCESS],
            created_after=since,
        )
    )
    ended: dict[str, list[datetime]] = {}
    for record in records:
        name = record.dagster_run.tags.get(REQUEST_TAG)
        if name is not None:
            ended.setdefault(name, []).append(datetime.fromtimestamp(record.end_time or 0, UTC))
    return {name: sorted(times) for name, times in ended.items()}
