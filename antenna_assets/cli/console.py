"""The console: results on stdout, progress and errors on stderr, and the signals that stop a command."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress

# Without emoji: `:fire:` in an app's name stays what it is.
out = Console(highlight=False, emoji=False)


err = Console(stderr=True, highlight=False, emoji=False)


def say(line: str) -> None:
    """One line of progress, with the time in UTC."""
    err.print(f"[dim]{datetime.now(UTC):%H:%M:%S}[/dim] {escape(line)}", soft_wrap=True)


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set; a second Ctrl-C ends the process at once."""
    stop = threading.Event()

    def handle(number: int, _frame: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere; the function it gives is told how much is done."""
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=err, transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.update(task, completed=done)
