"""Real servers that notices are sent to, on 127.0.0.1: HTTP ones that answer as they are told, and a mail server."""

import base64
import secrets
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from standardwebhooks.webhooks import Webhook

from antenna_assets.operations.alerts.channels import SmtpChannel, WebhookChannel
from antenna_assets_tests.containers.secured import make_secrets
from antenna_assets_tests.free_ports import free_port


@dataclass(frozen=True)
class Answer:
    """What a receiver answers: a status and headers, or whatever `raw` does with the socket instead."""

    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    raw: Callable[[socket.socket, threading.Event], None] | None = None


def dripping(start: bytes) -> Callable[[socket.socket, threading.Event], None]:
    """An answer that begins like this and never ends, a byte at a time."""

    def drip(connection: socket.socket, ending: threading.Event) -> None:
        try:
            connection.sendall(start)
            while not ending.wait(0.05):
                connection.sendall(b"x")
        except OSError:
            pass

    return drip


class Receiver:
    """An HTTP server that keeps what it got. The answers that were given to it come first, then 204.

    Attributes:
        got: id and body of each request, after the library of Standard Webhooks has verified its signature.
        accepted: the ids of those that were answered with a success.
        ending: set when the server ends, for answers that wait.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.got: list[tuple[str, str]] = []
        self.accepted: list[str] = []
        self.headers: list[Message] = []
        self.answers: list[Answer] = []
        self.ending = threading.Event()
        self.lock = threading.Lock()
        self.port = 0

    @property
    def ids(self) -> list[str]:
        return [id for id, _ in self.got]

    def received(self, handler: BaseHTTPRequestHandler) -> Answer:
        body = handler.rfile.read(int(handler.headers["content-length"]))
        Webhook(self.key).verify(body, dict(handler.headers))
        with self.lock:
            self.got.append((handler.headers["webhook-id"], body.decode()))
            self.headers.append(handler.headers)
            answer = self.answers.pop(0) if self.answers else Answer()
            if answer.raw is None and answer.status < 300:
                self.accepted.append(handler.headers["webhook-id"])
            return answer


@contextmanager
def receiver(
    key: str, *answers: Answer, port: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[Receiver]:
    """A receiver that runs until the end of the block."""
    state = Receiver(key)
    state.answers = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            answer = state.received(self)
            if answer.raw is not None:
                answer.raw(self.connection, state.ending)
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """A client that went away is no error of the server's."""

    server = Server(("127.0.0.1", port), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    state.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        state.ending.set()
        server.shutdown()
        server.server_close()
        thread.join()


def new_key() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def key_file(folder: Path, key: str, name: str = "key") -> Path:
    path = folder / name
    path.write_text(key + "\n")
    path.chmod(0o600)
    return path


def webhook_channel(folder: Path, key: str, port: int, **more: Any) -> WebhookChannel:
    """A channel to a receiver on this machine."""
    return WebhookChannel(
        **{
            "kind": "webhook",
            "url": f"http://127.0.0.1:{port}/hooks/secret-path?of=us",
            "secret_file": key_file(folder, key),
            "allow_private": True,
            "insecure": True,
            **more,
        }
    )


@dataclass
class Mailbox:
    """A mail server's script, and what it accepted. Answers by command, such as `{"RCPT": "550 no such user"}`."""

    answers: dict[str, str] = field(default_factory=dict)
    mails: list[Any] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    port: int = 0

    async def handle_RCPT(
        self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any
    ) -> str:
        answer = self.answers.get(f"RCPT {address}", self.answers.get("RCPT", "250 OK"))
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_MAIL(
        self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any
    ) -> str:
        envelope.mail_from = address
        return self.answers.get("MAIL", "250 OK")

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        answer = self.answers.get("DATA", "250 OK")
        if answer.startswith("250"):
            self.mails.append(envelope.content)
            self.recipients.append(envelope.rcpt_tos)
        return answer


@contextmanager
def mail_server(
    *, tls: ssl.SSLContext | None = None, from_the_start: bool = False, password: str | None = None
) -> Iterator[Mailbox]:
    """A mail server that runs until the end of the block; with a password it wants a login over TLS."""
    box = Mailbox(port=free_port())

    def logged_in(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        return AuthResult(success=data.password.decode() == password, handled=False)

    controller = Controller(
        box,
        hostname="127.0.0.1",
        port=box.port,
        ready_timeout=60,
        ssl_context=tls if from_the_start else None,
        tls_context=None if from_the_start else tls,
        # It warns of logins without STARTTLS, whatever the connection is.
        require_starttls=tls is not None and not from_the_start,
        authenticator=logged_in,
        auth_required=password is not None and not from_the_start,
        auth_require_tls=tls is not None and not from_the_start,
    )
    controller.start()
    try:
        yield box
    finally:
        controller.stop()


def mail_channel(port: int, **more: Any) -> SmtpChannel:
    """A channel to a mail server on this machine."""
    return SmtpChannel(
        **{
            "kind": "smtp",
            "host": "127.0.0.1",
            "port": port,
            "from": "antenna@example.com",
            "to": ["ops@example.com"],
            "tls": "none",
            "insecure": True,
            **more,
        }
    )


@dataclass(frozen=True)
class Certificates:
    """A server's certificate for 127.0.0.1, and the authority that signed it."""

    ca: Path
    server: ssl.SSLContext


def certificates(folder: Path) -> Certificates:
    make_secrets(folder, "secure", "--kafka", "127.0.0.1:1", "--postgres", "127.0.0.1:1")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "kafka_key_and_certificate")
    return Certificates(folder / "ca", server)
