"""`benchmarks/`: that everything runs and is held equal. How fast it is, no test says."""

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from benchmarks import measure
from benchmarks.__main__ import CASES, PROJECT
from benchmarks.measure import ContenderFailed, Run, in_turns, run
from benchmarks.outcome import Claim, Measured, Outcome, Plot, Table, read, write
from benchmarks.page import page

HUNGRY = "import time; kept = bytearray(200_000_000); kept[::4096] = b'x' * len(kept[::4096]); time.sleep(1); print('{\"rows\": 3}')"


def test_a_run_has_its_time_its_peak_memory_and_the_figures_of_its_last_line():
    done = run((sys.executable, "-c", f"print('words'); {HUNGRY}"))
    assert done.seconds > 1
    assert 200_000_000 < done.peak_bytes < 300_000_000
    assert done.figures == {"rows": 3}


def test_the_memory_of_children_counts():
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HUNGRY!r}], check=True)"
    assert run((sys.executable, "-c", child)).peak_bytes > 200_000_000


def test_a_contender_that_fails_ends_the_benchmark_with_what_it_said():
    with pytest.raises(ContenderFailed, match=r"ended with 3: no such topic"):
        run((sys.executable, "-c", "import sys; sys.stderr.write('no such topic'); sys.exit(3)"))


def test_a_contender_that_hangs_is_ended_with_its_children(monkeypatch):
    monkeypatch.setattr(measure, "LONGEST_RUN", 1.0)
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)  # hangs'])"
    with pytest.raises(ContenderFailed, match="did not end within 1 s"):
        run((sys.executable, "-c", child))
    hanging = []
    for one in psutil.Process().children(recursive=True):
        with suppress(psutil.ZombieProcess, psutil.NoSuchProcess):  # It has ended.
            hanging += ["# hangs"] if "# hangs" in " ".join(one.cmdline()) else []
    assert hanging == []


def test_contenders_take_turns_and_the_first_round_does_not_count():
    calls: list[str] = []

    def contender(name: str) -> Run:
        calls.append(name)
        return Run(len(calls), 0)

    runs = in_turns({"a": lambda: contender("a"), "b": lambda: contender("b")}, rounds=2, say=lambda _: None)
    assert calls == ["a", "b"] * 3
    assert {name: [one.seconds for one in done] for name, done in runs.items()} == {"a": [3, 5], "b": [4, 6]}


OUTCOME = Outcome(
    [
        Table(
            "1,000 events", "s", [Measured("ours", [2.0, 1.0, 4.0], 2**30), Measured("peer", [3.0, 3.0, 3.0])]
        )
    ],
    [Claim("at most 1.4x", "1.50x", reached=False)],
    [Plot("Time", "events", "s", {"ours": [(1, 2)]})],
    ["A note."],
)


def test_an_outcome_is_kept_as_it_was_found(tmp_path):
    write(tmp_path / "hour.json", OUTCOME, {"rounds": "3"})
    found, about = read(tmp_path / "hour.json")
    assert about == {"rounds": "3"}
    assert found.tables == OUTCOME.tables
    assert found.claims == OUTCOME.claims
    assert found.notes == OUTCOME.notes


def test_the_page_has_medians_spreads_ratios_and_says_what_was_not_reached():
    text = page({"hour": ("An hour", OUTCOME, {"rounds": "3"})})
    assert "| An hour | at most 1.4x | 1.50x | **no** |" in text
    assert "| ours | 2 | 1 to 4 | 1.00x | 1.00 |" in text
    assert "| peer | 3 | 3 to 3 | 1.50x | - |" in text
    assert "rounds 3. Again: `make bench CASES=hour`." in text


def test_an_unknown_case_is_an_error_that_names_the_known_ones():
    done = subprocess.run(
        (sys.executable, "-m", "benchmarks", "--cases", "hours"), cwd=PROJECT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "unknown case hours; expected one of hour, dagster_hour" in done.stderr


@pytest.mark.services
@pytest.mark.benchmark
@pytest.mark.timeout(900)
def test_the_short_form_runs_every_case_and_the_contenders_agree(tmp_path: Path):
    done = subprocess.run(
        (sys.executable, "-m", "benchmarks", "--short", "--results", str(tmp_path)),
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert set(found) == set(CASES)
    contenders = {
        name: {one["contender"] for table in case["tables"] for one in table["measured"]}
        for name, case in found.items()
    }
    assert contenders["hour"] == {
        "ours (DuckDB)",
        "plain DuckDB",
        "Polars",
        "ours (Spark, local[*])",
        "plain PySpark",
    }
    assert contenders["stream"] == {
        "ours",
        "ours on Spark",
        "usual Spark shape",
        "confluent-kafka and Polars",
    }
    assert contenders["dagster_hour"] == {"ours", "empty bodies", "six empty assets without checks"}
    rows = {one["figures"]["rows"] for one in found["stream"]["tables"][-1]["measured"]}
    assert rows == {4_200}
