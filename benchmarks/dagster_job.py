"""`dagster job execute` of one hour or a range of hours."""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from antenna_assets.domain.hours import hour_key
from benchmarks.measure import Run, run

OURS = "antenna_assets.definitions"
EMPTY_BODIES = "benchmarks.contenders.empty_bodies"
EMPTY_ASSETS = "benchmarks.contenders.empty_assets"


def execute(
    module: str, first: datetime, last: datetime, *, python: str, environment: Mapping[str, str], folder: Path
) -> Run:
    """Run the job `hourly_usage` of a module once, for the hours from `first` to `last`, inclusive."""
    if first == last:
        tags = {"dagster/partition": hour_key(first)}
    else:
        tags = {
            "dagster/asset_partition_range_start": hour_key(first),
            "dagster/asset_partition_range_end": hour_key(last),
        }
    command = (python, "-m", "dagster", "job", "execute", "-m", module, "-j", "hourly_usage")
    return run((*command, "--tags", json.dumps(tags)), env=environment, folder=folder)
