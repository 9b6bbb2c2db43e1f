"""From Kafka to facts with the lake in S3, as a user runs it, with both engines; exact after kills, and after the store was
away."""

import json
import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.hours import hour_key
from antenna_assets.domain.lifetimes import GRACE_PERIOD, SAFE_AGE
from antenna_assets.domain.schema import LAKE_TABLES
from antenna_assets.ledger.lake_identity import ID_FILE
from antenna_assets.operations.quarantine.messages import Selection, by_reason
from antenna_assets.operations.sweep.run import sweep
from antenna_assets.publishing.lake import Lake
from antenna_assets.settings import Settings
from antenna_assets.verify.run import verify
from antenna_assets_tests.commands import antenna
from antenna_assets_tests.end_to_end.runs import EXECUTE, instance, publish_what_the_sensor_asks_for
from antenna_assets_tests.exactness import assert_exact, assert_whole
from antenna_assets_tests.faults.live import committed, wait_until
from antenna_assets_tests.faults.plain_stream import read_everything
from antenna_assets_tests.faults.processes import Process
from antenna_assets_tests.faults.proxy import Proxy
from antenna_assets_tests.faults.publish import die, publish_hour
from antenna_assets_tests.faults.runs import LIVE_STREAM, PLAIN_STREAM, STREAM, crash, finish, run, send
from antenna_assets_tests.faults.test_publication_crashes import the_hour
from antenna_assets_tests.object_stores.conftest import Bucket
from antenna_assets_tests.object_stores.s3_server import environment, s3_server
from antenna_assets_tests.stream_engines import SPARK

pytestmark = pytest.mark.services

HOUR = timedelta(hours=1)


def said_by(*arguments: str) -> str:
    """What a command of the project says, which must succeed."""
    done = antenna(*arguments)
    assert done.returncode == 0, done
    return done.stdout


def execute(settings: Settings, hour: datetime, engine: str) -> None:
    """`dagster job execute` for an hour."""
    home = settings.home / "dagster"
    home.mkdir(exist_ok=True)
    more = {"DAGSTER_HOME": str(home), "ANTENNA_ENGINE": engine}
    tags = json.dumps({"dagster/partition": hour_key(hour)})
    done = subprocess.run(
        [*EXECUTE, tags], env={**os.environ, **settings.exports(), **more}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4_000:]


def named(settings: Settings, bucket: Bucket) -> set[str]:
    """The keys that the ledger or a version of a table names, and that of the lake's id."""
    prefix = settings.lake_uri.removeprefix(f"s3://{bucket.name}/")
    with connect(settings.postgres_url or "") as connection:
        found = {f"{prefix}/{path}" for (path,) in connection.execute("SELECT path FROM ledger.file")}
    lake = Lake(settings.lake_uri)
    return (
        {f"{prefix}/{ID_FILE}"}
        | found
        | {f"{prefix}/{table}/{path}" for table in LAKE_TABLES for path in lake.paths(table)}
    )


def unnamed(settings: Settings, bucket: Bucket) -> set[str]:
    """Objects that nothing needs, but for Delta's log."""
    return {key for key in bucket.objects() if "/_delta_log/" not in key} - named(settings, bucket)


def differences(settings: Settings) -> list[str]:
    with connect(settings.postgres_url or "") as connection:
        long_ago = datetime.now(UTC) - timedelta(days=35)
        found = verify(connection, Lake(settings.lake_uri), kept_since=long_ago)
    return [str(difference) for difference in found.differences]


@SPARK
@pytest.mark.timeout(900)
def test_both_engines_make_the_same_exact_hours_of_what_spark_landed(
    on_s3: Settings, bucket: Bucket, tmp_path: Path
) -> None:
    answers = tmp_path / "answers.json"
    first = send(on_s3, answers, events=3_000, hours=2)
    # Java dies in the middle of a write, and leaves objects that nothing names.
    run(on_s3, STREAM, crash_at="stream.jvm.task")
    assert assert_whole(on_s3) == 0
    finish(on_s3, STREAM)
    left = unnamed(on_s3, bucket)
    execute(on_s3, first, "duckdb")
    execute(on_s3, first + HOUR, "spark")
    assert_exact(on_s3, answers, published=True)
    assert differences(on_s3) == []
    assert unnamed(on_s3, bucket) == left
    said_by("doctor")

    # What was rejected is parsed and landed again.
    mend = tmp_path / "mend.py"
    mend.write_text(
        "def transform(value):\n"
        "    import json\n"
        f"    when = {int(first.timestamp()) + 60}\n"
        "    return json.dumps({'bytes': 7, 'timestamp': when, 'app': 'A', 'id': 'u', 'antenna_id': 'a'}).encode()\n"
    )
    with connect(on_s3.postgres_url or "") as connection:
        rejected = by_reason(connection, on_s3.lake_uri, Selection())
        count = sum(summary.messages for summary in rejected)
        assert count > 0
        # In a process of its own: it ends its Spark session.
        finish(on_s3, ("antenna_assets.cli", "quarantine", "replay", "--all", "--transform", str(mend)))
        assert by_reason(connection, on_s3.lake_uri, Selection()) == []
        ((replayed,),) = connection.execute("SELECT rows FROM ledger.batch WHERE kind = 'replay'").fetchall()
    assert replayed == count
    publish_hour(hour_key(first))
    assert differences(on_s3) == []

    # A user is forgotten in files that are replaced.
    user = "00000000-0000-0000-0000-000000000003"
    said_by("forget-user", user, "--yes")
    assert differences(on_s3) == []
    assert said_by("forget-user", user, "--yes").strip() == "the id is nowhere"

    # Objects of attempts that never committed go after a while, and nothing else.
    for key in ("landing/9-dead/hour=1/part-0.parquet", "landing/9-dead/", "scratch/1/users.parquet"):
        bucket.put(f"a/lake/{key}")
    # The stream is alive after them: what lands after its last sign of life may be another ledger's, and stays.
    with connect(on_s3.postgres_url or "") as connection:
        connection.execute("UPDATE ledger.head SET heartbeat_at = clock_timestamp() + interval '1 minute'")
    kept = named(on_s3, bucket)
    swept(on_s3, datetime.now(UTC) + SAFE_AGE + HOUR)
    assert unnamed(on_s3, bucket) == set()
    assert kept <= bucket.objects().keys()
    assert differences(on_s3) == []

    # Beyond the horizon the landed files are forgotten, and after the grace they are gone.
    later = datetime.now(UTC) + on_s3.horizon + 4 * HOUR
    swept(on_s3, later)
    swept(on_s3, later + GRACE_PERIOD)
    assert not [key for key in bucket.objects() if key.startswith("a/lake/landing/") and "hour=" in key]
    assert kept - bucket.objects().keys() == {key for key in kept if key.startswith("a/lake/landing/")}


