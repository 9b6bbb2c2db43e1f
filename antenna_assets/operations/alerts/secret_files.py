"""Secrets of channels: each in a file of its own, which others cannot read."""

import base64
import binascii
from pathlib import Path

from antenna_assets import file_modes
from antenna_assets.errors import AntennaError

PREFIX = "whsec_"
LEAST_KEY, MOST_KEY = 24, 64
"""Bytes of a signing key, as Standard Webhooks has them."""

LEAST_PASSWORD = 12
LONGEST_FILE = 4096

MOUNTED = Path("/run/secrets")
"""Where container engines mount secrets, with modes that cannot be set. Nobody else is in the container."""


class SecretUnusable(AntennaError):
    """A secret cannot be used; the message names its file, and nothing of its content."""


def signing_key(path: Path) -> bytes:
    """Read the key that webhooks are signed with: `whsec_` and 24 to 64 random bytes in base64.

    Raises:
        SecretUnusable: it cannot be read, others can read it, or it is not such a key.
    """
    text = _read(path)
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.startswith(PREFIX) or not LEAST_KEY <= len(key) <= MOST_KEY:
        raise SecretUnusable(
            f"{path}: expected {PREFIX} and {LEAST_KEY} to {MOST_KEY} random bytes in base64, found something"
            f" else; make one: (printf {PREFIX}; openssl rand -base64 32) > FILE"
        )
    return key


def password(path: Path) -> str:
    """Read the password of a login at a mail server.

    Raises:
        SecretUnusable: it cannot be read, others can read it, or it is too short.
    """
    text = _read(path)
    if len(text) < LEAST_PASSWORD:
        raise SecretUnusable(
            f"{path}: expected a password of {LEAST_PASSWORD} or more characters, found {len(text)}"
        )
    return text


def _read(path: Path) -> str:
    try:
        if not path.resolve().is_relative_to(MOUNTED) and file_modes.others_read(path):
            raise SecretUnusable(f"{path}: expected a file that others cannot read; run chmod o= {path}")
        with path.open("rb") as file:
            content = file.read(LONGEST_FILE)
    except OSError as error:
        raise SecretUnusable(f"{path}: expected a secret in this file: {error.strerror}") from error
    try:
        return content.decode("ascii").strip()
    except UnicodeDecodeError:
        raise SecretUnusable(f"{path}: expected a secret in ASCII, found other bytes") from None
