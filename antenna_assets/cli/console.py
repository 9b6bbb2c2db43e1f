"""The console: results on stdout, progress and errors on stderr, and the signals that stop a command."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress

# Without emoji: `:fire:` in the name of an app is shown as it is written.
out = Console(highlight=False, emoji=False)
err = Console(stderr=True, highlight=False, emoji=False)


def say(line: str) -> None:
    """Print one line of progress, with the time in UTC."""
    err.print(f"[dim]{datetime.now(UTC):%H:%M:%S}[/dim] {escape(line)}", soft_wrap=True)


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set. A second Ctrl-C interrupts at once."""
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
def progress_bar(title: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """Show a progress bar on a terminal. Yields a function that takes the amount done (and the total)."""
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(title, total=total)

        def advance(done: int, of: int | None = total) -> None:
            bar.update(task, completed=done, total=of)

        yield advance
