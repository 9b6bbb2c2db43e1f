"""Six assets with an empty body and no checks: the difference to `empty_bodies` is the cost of checks."""

import dagster as dg

from benchmarks.contenders.empty_bodies import empty, empty_job

definitions = dg.Definitions(
    assets=[empty([])],
    jobs=[empty_job()],
    executor=dg.in_process_executor,
)
