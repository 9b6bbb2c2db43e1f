"""Superset's settings. Each secret is a file in the folder SUPERSET_SECRETS, in a container /run/secrets.

`secret_key` signs sessions, `metadata_url` is Superset's own database, `usage_url` the antennas' PostgreSQL
with a login of the role `antenna_dashboards`, and `admin_password` the password of the first administrator.
None has a default.
"""

import os
from copy import deepcopy
from pathlib import Path

from sqlalchemy.engine.url import URL, make_url
from superset.config import TALISMAN_CONFIG as _TALISMAN
from superset.constants import CHANGE_ME_SECRET_KEY
from usage_session import connect_arguments, forget_environment, metadata_uri

_LEAST_CHARACTERS = 32


def secret(name: str) -> str:
    """Return the content of a secret's file."""
    path = Path(os.environ.get("SUPERSET_SECRETS", "/run/secrets")) / name
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SystemExit(f"expected the secret {name} in {path}: {error}") from error


def _key() -> str:
    key = secret("secret_key")
    if len(key) < _LEAST_CHARACTERS or key == CHANGE_ME_SECRET_KEY:
        raise SystemExit(
            f"secret_key: expected {_LEAST_CHARACTERS} or more random characters, found a short or well-known"
            ' text; python3 -c "import secrets; print(secrets.token_urlsafe(48))" creates one'
        )
    return key


SECRET_KEY = _key()
forget_environment()
SQLALCHEMY_DATABASE_URI = metadata_uri(secret("metadata_url"))

# The host of assets/databases/antenna.yaml, which does not exist. The real address and password are filled in
# when a connection is opened, so that they are neither in the files nor in Superset's own database.
_USAGE_HOST = "usage.invalid"


def DB_CONNECTION_MUTATOR(
    uri: URL, params: dict, _username: str, _security_manager: object, _source: object
) -> tuple[URL, dict]:
    """Connect to the antennas' PostgreSQL in a read-only session in UTC, with time limits."""
    if uri.host != _USAGE_HOST:
        return uri, params
    # The address is parsed by libpq: SQLAlchemy supports fewer forms.
    arguments = {**params.get("connect_args", {}), **connect_arguments(secret("usage_url"))}
    return make_url("postgresql+psycopg2://"), {**params, "connect_args": arguments}


# Nothing is fetched from or sent to other hosts.
TALISMAN_CONFIG = deepcopy(_TALISMAN)
for _directive, _sources in TALISMAN_CONFIG["content_security_policy"].items():
    if isinstance(_sources, list):
        TALISMAN_CONFIG["content_security_policy"][_directive] = [
            source for source in _sources if not source.startswith("https:")
        ]

APP_NAME = "Antenna usage"
ROW_LIMIT = 10_000
RATELIMIT_STORAGE_URI = "memory://"
