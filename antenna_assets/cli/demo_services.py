"""`antenna demo --serve`: live events, the stream, alerts, a daily sweep and Dagster, until stopped."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from antenna_assets.cli.demo import ADDRESS, DemoFailed
from antenna_assets.cli.demo_alerts import local_receiver
from antenna_assets.settings import Settings
from antenna_assets.simulator.run import send_live
from antenna_assets.simulator.send import Sent, Target
from antenna_assets.stack.services import services
from antenna_assets.stack.start import environment
from antenna_assets.storage.project_files import workspace_file

EVENTS_PER_SECOND = 200
_STOP_SECONDS = 60

Processes = Mapping[str, "subprocess.Popen[bytes]"]


def serve_demo(
    settings: Settings, *, out: Console, say: Callable[[str], None], stop: threading.Event
) -> None:
    """Run live events, the stream, alerts, a daily sweep and Dagster until `stop` is set, then end them all.

    Notices go to this terminal, or where `ANTENNA_ALERT_CHANNELS` says.

    Raises:
        DemoFailed: one of the processes, or the simulator, ended before.
    """
    running = services(settings)
    target = Target(running.kafka_bootstrap, settings.topic, running.kafka_config)
    logs = settings.home / "logs"
    with (
        ThreadPoolExecutor(1) as pool,
        _channels(settings, running.postgres_url, say) as channels,
        _processes(settings, logs, channels) as processes,
    ):
        sender = pool.submit(send_live, target, rate=EVENTS_PER_SECOND, stop=stop)
        try:
            out.print(
                f"Dagster: http://{ADDRESS[0]}:{ADDRESS[1]} (Ctrl-C stops it, the stream, alerts and events)"
            )
            say(f"{EVENTS_PER_SECOND} events per second; logs in {logs}")
            if channels is not None and settings.alert_channels is None:
                say("notices of alerts are shown here, the first ones after some minutes of events")
            while not stop.wait(1):
                _require_running(sender, processes, logs)
        finally:
            stop.set()


@contextmanager
def _channels(settings: Settings, postgres_url: str, say: Callable[[str], None]) -> Iterator[Path | None]:
    """The file of channels; None if nothing is to be sent."""
    if settings.alert_channels is not None:
        yield settings.alert_channels
        return
    with local_receiver(postgres_url, say) as file:
        yield file


def _commands() -> dict[str, list[str]]:
    antenna = (sys.executable, "-m", "antenna_assets.cli")
    host, port = ADDRESS
    dagster = str(Path(sys.executable).with_name("dagster"))
    return {
        "stream": [*antenna, "stream"],
        "watch": [*antenna, "alerts", "watch"],
        "deliver": [*antenna, "alerts", "deliver"],
        "sweep": [*antenna, "sweep", "--every", "1 day"],
        "dagster": [
            dagster,
            "dev",
            "--workspace",
            str(workspace_file()),
            "--host",
            host,
            "--port",
            str(port),
        ],
    }


@contextmanager
def _processes(settings: Settings, logs: Path, channels: Path | None) -> Iterator[Processes]:
    logs.mkdir(parents=True, exist_ok=True)
    variables = {**os.environ, **environment(settings)}
    commands = _commands()
    if channels is None:
        del commands["deliver"]
    else:
        variables["ANTENNA_ALERT_CHANNELS"] = str(channels)
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, command in commands.items():
            with (logs / f"{name}.log").open("ab") as log:
                processes[name] = subprocess.Popen(command, stdout=log, stderr=log, env=variables)
        yield processes
    finally:
        _terminate(processes.values())


def _require_running(sender: "Future[Sent]", processes: Processes, logs: Path) -> None:
    if sender.done():
        raise DemoFailed(f"the simulator ended: {sender.exception()}")
    for name, process in processes.items():
        if process.poll() is not None:
            raise DemoFailed(f"{name} ended with exit code {process.returncode}; see {logs / name}.log")


def _terminate(processes: Iterable["subprocess.Popen[bytes]"]) -> None:
    """Ask all processes to stop, then wait for each: they end their own children."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
