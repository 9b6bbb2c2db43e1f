"""A server of the tests in a process of its own, on a free port of 127.0.0.1."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from antenna_assets.stack.ports import is_open
from antenna_assets_tests.free_ports import free_port


@contextmanager
def listening(arguments: Callable[[int], list[str]]) -> Iterator[str]:
    """The address of a Python program that listens on the port which its arguments are made for; killed after the block."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, *arguments(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 60
        while not is_open("127.0.0.1", port, 1):
            assert server.poll() is None, "the server ended before it listened"
            assert time.monotonic() < end, "the server does not listen"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()
