"""The runs of the sensors' requests in Dagster: how one is asked for, its partitions, and how it ended."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import dagster as dg
import psycopg

from antenna_assets.ledger.requests import OpenRequest, forget_request, open_requests, record_end

PARTITION_TAG = "dagster/partition"
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"

# Not NOT_STARTED: the launch of such a run was interrupted. Run monitoring ends it; meanwhile its partitions
# are free.
IN_PROGRESS = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_ENDED = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.SUCCESS]

_NEVER_LAUNCHED_AFTER = timedelta(minutes=1)
"""After this, a request without a run in Dagster is dropped: its tick died, or the run was deleted."""


def run_request(key: str, tag: str, first: str, last: str, *, job: str | None = None) -> dg.RunRequest:
    """A run of the partitions from the key `first` to `last`, with the key of the sensor's request.

    Args:
        tag: of the run, with the request's key.
        job: its name, of a sensor with several jobs.
    """
    # Dagster uses up a run key for ever, even if its run fails: each request has a new one.
    tags = {tag: key}
    if first == last:
        return dg.RunRequest(run_key=key, job_name=job, partition_key=first, tags=tags)
    range_ = {RANGE_START_TAG: first, RANGE_END_TAG: last}
    return dg.RunRequest(run_key=key, job_name=job, tags={**tags, **range_})


def partition_keys(tags: Mapping[str, str]) -> tuple[str, str]:
    """The keys of a run's first and last partition, which Dagster does not check if it is a range."""
    alone = tags.get(PARTITION_TAG)
    return (alone, alone) if alone else (tags.get(RANGE_START_TAG, ""), tags.get(RANGE_END_TAG, ""))


def record_ends(
    connection: psycopg.Connection,
    instance: dg.DagsterInstance,
    tag: str,
    kind: type[OpenRequest],
    now: datetime,
) -> None:
    """Record in the ledger the outcome of requests whose runs have all ended; drop those without any.

    Args:
        tag: of the runs, with the request's key.
    """
    requests = open_requests(connection, kind)
    if not requests:
        return
    runs: dict[str, list[dg.RunRecord]] = defaultdict(list)
    for record in instance.get_run_records(dg.RunsFilter(tags={tag: [one.key for one in requests]})):
        runs[record.dagster_run.tags[tag]].append(record)
    for request in requests:
        records = runs[request.key]
        if not records:
            if now - request.asked_at > _NEVER_LAUNCHED_AFTER:
                forget_request(connection, request)
        elif all(record.dagster_run.status in _ENDED for record in records):
            # Dagster launches a run again if its worker died.
            last = max(records, key=lambda record: record.end_time or 0)
            at = datetime.fromtimestamp(last.end_time or 0, UTC)
            run_id = last.dagster_run.run_id
            record_end(connection, request, runs=len(records), last_run=run_id, ended=at, now=now)
