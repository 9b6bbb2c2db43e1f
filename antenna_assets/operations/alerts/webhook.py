"""Webhooks, signed by Standard Webhooks (https://www.standardwebhooks.com).

Python's own HTTP client, because it does nothing by itself: no redirects, no retries, no proxy from the
environment, and it can be given the address to connect to (decision 38).
"""

import http.client
import socket
import ssl
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from antenna_assets.operations.alerts.addresses import AddressRefused, Target, targets
from antenna_assets.operations.alerts.channels import WebhookChannel
from antenna_assets.operations.alerts.deadline import Deadline
from antenna_assets.operations.alerts.outcome import LONGEST_PAUSE, Notice, Outcome, failed
from antenna_assets.operations.alerts.secret_files import signing_key

CONNECT_SECONDS = 5.0
SECOND = timedelta(seconds=1)
GONE, TOO_MANY, UNAVAILABLE = 410, 429, 503


class Webhook:
    """Sends notices to one endpoint.

    Raises:
        SecretUnusable: the key cannot be used.
        OSError: the authorities' file cannot be read.
    """

    def __init__(self, channel: WebhookChannel) -> None:
        self._channel = channel
        files = [channel.secret_file, channel.previous_secret_file]
        self._keys = [signing_key(path) for path in files if path is not None]
        found = channel.parts
        self._tls = ssl.create_default_context(cafile=channel.ca_file) if found.scheme == "https" else None
        self._host = found.hostname or ""
        self._port = found.port or (443 if self._tls else 80)
        self._path = (found.path or "/") + (f"?{found.query}" if found.query else "")
        # Without the path, which is a secret of some services.
        self._place = f"{self._host}:{self._port}"

    def send(self, notice: Notice) -> Outcome:
        """Make one attempt; never raises for what a receiver or a network does."""
        with Deadline(self._channel.timeout) as deadline:
            try:
                found = targets(self._host, self._port, allow_private=self._channel.allow_private)
                code, headers = self._post(found, notice, deadline)
            except AddressRefused as error:
                return failed(str(error))
            except (OSError, http.client.HTTPException) as error:
                return failed(f"{self._place} {self._reason(error, deadline)}")
        return self._judged(code, headers, notice.now)

    def _post(
        self, found: list[Target], notice: Notice, deadline: Deadline
    ) -> tuple[int, http.client.HTTPMessage]:
        connection = _Connection(self._host, self._port, found, self._tls, deadline)
        try:
            connection.request("POST", self._path, notice.body.encode(), self._headers(notice))
            # The answer's body is not read: nothing depends on it, and it may have no end.
            with connection.getresponse() as answer:
                if deadline.expired:
                    # Python takes a connection that ends within the headers for their end.
                    raise TimeoutError
                return answer.status, answer.headers
        finally:
            connection.close()

    def _headers(self, notice: Notice) -> dict[str, str]:
        from standardwebhooks.webhooks import Webhook as Signer

        # With both keys while they are exchanged: a receiver needs to know one of them.
        signatures = [Signer(key).sign(notice.id, notice.now, notice.body) for key in self._keys]
        return {
            "content-type": "application/json",
            "user-agent": "antenna-lakehouse",
            "connection": "close",
            "webhook-id": notice.id,
            "webhook-timestamp": str(int(notice.now.timestamp())),
            "webhook-signature": " ".join(signatures),
        }

    def _judged(self, code: int, headers: http.client.HTTPMessage, now: datetime) -> Outcome:
        if 200 <= code < 300:
            return Outcome(True, code)
        if 300 <= code < 400:
            to = _host_of(headers.get("location", ""))
            return failed(f"{self._place} answered {code}, a redirect to {to}, which is not followed", code)
        if code == GONE:
            return failed(f"{self._place} answered {code}: it wants no more notices", code, final=True)
        pause = None
        if code in (TOO_MANY, UNAVAILABLE):
            pause = retry_after(headers.get("retry-after"), now)
        return Outcome(False, code, f"{self._place} answered {code}", pause=pause)

    def _reason(self, error: Exception, deadline: Deadline) -> str:
        if deadline.expired:
            return f"did not answer within {self._channel.timeout.total_seconds():g} s"
        if isinstance(error, socket.gaierror):
            return f"cannot be resolved: {error.strerror}"
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"has a certificate that is not accepted: {error.verify_message}"
        if isinstance(error, TimeoutError):
            return f"could not be reached within {CONNECT_SECONDS:g} s"
        if isinstance(error, http.client.RemoteDisconnected | ConnectionResetError | BrokenPipeError):
            return "closed the connection without an answer"
        if isinstance(error, http.client.HTTPException):
            return f"answered something that is not HTTP ({type(error).__name__})"
        return f"cannot be reached: {getattr(error, 'strerror', None) or type(error).__name__}"


class _Connection(http.client.HTTPConnection):
    """A connection to addresses that were checked, under a deadline."""

    def __init__(
        self, host: str, port: int, found: list[Target], tls: ssl.SSLContext | None, deadline: Deadline
    ) -> None:
        super().__init__(host, port)
        self._targets, self._tls, self._deadline = found, tls, deadline
        # Leaves the port out of the header Host.
        self.default_port = 443 if tls else 80

    def connect(self) -> None:
        """Connect to the first address that answers."""
        self.sock = self._connected()
        if self._tls is not None:
            self.sock = self._tls.wrap_socket(
                self.sock, server_hostname=self.host, do_handshake_on_connect=False
            )
            self._deadline.watch(self.sock)
            self.sock.do_handshake()

    def _connected(self) -> socket.socket:
        last: OSError | None = None
        for family, address in self._targets:
            if self._deadline.expired:
                break
            connection = socket.socket(family, socket.SOCK_STREAM)
            try:
                self._deadline.watch(connection)
                connection.settimeout(CONNECT_SECONDS)
                connection.connect(address)
            except OSError as error:
                connection.close()
                last = error
                continue
            # From here on the deadline alone counts.
            connection.settimeout(None)
            return connection
        raise last or TimeoutError


def retry_after(text: str | None, now: datetime) -> timedelta | None:
    """The pause that a header Retry-After asks for, in seconds or as a date, from 1 second to
    `LONGEST_PAUSE`; None if it is not there or is neither."""
    if text is None:
        return None
    if text.strip().isdecimal():
        # Longer than any pause; a number with thousands of digits is no integer.
        seconds = text.strip()[:10]
        return min(max(timedelta(seconds=int(seconds)), SECOND), LONGEST_PAUSE)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    if until.tzinfo is None:
        return None
    return min(max(until - now, SECOND), LONGEST_PAUSE)


def _host_of(location: str) -> str:
    try:
        return urlsplit(location).hostname or "the same host"
    except ValueError:
        return "an invalid address"
