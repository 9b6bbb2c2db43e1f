"""proofs.md, row 20: whatever is given as an hour, only canonical keys of closed hours write anything."""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as profile
from hypothesis import strategies as st
from typer.testing import CliRunner

from antenna_assets.cli import app
from antenna_assets.clients.postgres import connect
from antenna_assets.definitions import build_definitions
from antenna_assets.domain.schema import ASSETS, HOURLY_TABLES
from antenna_assets.errors import AntennaError
from antenna_assets.settings import Settings
from antenna_assets_tests.end_to_end.runs import EXECUTE
from antenna_assets_tests.faults.plain_stream import read_everything
from antenna_assets_tests.faults.runs import send

pytestmark = pytest.mark.services

HOUR = timedelta(hours=1)
CANONICAL = "%Y-%m-%d-%H:%M"
EXAMPLES = 50
PROVING_SECONDS = 100.0


class Lakehouse:
    """Two closed hours of events, and what was ever written of any hour."""

    def __init__(self, settings: Settings, first: datetime) -> None:
        self.settings = settings
        self.closed = [first, first + HOUR]

    def written(self) -> dict[str, object]:
        """The rows of every table that a publication writes, and Delta's logs. Sealing is writing, too."""
        tables = ["hour_generation", "publication", "publication_head", "certificate"]
        found: dict[str, object] = {}
        with connect(self.settings.postgres_url or "") as connection:
            for name in (*(f"ledger.{table}" for table in tables), *HOURLY_TABLES):
                rows = connection.execute(f"SELECT t::text FROM {name} AS t".encode()).fetchall()  # noqa: S608
                found[name] = sorted(rows)
        found["files"] = sorted(map(str, Path(self.settings.lake_uri).rglob("*")))
        return found

    def published(self, hour: datetime) -> int:
        """How many publications of the hour there are."""
        query = "SELECT count(*) FROM ledger.publication WHERE hour = %s"
        with connect(self.settings.postgres_url or "") as connection:
            return connection.execute(query, [hour]).fetchall()[0][0]


@pytest.fixture
def lakehouse(settings: Settings, tmp_path: Path) -> Lakehouse:
    first = send(settings, tmp_path / "answers.json", events=100, hours=2)
    read_everything(settings)
    return Lakehouse(settings, first)


@pytest.fixture
def dagster() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def run(dagster: dg.DagsterInstance, tags: dict[str, str]) -> bool:
    """Whether the job succeeds; a refusal before it runs counts as no."""
    job = build_definitions().resolve_job_def("hourly_usage")
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    try:
        return job.execute_in_process(
            instance=dagster, tags=tags, run_config=quiet, raise_on_error=False
        ).success
    except (dg.DagsterError, AntennaError, ValueError):
        return False


def written_by_hand(closed: datetime) -> st.SearchStrategy[str]:
    """Ways to write a closed hour that are not its key, and keys of hours that are not closed."""
    key = f"{closed:{CANONICAL}}"
    present = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    formats = [
        "%Y-%m-%d-%H:30", "%Y-%m-%d-%H:01", "%Y-%m-%d-%H:59", "%Y-%m-%d-%H:60", "%Y-%m-%d-%H", "%Y-%m-%d",
        "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y/%m/%d-%H:%M", "%Y-%m-%d-%H.%M", "%Y-%m-%d-%H%M", "%Y%m%d%H",
        "%Y-%m-%d-%H:%M:%S", "%Y-%m-%d-%H:%MZ", "%Y-%m-%d-%H:%M+00:00", "%Y-%m-%d-%H:%M UTC", "%y-%m-%d-%H:%M",
        "%d-%m-%Y-%H:%M", "%Y-%m-%d-%I:%M %p", "%Y-%m-%d-24:00", "%Y-02-30-%H:%M", "%Y-13-%d-%H:%M", "+%Y-%m-%d-%H:%M",
    ]  # fmt: skip
    single_digits = [
        f"{closed.year}-{closed.month}-{closed.day}-{closed.hour}:0",
        f"{closed:%Y-%m-%d-%H}:0",
        f"{closed.year}-{closed.month:02}-{closed.day:02}-{closed.hour:3}:00",
    ]
    digits = [key.translate({ord("0") + n: zero + n for n in range(10)}) for zero in (0x660, 0xFF10, 0x966)]
    not_closed = [present, present + HOUR, present + timedelta(days=1), present + timedelta(days=4000)]
    not_closed += [closed - HOUR, closed - timedelta(days=30), datetime(2025, 12, 31, 23, tzinfo=UTC)]
    not_closed += [datetime(1970, 1, 1, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC)]
    around = st.sampled_from(
        [" ", "\t", "\n", "\u00a0", "\u200b", "x", "'", ";", ",", "/", "...", "0", "[dagster]"]
    )
    replaced = st.tuples(st.integers(0, len(key) - 1), st.characters(codec="utf-8"))
    return st.one_of(
        st.sampled_from([closed.strftime(text) for text in formats]),
        st.sampled_from([*single_digits, *digits]),
        st.sampled_from([f"{hour:{CANONICAL}}" for hour in not_closed]),
        st.sampled_from(["", " ", "None", "null", "*", "latest", "-", ":", "0", key * 2, f"{key},{key}", f"{key}...{key}"]),
        around.map(lambda text: key + text),
        around.map(lambda text: text + key),
        replaced.map(lambda at: key[: at[0]] + at[1] + key[at[0] + 1 :]).filter(lambda text: text != key),
        st.text(max_size=20),
    )  # fmt: skip


