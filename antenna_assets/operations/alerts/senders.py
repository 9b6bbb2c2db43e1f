"""The sender of each channel."""

from collections.abc import Mapping
from typing import Protocol

from antenna_assets.operations.alerts.channels import Channel, SmtpChannel, WebhookChannel
from antenna_assets.operations.alerts.log_line import LogLine
from antenna_assets.operations.alerts.mail import Mail
from antenna_assets.operations.alerts.outcome import Notice, Outcome
from antenna_assets.operations.alerts.webhook import Webhook
from antenna_assets.settings import SettingsError


class Sender(Protocol):
    """Makes one attempt to send a notice, in bounded time."""

    def send(self, notice: Notice) -> Outcome:
        """Send it; a failure is an outcome and no exception."""


def senders(channels: Mapping[str, Channel]) -> dict[str, Sender]:
    """The senders by the channels' names.

    Raises:
        SecretUnusable, SettingsError: a file that a channel names cannot be used.
    """
    return {name: _sender(name, channel) for name, channel in channels.items()}


def _sender(name: str, channel: Channel) -> Sender:
    try:
        if isinstance(channel, WebhookChannel):
            return Webhook(channel)
        if isinstance(channel, SmtpChannel):
            return Mail(channel)
    except OSError as error:
        # ssl.SSLError is one as well.
        raise SettingsError(
            f"channels.{name}.ca_file: expected certificates in PEM: {error.strerror}"
        ) from error
    return LogLine()