def swept(settings: Settings, now: datetime) -> None:
    sweep(
        settings.postgres_url or "",
        settings.lake_uri,
        dagster_home=settings.home / "dagster",
        horizon=settings.horizon,
        now=now,
    )


STREAM_POINTS = (
    "stream.land.before_sync",
    "stream.commit.files",
    "stream.commit.last_statement",
    "stream.commit.committed",
    "stream.heartbeat.committed",
)


def test_a_stream_that_is_killed_anywhere_is_exact(on_s3: Settings, bucket: Bucket, tmp_path: Path) -> None:
    answers = tmp_path / "answers.json"
    for seed, point in enumerate(STREAM_POINTS):
        send(on_s3, answers, seed=seed, events=300)
        crash(on_s3, PLAIN_STREAM, point)
        assert_whole(on_s3)
    finish(on_s3, PLAIN_STREAM)
    assert_exact(on_s3, answers)
    # What the killed attempts left is litter, and all of it goes.
    assert unnamed(on_s3, bucket)
    swept(on_s3, datetime.now(UTC) + SAFE_AGE + HOUR)
    assert unnamed(on_s3, bucket) == set()
    assert_exact(on_s3, answers)


PUBLICATION_POINTS = (
    "publish.sealed",
    "publish.lake.files_written",
    "publish.lake.files_written:2",
    "publish.lake.committed",
    "publish.lake.committed:2",
    "publish.table.copied",
)


def test_an_hour_that_is_killed_anywhere_is_run_again_and_whole(
    on_s3: Settings, bucket: Bucket, tmp_path: Path
) -> None:
    answers = tmp_path / "answers.json"
    send(on_s3, answers, hours=1)
    read_everything(on_s3)
    for point in PUBLICATION_POINTS:
        die(on_s3, point, publish_hour, hour_key(the_hour(on_s3)))
    with instance() as dagster:
        assert publish_what_the_sensor_asks_for(dagster) >= 1
    assert_exact(on_s3, answers, published=True)
    assert differences(on_s3) == []
    swept(on_s3, datetime.now(UTC) + timedelta(days=8))
    assert unnamed(on_s3, bucket) == set()
    assert differences(on_s3) == []


@pytest.fixture
def cable(bucket: Bucket) -> Iterator[Proxy]:
    """A way to the store that can be cut; the stream's alone."""
    with Proxy(bucket.address) as proxy:
        yield proxy


@pytest.mark.timeout(900)
def test_a_stream_waits_for_a_store_that_is_away_and_goes_on_exact(
    on_s3: Settings, cable: Proxy, tmp_path: Path
) -> None:
    answers = tmp_path / "answers.json"
    send(on_s3, answers, seed=1, events=500)
    with Process(on_s3, LIVE_STREAM, AWS_ENDPOINT_URL=cable.url) as stream:
        wait_until(lambda: committed(on_s3) == 500)
        cable.cut()
        send(on_s3, answers, seed=2, events=500)
        wait_until(lambda: "waiting: " in stream.said, 300)
        assert stream.code is None
        assert_whole(on_s3)
        cable.mend()
        wait_until(lambda: committed(on_s3) == 1_000, 300)
        said = stream.said
    assert "Traceback" not in said
    assert "a-secret-key" not in said
    assert_exact(on_s3, answers)


def test_a_refused_login_is_told_by_each_command_without_the_secret(
    on_s3: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    import requests

    with s3_server() as address:
        # From now on, as Amazon does: only known keys are let in.
        requests.post(
            f"{address}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"}, timeout=10
        )
        for name, value in environment(address).items():
            monkeypatch.setenv(name, value)
        code, said = run(on_s3, STREAM)
        ended = [("stream", code, said)]
        for command in ("sweep", "verify", "doctor"):
            done = antenna(command)
            ended.append((command, done.returncode, done.stdout + done.stderr))
        for command, code, said in ended:
            assert code == 1, said
            assert (
                "The AWS Access Key Id you provided does not exist in our records"
                in " ".join(said.replace("│", " ").split())
                or command == "doctor"
            ), said
            assert "a-secret-key" not in said
            assert "Traceback" not in said
