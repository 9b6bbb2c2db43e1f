"""`antenna alerts deliver`: a worker for each channel, so that none waits for another's receiver.

Recovery, for an operator:

- **Prepared.** Nothing. What is owed is in PostgreSQL, and this process keeps nothing.
- **After a crash.** Start it again, here or elsewhere. A notice that was sent and not recorded is sent again
  with the same id: at least once, never zero times.
- **Several at once.** Each takes what no other has locked. The lock is that of a transaction, which lasts as
  long as the attempt and ends with its process.
- **PostgreSQL away.** Waits and resumes, at most 30 s after it is back.

Due deliveries are looked for once a second. NOTIFY would be heard sooner, but not through a pooler nor across
a failover, and back-off needs the clock in any case; the look is one probe of an index.
"""

import threading
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from datetime import datetime
from pathlib import Path

import psycopg

from antenna_assets.clients.clock import database_now
from antenna_assets.failpoints import commit_point
from antenna_assets.operations.alerts.channels import Channel
from antenna_assets.operations.alerts.deliveries import Due, record, record_channels, take
from antenna_assets.operations.alerts.outcome import Next, Notice, Outcome, failed
from antenna_assets.operations.alerts.resuming import Waiting, open_connection, resuming
from antenna_assets.operations.alerts.senders import Sender

LOOK_SECONDS = 1.0


class Deliverer:
    """Sends what is due.

    Args:
        say: takes one line of progress.
        stop: set it to stop after the attempts in progress.
    """

    def __init__(
        self,
        postgres_url: str,
        channels: Mapping[str, Channel],
        senders: Mapping[str, Sender],
        *,
        say: Callable[[str], None],
        stop: threading.Event,
    ) -> None:
        self._url = postgres_url
        self._channels = channels
        self._senders = senders
        self._say = say
        self._stop = stop
        self._waiting = Waiting(say)

    def once(self) -> int:
        """Attempt everything that is due now; returns how many attempts failed.

        Raises:
            DatabaseError, psycopg.Error: PostgreSQL is away; what was recorded until then is kept.
        """
        with open_connection(self._url, "start") as connection:
            record_channels(connection, self._channels)
            now = database_now(connection)

        def all_due(channel: str) -> int:
            failures = 0
            with open_connection(self._url, channel) as connection:
                while not self._stop.is_set():
                    following = self._attempt(connection, channel, until=now)
                    if following is None:
                        break
                    failures += following.state != "delivered"
            return failures

        return self._in_all_channels(all_due)

    def run(self) -> None:
        """Send until stopped.

        Raises:
            DatabaseUnfit, psycopg.Error: what waiting cannot repair.
        """
        resuming(self._record_channels, self._waiting, self._stop)
        if not self._stop.is_set():
            self._say(f"sending to {', '.join(self._channels)}")
            self._in_all_channels(self._send)

    def _record_channels(self) -> None:
        with open_connection(self._url, "start") as connection:
            record_channels(connection, self._channels)

    def _send(self, channel: str) -> int:
        """Send what is due to one channel, until stopped."""

        def send() -> None:
            with open_connection(self._url, channel) as connection:
                while not self._stop.is_set():
                    following = self._attempt(connection, channel)
                    self._waiting.ended()
                    if following is None:
                        self._stop.wait(LOOK_SECONDS)

        resuming(send, self._waiting, self._stop)
        return 0

    def _attempt(
        self, connection: psycopg.Connection, channel: str, *, until: datetime | None = None
    ) -> Next | None:
        """Make one attempt at what is due next; None if nothing is."""
        with connection.transaction():
            due = take(connection, channel, until=until)
            if due is None:
                return None
            commit_point("alerts.taken")
            outcome = _sent(self._senders[channel], due.notice)
            # Dying here sends it twice.
            commit_point("alerts.sent")
            following = record(connection, channel, due, outcome)
        self._tell(channel, due, outcome, following)
        return following

    def _tell(self, channel: str, due: Due, outcome: Outcome, following: Next) -> None:
        if following.state == "delivered":
            if outcome.error:
                self._say(f"{channel}: {due.notice.id} was sent, but {outcome.error}")
            return
        if following.state == "dead":
            rest = f"given up; `antenna alerts retry {due.notice.id}` tries it again"
        else:
            rest = f"next attempt in {following.wait.total_seconds():.0f} s"
        self._say(f"{channel}: {due.notice.id}: attempt {due.attempts + 1}: {outcome.error}; {rest}")

    def _in_all_channels(self, work: Callable[[str], int]) -> int:
        """Do each channel's work in a thread of its own; returns the sum. An error of one stops all."""
        with ThreadPoolExecutor(len(self._channels), thread_name_prefix="alerts") as pool:
            futures = [pool.submit(work, channel) for channel in self._channels]
            wait(futures, return_when=FIRST_EXCEPTION)
            if not all(future.done() for future in futures):
                self._stop.set()
            return sum(future.result() for future in futures)


def _sent(sender: Sender, notice: Notice) -> Outcome:
    """One attempt. An error that nobody thought of is this attempt's: it ends neither the other channels nor
    this process, which would meet it again after each start."""
    try:
        return sender.send(notice)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}, line {place.lineno}"
        # Without its text, which may repeat a secret or the body.
        return failed(f"unexpected error {type(error).__name__} in {where}; please report it")
