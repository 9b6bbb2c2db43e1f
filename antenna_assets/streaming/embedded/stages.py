"""Stages that work side by side, each in a thread of its own, and hand one thing at a time to the next."""

import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Abandoned(Exception):
    """The next stage has failed, so nothing more is handed to it."""


class Handover(Generic[T]):
    """Between two stages: whoever gives waits until the other one takes, so nothing queues up in memory."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._given: list[T] = []
        self._takers = 0
        self._complete = False
        self._abandoned = False

    @property
    def is_wanted(self) -> bool:
        """Whether the next stage waits for something."""
        with self._changed:
            return self._takers > 0

    def give(self, thing: T) -> None:
        """Hand something over; returns once the next stage has taken it.

        Raises:
            Abandoned: it takes nothing more.
        """
        with self._changed:
            if not self._abandoned:
                self._given.append(thing)
                self._changed.notify_all()
                self._changed.wait_for(lambda: not self._given or self._abandoned)
            if self._abandoned:
                self._given.clear()
                raise Abandoned

    def complete(self) -> None:
        """Say that nothing more will be given."""
        with self._changed:
            self._complete = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Take nothing more."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        """What is given, in order, until it is complete."""
        while True:
            with self._changed:
                self._takers += 1
                try:
                    self._changed.wait_for(lambda: self._given or self._complete)
                finally:
                    self._takers -= 1
                if not self._given:
                    return
                thing = self._given.pop()
                self._changed.notify_all()
            yield thing


class Stages:
    """Threads that end together: after the first failure no stage begins with anything new.

    Attributes:
        failure: the first error of a stage; None if there is none.
    """

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self.failure: BaseException | None = None

    def start(
        self,
        name: str,
        work: Callable[[], None],
        *,
        takes: Handover | None = None,
        gives: Handover | None = None,
    ) -> None:
        """Run a stage in a thread. However it ends, the one before gives nothing more, and the next one ends
        with what it was given."""

        def run() -> None:
            try:
                work()
            except Abandoned:
                pass
            except BaseException as error:
                with self._lock:
                    self.failure = self.failure or error
            finally:
                if takes is not None:
                    takes.abandon()
                if gives is not None:
                    gives.complete()

        thread = threading.Thread(target=run, name=name)
        self._threads.append(thread)
        thread.start()

    @property
    def are_running(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def join(self) -> None:
        """Wait until every stage has ended."""
        for thread in self._threads:
            thread.join()
