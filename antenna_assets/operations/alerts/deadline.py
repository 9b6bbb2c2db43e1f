"""A bound on the whole of an exchange. A socket's timeout bounds each wait alone: a server that sends a byte
now and then would hold its channel for ever."""

import socket
import threading
from contextlib import suppress
from datetime import timedelta


class Deadline:
    """Shuts the watched socket down when the time is over, so that whatever waits for it fails.

    Attributes:
        expired: whether it did.
    """

    def __init__(self, time: timedelta) -> None:
        self.expired = False
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._timer = threading.Timer(time.total_seconds(), self._expire)
        self._timer.daemon = True

    def __enter__(self) -> "Deadline":
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._timer.join()

    def watch(self, connection: socket.socket) -> None:
        """Watch this socket, and no longer another one."""
        with self._lock:
            self._socket = connection
        if self.expired:
            self._expire()

    def _expire(self) -> None:
        with self._lock:
            self.expired = True
            if self._socket is not None:
                # Not the method of a TLS socket, which would take its state from under the thread that reads.
                with suppress(OSError):
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
