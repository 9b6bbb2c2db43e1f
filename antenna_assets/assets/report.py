"""How an asset reports an hour to Dagster: numbers that its UI plots over the hours.

What is computed and published is not decided here.
"""

from collections.abc import Callable, Mapping
from datetime import datetime

import dagster as dg

from antenna_assets.crash import commit_point
from antenna_assets.errors import Superseded
from antenna_assets.hours import hour_key
from antenna_assets.partitions import hours_of

Numbers = Mapping[str, int | float]


def materialize_hours(
    context: dg.AssetExecutionContext, materialize: Callable[[datetime], Numbers]
) -> dg.MaterializeResult:
    """Materialize each hour of the run and record it, with its numbers, as soon as it is done.

    A run of several hours that dies in the middle keeps the hours it finished. An hour of which a newer generation is
    published already is left as it is.
    """
    hours = hours_of(context)
    for hour in hours:
        key = hour_key(hour)
        try:
            numbers = materialize(hour)
        except Superseded as superseded:
            context.log.info(f"nothing to do: {superseded}")
            numbers = {"superseded": 1}
        commit_point("publish.hour_done")
        metadata = dict(numbers)
        if "rows" in metadata:
            metadata["dagster/partition_row_count"] = metadata["rows"]
        if len(hours) > 1:
            context.log_event(dg.AssetMaterialization(context.asset_key, partition=key, metadata=metadata))
        context.add_asset_metadata(metadata, partition_key=key)
    return dg.MaterializeResult()
