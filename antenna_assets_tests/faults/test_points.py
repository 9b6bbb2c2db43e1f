"""Every commit point in the code has a fault test; a wrong name in the setting is told with the right ones."""

import ast
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import antenna_assets
from antenna_assets import failpoints as crash
from antenna_assets.failpoints import require_known
from antenna_assets.settings import SettingsError, load_settings
from antenna_assets_tests import (
    test_alerts_deliver,
    test_forget,
    test_lake_identity,
    test_old_previews,
    test_rebuild,
)
from antenna_assets_tests.faults import (
    test_alerts_killed,
    test_merge_crashes,
    test_period_crashes,
    test_publication_crashes,
    test_stream_crashes,
    test_up_crashes,
)


def test_every_point_in_the_code_has_a_fault_test() -> None:
    tests = (
        test_stream_crashes,
        test_merge_crashes,
        test_publication_crashes,
        test_period_crashes,
        test_up_crashes,
        test_forget,
        test_lake_identity,
        test_rebuild,
        test_old_previews,
        test_alerts_deliver,
        test_alerts_killed,
    )
    tested = {point for of in tests for point in of.POINTS}
    assert tested == crash.POINTS


def test_the_points_are_those_that_the_code_names() -> None:
    root = Path(antenna_assets.__file__).parent
    named = [
        call.args[0].value
        for path in root.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id in ("commit_point", "task_point")
    ]
    assert sorted(named) == sorted(crash.POINTS)


def test_a_point_that_is_not_there_is_named_with_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTENNA_CRASH_AT", "stream.commit")
    with pytest.raises(
        SettingsError, match="stream.commit is no commit point; known are .*stream.commit.live"
    ):
        require_known()


def test_a_command_refuses_a_wrong_point_before_it_does_anything() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "antenna_assets.cli", "down"],
        env={**os.environ, "ANTENNA_CRASH_AT": "stream.commit"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ANTENNA_CRASH_AT: stream.commit is no commit point")


@pytest.mark.parametrize(
    ("text", "crash_"),
    [
        ("stream.commit.live", crash.Crash("stream.commit.live")),
        ("stream.commit.live:2", crash.Crash("stream.commit.live", 2)),
        ("stream.commit.live:java", crash.Crash("stream.commit.live", 1, "java")),
        ("stream.commit.live:3:pause", crash.Crash("stream.commit.live", 3, "pause")),
    ],
)
def test_a_fault_is_a_point_a_passage_and_who_dies(text: str, crash_: crash.Crash) -> None:
    assert crash.parse(text) == crash_


_PAUSED_IN_A_THREAD = """
import os
import threading
from antenna_assets.failpoints import commit_point

def reach():
    begin.wait()
    commit_point('stream.commit.live')
    print('woken', flush=True)

begin = threading.Event()
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
thread = threading.Thread(target=reach)
thread.start()
# A signal that is sent to the process waits for this thread, which waits for the processor.
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
begin.set()
thread.join()
"""


def test_a_process_pauses_where_a_thread_reached_the_point_and_goes_on_when_it_is_woken() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _PAUSED_IN_A_THREAD],
        env={**os.environ, "ANTENNA_CRASH_AT": "stream.commit.live:pause"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        assert select.select([process.stdout], [], [], 0) == ([], [], [])
        process.send_signal(signal.SIGCONT)
        # Not its end: its main thread gets no processor beside busy ones.
        assert process.stdout.readline() == "woken\n"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(autouse=True)
def _read_the_environment_again() -> Iterator[None]:
    crash._armed.cache_clear()
    yield
    crash._armed.cache_clear()


@pytest.mark.parametrize("passage", ["0", "x", "-1", "2:x", "java:2"])
def test_a_passage_is_counted_from_1(monkeypatch: pytest.MonkeyPatch, passage: str) -> None:
    monkeypatch.setenv("ANTENNA_CRASH_AT", f"stream.commit.live:{passage}")
    with pytest.raises(SettingsError, match="expected a passage such as stream.commit.live:2"):
        require_known()


def test_a_fault_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTENNA_CRASH_AT", "stream.commit.live:2")
    settings = load_settings()
    assert settings.crash_at == "stream.commit.live:2"
    assert "ANTENNA_CRASH_AT" not in settings.exports()


def test_the_process_dies_at_the_passage_that_was_named_and_not_before() -> None:
    code = (
        "from antenna_assets.failpoints import commit_point\n"
        "for number in range(3):\n"
        "    commit_point('stream.commit.live')\n"
        "    commit_point('stream.commit.before')\n"
        "    import sys; sys.stdout.write(str(number)); sys.stdout.flush()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ANTENNA_CRASH_AT": "stream.commit.live:3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "01")


def test_nothing_happens_where_nothing_is_named() -> None:
    crash.commit_point("stream.commit.live")
