"""Whether an embedded service's process is alive, and waiting until it has ended."""

import time

import psutil

_LOOK_SECONDS = 0.02


def is_alive(process: psutil.Process) -> bool:
    """Whether the process still runs: neither gone, nor a zombie, nor another one with its pid."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def ended_within(process: psutil.Process, seconds: float) -> bool:
    """Wait until the process has ended. False if it is still alive after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not is_alive(process):
            return True
        time.sleep(_LOOK_SECONDS)
    return False
