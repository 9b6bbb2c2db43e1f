"""The channels' file (TOML): where notices are sent. Secrets are in files of their own, which it names."""

import re
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from email.utils import parseaddr
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from antenna_assets.ledger.outbox import Level
from antenna_assets.settings import Duration, Settings, SettingsError

MOST_CHANNELS = 16
"""Each has a thread and a connection to PostgreSQL."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
Kind = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.]{0,59}$")]


def _address(text: str) -> str:
    if parseaddr(text)[1] != text or not re.fullmatch(r"[!-~]+@[!-~]+", text):
        raise ValueError("expected an e-mail address such as team@example.com, in ASCII and without a name")
    return text


Address = Annotated[str, AfterValidator(_address)]


def _can_be_resolved(host: str) -> bool:
    """Whether Python takes it for a host; for others, as one with an empty label, its resolver raises."""
    try:
        return host.isascii() and bool(host.encode("idna"))
    except UnicodeError:
        return False


def _host(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9.:-]{1,253}", text) or not _can_be_resolved(text):
        raise ValueError("expected a host such as mail.example.com, or an address")
    return text


Host = Annotated[str, AfterValidator(_host)]


class _Channel(BaseModel):
    """What all channels have. Null `levels` or `kinds`: all."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    levels: tuple[Level, ...] | None = Field(None, min_length=1)
    kinds: tuple[Kind, ...] | None = Field(None, min_length=1)


class _Remote(_Channel):
    """What channels with a receiver have. `timeout` bounds an attempt as a whole."""

    timeout: Duration = timedelta(seconds=15)
    ca_file: Path | None = None
    insecure: bool = False

    @field_validator("timeout")
    @classmethod
    def _timeout_is_of_seconds(cls, timeout: timedelta) -> timedelta:
        if not timedelta(seconds=1) <= timeout <= timedelta(minutes=1):
            raise ValueError("expected 1 second to 1 minute")
        return timeout


class WebhookChannel(_Remote):
    """An HTTP endpoint that gets each notice as a signed POST."""

    kind: Literal["webhook"]
    url: str
    secret_file: Path
    previous_secret_file: Path | None = None
    allow_private: bool = False

    @model_validator(mode="after")
    def _url_is_one_that_may_be_called(self) -> "WebhookChannel":
        found = self.parts
        if not self.url.isascii() or not self.url.isprintable() or " " in self.url:
            raise ValueError("url: expected ASCII without blanks; percent-encode other characters")
        try:
            valid = found.scheme in ("https", "http") and bool(found.hostname) and found.port != 0
        except ValueError:
            valid = False
        if not valid or "@" in found.netloc or found.fragment or not _can_be_resolved(found.hostname or ""):
            raise ValueError("url: expected https://host/path, without a login or a fragment")
        if found.scheme == "http" and not self.insecure:
            raise ValueError(
                "url: expected https; over http others can read the notices, which `insecure = true` allows"
            )
        return self

    @property
    def parts(self) -> SplitResult:
        """The parts of the URL."""
        return urlsplit(self.url)


class SmtpChannel(_Remote):
    """A mail server that gets each notice as a mail."""

    kind: Literal["smtp"]
    host: Host
    port: int = Field(587, ge=1, le=65535)
    sender: Address = Field(alias="from")
    to: tuple[Address, ...] = Field(min_length=1, max_length=50)
    tls: Literal["starttls", "tls", "none"] = "starttls"
    user: str | None = None
    password_file: Path | None = None

    @model_validator(mode="after")
    def _login_is_whole_and_encrypted(self) -> "SmtpChannel":
        if (self.user is None) != (self.password_file is None):
            raise ValueError("expected both user and password_file, or neither")
        if self.tls == "none" and not self.insecure:
            raise ValueError(
                "tls: expected starttls or tls; without it others can read mails and passwords, which"
                " `insecure = true` allows"
            )
        return self


class LogChannel(_Channel):
    """The deliverer's own output: one JSON line for each notice."""

    kind: Literal["log"]


Channel = WebhookChannel | SmtpChannel | LogChannel


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    channels: dict[Name, Annotated[Channel, Field(discriminator="kind")]] = Field(
        min_length=1, max_length=MOST_CHANNELS
    )


def read_channels(settings: Settings) -> Mapping[str, Channel]:
    """Read the file that `ANTENNA_ALERT_CHANNELS` names; paths in it are relative to its folder.

    Raises:
        SettingsError: it is not set, cannot be read or is wrong; the message names the key, and no value.
    """
    path = settings.alert_channels
    if path is None:
        raise SettingsError(
            "ANTENNA_ALERT_CHANNELS: expected the file that says where notices are sent, found nothing;"
            " docs/alerts.md shows one"
        )
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: expected the channels of alerts: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: expected TOML: {error}") from error
    try:
        channels = _File.model_validate(content).channels
    except ValidationError as error:
        raise SettingsError(f"{path}: {_sentence(error.errors()[0])}") from error
    return {name: _in_folder(channel, path.parent) for name, channel in channels.items()}


def _in_folder(channel: Channel, folder: Path) -> Channel:
    paths = {name: folder / value for name, value in channel if isinstance(value, Path)}
    return channel.model_copy(update=paths)


_SENTENCES = {
    "missing": "expected a value, found none",
    "extra_forbidden": "is no key of this kind of channel",
    "union_tag_not_found": 'expected kind = "webhook", "smtp" or "log", found none',
    "union_tag_invalid": 'expected kind = "webhook", "smtp" or "log", found another',
}


def _sentence(error: ErrorDetails) -> str:
    """The first error of a file. The kind of a channel, which pydantic puts into the place, is left out."""
    place: list[Any] = list(error["loc"])
    if place[:1] == ["channels"] and len(place) > 2:
        del place[2]
    text = _SENTENCES.get(error["type"], error["msg"].removeprefix("Value error, "))
    return f"{'.'.join(map(str, place))}: {text}"
