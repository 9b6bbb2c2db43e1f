"""The runs of a sensor's requests in Dagster: which have ended, and which were never launched."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, TypeVar

import dagster as dg

from antenna_assets.ledger.requests import NEVER_LAUNCHED_AFTER

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


@dataclass(frozen=True)
class Ended:
    """How the runs of a request ended.

    Attributes:
        runs: their number; Dagster launches a run again if its worker died. 0: none was launched.
        last_run: the id of the last one, which ended at `at`.
    """

    runs: int
    last_run: str
    at: datetime


class _Asked(Protocol):
    @property
    def key(self) -> str: ...

    @property
    def asked_at(self) -> datetime: ...


_Request = TypeVar("_Request", bound=_Asked)


def ended_requests(
    instance: dg.DagsterInstance, tag: str, requests: Sequence[_Request], now: datetime
) -> Iterator[tuple[_Request, Ended]]:
    """The requests whose runs have all ended, and those that got none in time.

    Args:
        tag: of the runs, with the request's key.
    """
    if not requests:
        return
    runs: dict[str, list[dg.RunRecord]] = defaultdict(list)
    for record in instance.get_run_records(dg.RunsFilter(tags={tag: [one.key for one in requests]})):
        runs[record.dagster_run.tags[tag]].append(record)
    for request in requests:
        records = runs[request.key]
        if not records:
            if now - request.asked_at > NEVER_LAUNCHED_AFTER:
                yield request, Ended(0, "", now)
        elif all(record.dagster_run.status in _ENDED for record in records):
            last = max(records, key=lambda record: record.end_time or 0)
            at = datetime.fromtimestamp(last.end_time or 0, UTC)
            yield request, Ended(len(records), last.dagster_run.run_id, at)
