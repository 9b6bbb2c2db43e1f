"""A module of this project in a process of its own: what it says, the Java that it starts, and killing either."""

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Literal

import psutil

from antenna_assets.settings import Settings

Whom = Literal["python", "java", "both"]


class Process:
    """Starts with `with`, and leaves nothing of itself behind at the end of the block.

    Args:
        module: the module's name and its arguments.
        extra: more environment variables.
    """

    def __init__(self, settings: Settings, module: tuple[str, ...], **extra: str) -> None:
        self._command = [sys.executable, "-m", *module]
        self._environment = {**os.environ, **settings.exports(), **extra}
        # Not a pipe: one that nobody reads stops the process when it is full.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        self._java: set[psutil.Process] = set()

    def __enter__(self) -> "Process":
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._watched = psutil.Process(self._process.pid)
        return self

    def __exit__(self, *_: object) -> None:
        self.java()
        for process in (self._process, *self._java):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        psutil.wait_procs(self._java, timeout=10)
        self._output.close()

    @property
    def said(self) -> str:
        """Everything it wrote so far."""
        return os.pread(self._output.fileno(), 1 << 20, 0).decode(errors="replace")

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    def java(self) -> list[psutil.Process]:
        """Its Java processes that live, also after itself."""
        with suppress(psutil.NoSuchProcess):
            self._java.update(c for c in self._watched.children(recursive=True) if c.name() == "java")
        return [process for process in self._java if process.is_running()]

    def wait(self, seconds: float) -> int:
        """Its exit code, as soon as it and its Java have ended."""
        while self.code is None and seconds > 0:
            self.java()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.5)
            seconds -= 0.5
        code = self.code
        assert code is not None, f"the process did not end in time: {self.said}"
        _, alive = psutil.wait_procs(self._java, timeout=20)
        assert not alive, f"Java outlived its Python by 20 s: {alive}"
        return code

    def kill(self, whom: Whom = "python") -> None:
        """SIGKILL; nothing is waited for. Java may not be there yet."""
        java = self.java()
        if whom != "java":
            self._process.kill()
        if whom != "python":
            for process in java:
                with suppress(psutil.NoSuchProcess):
                    process.kill()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """A signal to the whole group, as a terminal or a service manager sends it."""
        os.killpg(self._process.pid, number)

    def memory(self) -> tuple[int, int]:
        """Resident bytes of Python and of its Java."""
        return self._watched.memory_info().rss, sum(p.memory_info().rss for p in self.java())

    def peak(self) -> int:
        """The most resident bytes that Python ever had; 0 once it has ended."""
        with suppress(OSError):
            for line in Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8").splitlines():
                if line.startswith("VmHWM:"):
                    return 1024 * int(line.split()[1])
        return 0
