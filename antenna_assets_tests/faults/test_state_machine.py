"""proofs.md, row 19: whatever is done in whatever order, and wherever it dies, the eight invariants of the ledger hold."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from antenna_assets_tests.faults.state_machine import Ledger
from antenna_assets_tests.faults.state_world import World

pytestmark = pytest.mark.services

PROVING_SECONDS = 6.5 * 60
EXAMPLES = 7


@pytest.mark.timeout(900)
def test_row_19_no_order_of_events_crashes_and_runs_breaks_an_invariant_of_the_ledger(
    postgres_server: str,
    migrated_template: str,
    kafka: str,
    tmp_path: Path,
    proving: bool,
    record_property: Callable[[str, object], None],
) -> None:
    done: Counter[str] = Counter()

    def example() -> Ledger:
        done["examples"] += 1
        return Ledger(World(postgres_server, migrated_template, kafka, tmp_path), done)

    wanted = settings(
        max_examples=EXAMPLES,
        stateful_step_count=12,
        # The short form does the same each time; the long one something else.
        derandomize=not proving,
        database=None,
        # A failure is told as it was found: to shrink it at seconds an example takes too long.
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    begun = time.monotonic()
    while True:
        run_state_machine_as_test(example, settings=wanted)
        if not proving or time.monotonic() - begun > PROVING_SECONDS:
            break
    assert done["examples"] >= EXAMPLES
    record_property("examples", done["examples"])
    record_property("steps", done["checks"] - done["examples"])
    record_property("messages sent", done["messages"])
    record_property("merges of small files", done["merges"])
    record_property("deaths at a commit point", done["deaths"])
    record_property("SIGKILLs", done["SIGKILLs"])
    record_property("older generations that committed late", done["older generations that came late"])
    record_property("violated invariants", 0)
