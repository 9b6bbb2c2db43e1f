"""Ports for services of the tests that cannot pick another one when theirs is taken."""

import os
import random

from antenna_assets.stack.ports import is_free

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
# Below those that the kernel gives to servers and connections; each worker has its own, and each run begins elsewhere.
_PORTS = range(12_000 + 4_000 * (_WORKER % 4), 16_000 + 4_000 * (_WORKER % 4))
_UNUSED = iter(random.SystemRandom().sample(_PORTS, len(_PORTS)))


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens, and which is given only once."""
    return next(port for port in _UNUSED if is_free(port))
