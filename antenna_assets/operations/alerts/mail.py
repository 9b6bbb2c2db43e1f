"""Mails by SMTP. The Message-ID is made of the notice's id, so that mailboxes recognize a repetition."""

import json
import re
import smtplib
import socket
import ssl
from email.message import EmailMessage
from email.utils import format_datetime

from antenna_assets.domain.safe_text import safe_text
from antenna_assets.operations.alerts.channels import SmtpChannel
from antenna_assets.operations.alerts.deadline import Deadline
from antenna_assets.operations.alerts.outcome import Notice, Outcome, failed
from antenna_assets.operations.alerts.secret_files import password

LONGEST_SUBJECT = 150
_NOT_SMTP = "closed the connection, or answered something that is not SMTP"
_ADDRESS = re.compile(r"\S*@\S*")


class Mail:
    """Sends notices to one mail server.

    Raises:
        SecretUnusable: the password cannot be used.
        OSError: the authorities' file cannot be read.
    """

    def __init__(self, channel: SmtpChannel) -> None:
        self._channel = channel
        self._password = None if channel.password_file is None else password(channel.password_file)
        self._tls = ssl.create_default_context(cafile=channel.ca_file)
        self._place = f"{channel.host}:{channel.port}"

    def send(self, notice: Notice) -> Outcome:
        """Make one attempt; never raises for what a server or a network does."""
        message = as_mail(notice, self._channel.sender, self._channel.to)
        with Deadline(self._channel.timeout) as deadline:
            try:
                outcome = self._sent(message, deadline)
            except (OSError, smtplib.SMTPException) as error:
                outcome = self._failure(error)
        if deadline.expired and not outcome.delivered:
            # Whatever a connection that is shut down looks like.
            return failed(f"{self._place} did not answer within {self._channel.timeout.total_seconds():g} s")
        return outcome

    def _sent(self, message: EmailMessage, deadline: Deadline) -> Outcome:
        channel = self._channel
        server = _Server(deadline, self._tls if channel.tls == "tls" else None)
        try:
            code, answer = server.connect(channel.host, channel.port)
            if code != 220:
                return self._answered(code, answer)
            if channel.tls == "starttls":
                # Raises where the server offers none: nothing is sent in the clear.
                server.starttls(context=self._tls)
            if self._password is not None:
                server.login(channel.user or "", self._password)
            refused = server.send_message(message)
        finally:
            # Without QUIT: what was accepted is sent, whatever an answer to it would be.
            server.close()
        if refused:
            # Not tried again: the others would get it twice.
            codes = ", ".join(sorted({str(code) for code, _ in refused.values()}))
            error = f"{self._place} refused {len(refused)} of {len(channel.to)} recipients ({codes})"
            return Outcome(True, 250, error)
        return Outcome(True, 250)

    def _failure(self, error: OSError | smtplib.SMTPException) -> Outcome:
        if isinstance(error, smtplib.SMTPRecipientsRefused):
            # Final only if it is for each of them.
            codes = {recipient: answer[0] for recipient, answer in error.recipients.items()}
            code, answer = min(error.recipients.values(), key=lambda one: one[0])
            return self._answered(code, answer, final=all(500 <= each < 600 for each in codes.values()))
        if isinstance(error, smtplib.SMTPSenderRefused | smtplib.SMTPDataError):
            code = error.smtp_code
            return self._answered(code, error.smtp_error, final=500 <= code < 600)
        if isinstance(error, smtplib.SMTPResponseException):
            # Greeting, login: of the server and not of this mail. It may be corrected.
            return self._answered(error.smtp_code, error.smtp_error)
        if isinstance(error, smtplib.SMTPNotSupportedError):
            return failed(f"{self._place} offers no STARTTLS, or not the login that is set")
        if isinstance(error, smtplib.SMTPException):
            return failed(f"{self._place} {_NOT_SMTP}")
        if isinstance(error, socket.gaierror):
            return failed(f"{self._place} cannot be resolved: {error.strerror}")
        if isinstance(error, ssl.SSLCertVerificationError):
            return failed(f"{self._place} has a certificate that is not accepted: {error.verify_message}")
        return failed(f"{self._place} cannot be reached: {error.strerror or type(error).__name__}")

    def _answered(self, code: int, answer: bytes | str, *, final: bool = False) -> Outcome:
        if code < 0:
            return failed(f"{self._place} {_NOT_SMTP}")
        text = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer
        # Servers repeat the recipient's address.
        text = _ADDRESS.sub("[address]", " ".join(text.split()))
        return failed(f"{self._place} answered {code} {text}", code, final=final)


class _Server(smtplib.SMTP):
    """A session under a deadline, encrypted from its beginning if there is a context for it."""

    def __init__(self, deadline: Deadline, tls: ssl.SSLContext | None) -> None:
        self._deadline, self._tls = deadline, tls
        super().__init__(timeout=60)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        # What `smtplib.SMTP_SSL` overrides as well. The name is that of the certificate.
        self._host = host
        connection = socket.create_connection((host, port), 5)
        connection.settimeout(timeout)
        self._deadline.watch(connection)
        if self._tls is not None:
            connection = self._tls.wrap_socket(
                connection, server_hostname=host, do_handshake_on_connect=False
            )
            self._deadline.watch(connection)
            try:
                connection.do_handshake()
            except OSError:
                connection.close()
                raise
        return connection

    def starttls(self, *, context: ssl.SSLContext | None = None) -> tuple[int, bytes]:  # type: ignore[override]
        """As smtplib's; the encrypted socket is watched as well."""
        answer = super().starttls(context=context)
        if self.sock is not None:
            self._deadline.watch(self.sock)
        return answer


def as_mail(notice: Notice, sender: str, to: tuple[str, ...]) -> EmailMessage:
    """The notice as a mail: the summary of its body is the subject, and the body is the text."""
    body = json.loads(notice.body)
    summary = body.get("summary")
    subject = summary if isinstance(summary, str) else notice.kind
    mail = EmailMessage()
    mail["From"] = sender
    mail["To"] = ", ".join(to)
    mail["Subject"] = f"[antenna, {notice.level}] {safe_text(subject, LONGEST_SUBJECT)}"
    mail["Date"] = format_datetime(notice.created_at)
    mail["Message-ID"] = f"<{notice.id}@{sender.rpartition('@')[2]}>"
    # No out-of-office answers.
    mail["Auto-Submitted"] = "auto-generated"
    text = json.dumps(body, ensure_ascii=False, indent=2) + "\n"
    # JSON may escape half of a surrogate pair, which no encoding has.
    mail.set_content(text.encode("utf-8", "backslashreplace").decode())
    return mail
