"""Faults at commit points without a process of one's own: what runs dies there, or is held until it is let go.

Dying is an exception, in milliseconds: transactions roll back and files stay, as after a SIGKILL. Dagster catches it and
goes on to the next asset, so each later point raises it again: nothing is committed past one.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from antenna_assets import failpoints as crash


class Died(BaseException):
    """The process that a test has in mind is dead."""


@dataclass
class _Fault:
    point: str
    passage: int
    act: Callable[[], None]
    dead: bool = False

    def die(self) -> None:
        self.dead = True


class Faults:
    """Takes the place of `ANTENNA_CRASH_AT` for as long as the patch lasts, for each thread on its own."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.deaths = 0
        self._of_thread: dict[int, _Fault] = {}
        patch.setattr(crash, "_reached", self._reached)

    def _reached(self, name: str) -> None:
        fault = self._of_thread.get(threading.get_ident())
        if fault is not None and fault.point == name:
            fault.passage -= 1
            if fault.passage == 0:
                fault.act()
        if fault is not None and fault.dead:
            raise Died

    def arm(self, point: str, passage: int, act: Callable[[], None]) -> None:
        """Act at the point's passage in this thread."""
        self._of_thread[threading.get_ident()] = _Fault(point, passage, act)

    def disarm(self) -> None:
        """No fault in this thread any more."""
        self._of_thread.pop(threading.get_ident(), None)

    @contextmanager
    def dying(self, death: tuple[str, int] | None) -> Iterator[_Fault]:
        """What is in the block dies at the point's passage, if it gets there; then the fault is `dead`."""
        fault = _Fault(*(death or ("", 0)), act=lambda: None)
        fault.act = fault.die
        self._of_thread[threading.get_ident()] = fault
        try:
            yield fault
        except Died:
            pass
        finally:
            self.disarm()
            self.deaths += fault.dead


class Held:
    """Something that runs in a thread and stops at a point until it is let go."""

    def __init__(self, faults: Faults, point: str, passage: int, what: Callable[[], None]) -> None:
        self._stopped_or_done = threading.Event()
        self._go = threading.Event()
        self._error: BaseException | None = None

        def hold() -> None:
            self._stopped_or_done.set()
            assert self._go.wait(60)

        def run() -> None:
            faults.arm(point, passage, hold)
            try:
                what()
            except BaseException as error:
                self._error = error
            finally:
                faults.disarm()
                self._stopped_or_done.set()

        self._thread = threading.Thread(target=run, name=f"held at {point}")
        self._thread.start()
        assert self._stopped_or_done.wait(60)

    def let_go(self) -> BaseException | None:
        """Wake it and wait for its end; the exception that it ended with."""
        self._go.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self._error