def tags_of(closed: list[datetime]) -> st.SearchStrategy[dict[str, str]]:
    """Tags of which no hour may come: a wrong key, or a range with one, reversed, or across hours that are not closed."""
    keys = [f"{hour:{CANONICAL}}" for hour in closed]
    good = st.sampled_from(keys)
    # A character that is replaced can make another closed hour's key.
    wrong = st.sampled_from(closed).flatmap(written_by_hand).filter(lambda key: key not in keys)
    # Dagster itself lists every hour of a range before a run begins: over centuries that takes minutes.
    near = wrong.filter(lambda key: is_near(key, closed[0]))
    ranges = st.one_of(
        st.tuples(good, near), st.tuples(near, good), st.tuples(near, near), st.just((keys[1], keys[0]))
    )
    return st.one_of(
        wrong.map(lambda key: {"dagster/partition": key}),
        ranges.map(
            lambda ends: {
                "dagster/asset_partition_range_start": ends[0],
                "dagster/asset_partition_range_end": ends[1],
            }
        ),
    )


def is_near(key: str, hour: datetime) -> bool:
    """Whether Dagster takes the text for no hour, or for one within some weeks."""
    try:
        return abs(datetime.strptime(key, CANONICAL).replace(tzinfo=UTC) - hour) < timedelta(days=60)
    except ValueError:
        return True


def test_row_20_no_key_but_that_of_a_closed_hour_writes_anything(
    lakehouse: Lakehouse,
    dagster: dg.DagsterInstance,
    proving: bool,
    record_property: Callable[[str, object], None],
) -> None:
    before = lakehouse.written()
    tried: list[dict[str, str]] = []
    wrote: list[dict[str, str]] = []

    @profile(
        max_examples=EXAMPLES,
        derandomize=not proving,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(tags_of(lakehouse.closed))
    def refuse(tags: dict[str, str]) -> None:
        tried.append(tags)
        succeeded = run(dagster, tags)
        if lakehouse.written() != before:
            wrote.append(tags)
        assert not succeeded, f"the job succeeded for {tags}"
        assert not wrote

    begun = time.monotonic()
    while True:
        refuse()
        if not proving or time.monotonic() - begun > PROVING_SECONDS:
            break
    assert len(tried) >= EXAMPLES
    for hour in lakehouse.closed:
        assert run(dagster, {"dagster/partition": f"{hour:{CANONICAL}}"})
        assert lakehouse.published(hour) == len(ASSETS)
    record_property("wrong keys and ranges tried", len(tried))
    record_property("wrong keys and ranges that wrote something", len(wrote))


def test_row_20_the_command_line_of_dagster_refuses_them_too(lakehouse: Lakehouse, proving: bool) -> None:
    closed = [f"{hour:{CANONICAL}}" for hour in lakehouse.closed]
    wrong = [
        {"dagster/asset_partition_range_start": closed[1], "dagster/asset_partition_range_end": closed[0]},
        {"dagster/partition": closed[0][:-2] + "30"},
        {"dagster/partition": closed[0] + "\n"},
        {"dagster/partition": ""},
        {"dagster/partition": f"{lakehouse.closed[0] - HOUR:{CANONICAL}}"},
    ]
    before = lakehouse.written()
    # Each takes as long as Dagster takes to start.
    for tags in wrong if proving else wrong[:1]:
        assert execute(lakehouse, tags) != 0, tags
        assert lakehouse.written() == before
    if not proving:
        return
    assert execute(lakehouse, {"dagster/partition": closed[0]}) == 0
    assert lakehouse.published(lakehouse.closed[0]) == len(ASSETS)


def execute(lakehouse: Lakehouse, tags: dict[str, str]) -> int:
    """The exit code of `dagster job execute`."""
    done = subprocess.run(
        (*EXECUTE, json.dumps(tags)),
        env={**os.environ, **lakehouse.settings.exports()},
        capture_output=True,
        check=False,
    )
    return done.returncode


def test_row_20_certificate_and_verify_name_a_wrong_key_and_change_nothing(
    lakehouse: Lakehouse, proving: bool, record_property: Callable[[str, object], None]
) -> None:
    before = lakehouse.written()
    closed = [f"{hour:{CANONICAL}}" for hour in lakehouse.closed]
    tried = 0

    @profile(
        max_examples=200 if proving else 50,
        derandomize=not proving,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.sampled_from(lakehouse.closed).flatmap(written_by_hand).filter(lambda key: key not in closed),
        st.sampled_from([["certificate", "--"], ["verify", "--from"], ["verify", "--to"]]),
    )
    def refuse(key: str, command: list[str]) -> None:
        nonlocal tried
        tried += 1
        result = CliRunner().invoke(app, [*command, key])
        canonical = False
        with contextlib.suppress(ValueError):
            hour = datetime.strptime(key, CANONICAL).replace(tzinfo=UTC)
            canonical = f"{hour:{CANONICAL}}" == key and not hour.minute
        if canonical and command[0] == "verify":
            # An hour like others, with nothing to verify.
            assert result.exit_code == 0, (key, result.output)
            return
        assert result.exit_code != 0, (command, key)
        # What `main` prints as one sentence; anything else would be a traceback.
        assert isinstance(result.exception, AntennaError), (command, key, result.exception)
        assert "expected an hour in UTC" in str(result.exception) or canonical, (command, key)

    refuse()
    assert lakehouse.written() == before
    record_property("wrong keys given to certificate and verify", tried)
