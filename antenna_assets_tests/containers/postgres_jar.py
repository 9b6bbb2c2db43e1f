"""PostgreSQL with TLS, which the embedded one lacks, in a lock of its own: run as a module, this writes it."""

import platform
import sys
from pathlib import Path

from antenna_assets.stack.jars import JarsError, ensure, resolve, write_lock

_LOCK = Path(__file__).with_name("postgres_jar.lock.toml")
# Each is the archive of one kind of machine.
_ROOT = "io.zonky.test.postgres:embedded-postgres-binaries-{}:18.6.0"
_MACHINES = ("linux-amd64", "linux-arm64v8", "darwin-amd64", "darwin-arm64v8")


def postgres_archive() -> Path:
    """PostgreSQL's programs with TLS for this machine: a jar with a compressed tar archive in it.

    Raises:
        JarsError: it could not be had, or there is none for this machine.
    """
    processor = {"x86_64": "amd64", "aarch64": "arm64v8", "arm64": "arm64v8"}.get(platform.machine())
    machine = f"{sys.platform}-{processor}"
    if machine not in _MACHINES:
        raise JarsError(f"expected one of the machines {', '.join(_MACHINES)}, found {machine}")
    return ensure(f"postgres-{machine}", lock=_LOCK)[0]


if __name__ == "__main__":
    write_lock(_LOCK, {f"postgres-{machine}": resolve(_ROOT.format(machine)) for machine in _MACHINES})
