"""A pooler as PgBouncer is one, in a few lines: clients get one of its sessions for a transaction, or for as long as they stay."""

import itertools
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

import psycopg

_READY, _IDLE, _TERMINATE = b"Z", b"I", b"X"
# A query, and the end of a group of messages: the server says when it is ready for more.
_ANSWERED = (b"Q", b"S")
# What a client asks for before it says who it is: encryption, of two kinds.
_ENCRYPTION = (80877103, 80877104)
_TOLD = {
    "server_version": "18.0",
    "server_encoding": "UTF8",
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
    "TimeZone": "UTC",
}


class Pooler:
    """A port on which sessions of a database are shared; a context manager.

    Args:
        url: where PostgreSQL is, and as whom it is entered.
        each_transaction: whether a client gives its session back after each transaction, or only when it leaves.
    """

    def __init__(self, url: str, *, each_transaction: bool) -> None:
        self._url = url
        self._each_transaction = each_transaction
        self._idle: list[psycopg.Connection] = []
        self._lock = threading.Lock()
        self._numbers = itertools.count(1_000_000)
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = urlunsplit(
            urlsplit(url)._replace(netloc=f"anybody@127.0.0.1:{self._listening.getsockname()[1]}")
        )

    def __enter__(self) -> "Pooler":
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        # A close alone leaves a thread in accept or recv where it is.
        for one in (self._listening, *self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join()
        for session in self._idle:
            session.close()

    def _start(self, what: object, *arguments: object) -> None:
        thread = threading.Thread(target=what, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets.append(client)
                self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError, EOFError), closing(client):
            self._welcome(client)
            asked = _message(client)
            while asked[0] != _TERMINATE:
                with self._session() as session, closing(_socket_of(session)) as server:
                    _transaction(client, server, asked)
                    if not self._each_transaction:
                        _send(client, _READY, _IDLE)
                        while (asked := _message(client))[0] != _TERMINATE:
                            _transaction(client, server, asked)
                            _send(client, _READY, _IDLE)
                        return
                # Once its session is given back, as with PgBouncer: who asks next may get it.
                _send(client, _READY, _IDLE)
                asked = _message(client)

    def _welcome(self, client: socket.socket) -> None:
        while True:
            (length, what) = struct.unpack("!II", _exactly(client, 8))
            _exactly(client, length - 8)
            if what not in _ENCRYPTION:
                break
            client.sendall(b"N")
        _send(client, b"R", struct.pack("!I", 0))
        for name, text in _TOLD.items():
            _send(client, b"S", f"{name}\0{text}\0".encode())
        # The number of a process that is no server's.
        _send(client, b"K", struct.pack("!II", next(self._numbers), 1))
        _send(client, _READY, _IDLE)

    @contextmanager
    def _session(self) -> Iterator[psycopg.Connection]:
        """The session that was used last, or a new one."""
        with self._lock:
            session = self._idle.pop() if self._idle else psycopg.connect(self._url, autocommit=True)
        try:
            yield session
        except BaseException:
            # Its client left in the middle of a transaction.
            session.close()
            raise
        with self._lock:
            self._idle.append(session)


def _transaction(client: socket.socket, server: socket.socket, asked: tuple[bytes, bytes]) -> None:
    """Pass on what the client asks, from this message on, until the server says that it is in no transaction."""
    while True:
        _send(server, *asked)
        while asked[0] in _ANSWERED:
            kind, body = _message(server)
            if (kind, body) == (_READY, _IDLE):
                return
            _send(client, kind, body)
            if kind == _READY:
                break
        asked = _message(client)


def _socket_of(session: psycopg.Connection) -> socket.socket:
    """The session's socket, which stays open when this one is closed."""
    found = socket.socket(fileno=os.dup(session.pgconn.socket))
    found.setblocking(True)
    return found


def _message(of: socket.socket) -> tuple[bytes, bytes]:
    head = _exactly(of, 5)
    return head[:1], _exactly(of, struct.unpack("!I", head[1:])[0] - 4)


def _send(to: socket.socket, kind: bytes, body: bytes) -> None:
    to.sendall(kind + struct.pack("!I", len(body) + 4) + body)


def _exactly(of: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        data = of.recv(count - len(found))
        if not data:
            raise EOFError
        found += data
    return found
