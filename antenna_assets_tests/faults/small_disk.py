"""A disk of a few megabytes that can be filled: a tmpfs that only one process and its children see.

The process mounts it in a mount namespace of its own, so the disk is gone when the process is, however that ends.
From outside the disk is seen below `/proc/<process>/root`; what resolves symbolic links on its way, as deltalake
and Hadoop do, has to run inside.
"""

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["antenna_assets_tests.faults.publish"])

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_CHUNK = 64 * 2**10


class SmallDisk:
    """The disk, and calls that are made inside.

    Attributes:
        path: where it is mounted, for those inside.
        outside: the same place for all others.
    """

    def __init__(self, path: Path, megabytes: int) -> None:
        path.mkdir()
        self.path = path
        self._connection, theirs = _PROCESSES.Pipe()
        self._process = _PROCESSES.Process(target=_serve, args=(theirs, str(path), megabytes), daemon=True)
        self._process.start()
        theirs.close()
        ready = self._connection.recv()
        if isinstance(ready, BaseException):
            self.close()
            raise AssertionError(
                f"expected to mount a small disk in a namespace of a process's own, found: {ready}; run the tests as root, "
                "or on a system that lets you make user namespaces (as `unshare --user --mount true` does)"
            ) from ready
        self.outside = Path(f"/proc/{self._process.pid}/root{path}")

    def call(self, what: Callable[..., Any], *arguments: object) -> Any:
        """Call a function of a module inside; what it raises fails the test."""
        self._connection.send((what, arguments))
        succeeded, found = self._connection.recv()
        if not succeeded:
            raise AssertionError(f"inside the small disk: {found}")
        return found

    @contextmanager
    def running(self, module: tuple[str, ...], environment: dict[str, str], log: Path) -> Iterator[None]:
        """A module of this project that runs inside until the block ends, and then ends well by SIGTERM."""
        self.call(_start, module, environment, str(log))
        try:
            yield
        finally:
            code = self.call(_stop)
        assert code == 0, log.read_text()

    def fill(self, leaving: int = 0) -> None:
        """Leave so many bytes, of whole pages, free."""
        free = os.statvfs(self.outside)
        left = free.f_bavail * free.f_frsize - leaving
        with (self.outside / "filler").open("ab", buffering=0) as filler:
            while left > 0:
                left -= filler.write(bytes(min(left, _CHUNK)))

    def give_back(self) -> None:
        """Remove what `fill` has written."""
        (self.outside / "filler").unlink()

    def close(self) -> None:
        """End the process, and the disk with it."""
        self._connection.close()
        self._process.join(20)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()
        self.path.rmdir()


@contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[SmallDisk]:
    """A small disk at a path that is not there yet."""
    disk = SmallDisk(path, megabytes)
    try:
        yield disk
    finally:
        disk.close()


def _serve(connection: Connection, path: str, megabytes: int) -> None:
    everybodys = _namespace(os.getpid())
    try:
        _enter_namespace()
        _libc("mount", None, b"/", None, _MS_REC | _MS_PRIVATE, None)
        _libc("mount", b"tmpfs", path.encode(), b"tmpfs", 0, f"size={megabytes}m".encode())
    except OSError as error:
        connection.send(error)
        return
    connection.send("ready")
    while True:
        try:
            what, arguments = connection.recv()
        except EOFError:
            _stop()
            _end_what_is_inside(everybodys)
            return
        try:
            connection.send((True, what(*arguments)))
        except Exception:
            # Not every error can be sent.
            connection.send((False, traceback.format_exc()))


_started: list[subprocess.Popen[bytes]] = []


def _start(module: tuple[str, ...], environment: dict[str, str], log: str) -> None:
    with Path(log).open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    _started.append(process)


def _stop() -> int | None:
    """End what was started; the exit code of the last of them."""
    code = None
    while _started:
        process = _started.pop()
        process.terminate()
        try:
            code = process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
    return code


def _namespace(process: int) -> str:
    return str(Path(f"/proc/{process}/ns/mnt").readlink())


def _end_what_is_inside(everybodys: str) -> None:
    """Kill what is left in this namespace: a server that nobody stopped, if the tests themselves were killed."""
    ours = _namespace(os.getpid())
    if ours == everybodys:
        return
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            if process.pid != os.getpid() and _namespace(process.pid) == ours:
                process.kill()


def _enter_namespace() -> None:
    if os.geteuid() == 0:
        _libc("unshare", _CLONE_NEWNS)
        return
    user, group = os.geteuid(), os.getegid()
    _libc("unshare", _CLONE_NEWUSER | _CLONE_NEWNS)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def _libc(name: str, *arguments: object) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
