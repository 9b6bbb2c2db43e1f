"""Dagster with five years of hours: loading its code location, and the page of an asset's partitions."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from antenna_assets.clients.postgres import dagster_url
from antenna_assets.domain.hours import HOUR, hour_key
from antenna_assets.settings import PREFIX
from antenna_assets.stack.ports import HOST, remembered
from antenna_assets.storage.project_files import workspace_file
from benchmarks.context import Context
from benchmarks.history_data import TO_PUBLISH, fill_ledger
from benchmarks.measure import ContenderFailed, in_turns, run
from benchmarks.outcome import Claim, Measured, Outcome, Table, of_runs
from benchmarks.world import fresh, last_full_hour

TITLE = "Five years in Dagster"
HOURS = 43_800
TIMES = 10
STARTS_WITHIN = 120.0
ASSET = {"path": ["bytes_agg_user_1h"]}

# The queries of the page, without those that do not depend on the asset.
QUERIES = {
    "all partitions of an asset": """query PartitionHealthQuery($assetKey: AssetKeyInput!) {
        assetNodeOrError(assetKey: $assetKey) { ... on AssetNode { id
            partitionKeysByDimension { name type partitionKeys }
            assetPartitionStatuses { ... on TimePartitionStatuses {
                ranges { status startTime endTime startKey endKey } } } } } }""",
    "one partition of it": """query AssetPartitionDetailQuery(
            $assetKey: AssetKeyInput!, $partitionKey: String!) {
        assetNodeOrError(assetKey: $assetKey) { ... on AssetNode { id
            latestMaterializationByPartition(partitions: [$partitionKey]) {
                partition timestamp metadataEntries { label } } } } }""",
    "its checks": """query AssetChecks($assetKey: AssetKeyInput!) {
        assetNodeOrError(assetKey: $assetKey) { ... on AssetNode { id
            assetChecksOrError { ... on AssetChecks { checks { name description blocking
                executionForLatestMaterialization { status } } } } } } }""",
}


def measure(context: Context) -> Outcome:
    """All hours but the newest are published, in the ledger and in the instance."""
    hours = 240 if context.short else HOURS
    newest = last_full_hour()
    own = fresh(context.environment(), context.folder / "own")
    own["DAGSTER_POSTGRES_URL"] = dagster_url(own[f"{PREFIX}POSTGRES_URL"])
    own[f"{PREFIX}START"] = (newest - hours * HOUR - timedelta(days=1)).strftime("%Y-%m-%dT%H:00:00Z")
    fill_ledger(own[f"{PREFIX}POSTGRES_URL"], newest, hours)
    filled = context.program("history_instance", own[f"{PREFIX}POSTGRES_URL"], newest.isoformat(), str(hours))
    run(filled, env=own, folder=context.folder)
    load = [sys.executable, "-m", "dagster", "definitions", "validate", "-w", str(workspace_file())]
    loads = in_turns(
        {"code location": lambda: run(load, env=own, folder=context.folder)},
        rounds=context.rounds,
        say=context.say,
        warm_up=not context.short,
    )
    (loading,) = of_runs(loads)
    last = hour_key(newest - TO_PUBLISH * HOUR)
    with _webserver(own, context.folder) as url:
        first = {name: [_seconds(url, query, last)] for name, query in QUERIES.items()}
        _require_materialized(url, first=hour_key(newest - (hours - 1) * HOUR), last=last)
        again = {
            name: [_seconds(url, query, last) for _ in range(context.rounds * TIMES)]
            for name, query in QUERIES.items()
        }
    slowest = max(max(values) for values in (*first.values(), *again.values()))
    return Outcome(
        [
            Table(f"loading the code location, {hours:,} hours, whole process", "s", [loading]),
            Table(
                f"GraphQL, {hours:,} hours materialized, the first time",
                "s",
                [Measured(name, values) for name, values in first.items()],
            ),
            Table("and again", "s", [Measured(name, values) for name, values in again.items()]),
        ],
        [
            Claim(
                "43,800 hours: code location loads within 5 s",
                f"{loading.spread.median:.1f} s",
                loading.spread.median <= 5,
            ),
            Claim("43,800 hours: the page's slowest query within 3 s", f"{slowest:.2f} s", slowest <= 3),
        ],
    )


@contextmanager
def _webserver(environment: dict[str, str], folder: Path) -> Iterator[str]:
    """Run a webserver. Yields the address of its GraphQL."""
    (port,) = remembered(folder / "port.json", 1)
    command = [str(Path(sys.executable).with_name("dagster-webserver")), "-w", str(workspace_file())]
    with (folder / "webserver.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "-h", HOST, "-p", str(port)],
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
            cwd=folder,
        )
    try:
        url = f"http://{HOST}:{port}/graphql"
        began = time.monotonic()
        while not _answers(url):
            if process.poll() is not None or time.monotonic() - began > STARTS_WITHIN:
                raise ContenderFailed(
                    f"the webserver does not answer: {(folder / 'webserver.log').read_text()[-2000:]}"
                )
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        _ask(url, "{ version }", {})
    except OSError:
        return False
    return True


def _seconds(url: str, query: str, partition: str) -> float:
    variables = {"assetKey": ASSET, **({"partitionKey": partition} if "$partitionKey" in query else {})}
    began = time.perf_counter()
    _ask(url, query, variables)
    return time.perf_counter() - began


def _require_materialized(url: str, *, first: str, last: str) -> None:
    """Check that the page shows all five years."""
    answer = _ask(url, QUERIES["all partitions of an asset"], {"assetKey": ASSET})
    ranges = answer["assetNodeOrError"]["assetPartitionStatuses"]["ranges"]
    found = [(span["status"], span["startKey"], span["endKey"]) for span in ranges]
    if found != [("MATERIALIZED", first, last)]:
        raise ContenderFailed(f"expected {first} to {last} to be materialized, found {found}")


def _ask(url: str, query: str, variables: Mapping[str, object]) -> Any:
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        answer = json.loads(response.read())
    if "errors" in answer or not answer["data"]:
        raise ContenderFailed(f"GraphQL: {answer}")
    return answer["data"]
