"""The address of PostgreSQL in all forms of libpq: a URI, `key=value` words, a service, several hosts.

libpq parses it; nothing here does so by hand.
"""

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from antenna_assets.clients.postgres_errors import DatabaseUnfit


def parts(address: str) -> dict[str, str]:
    """The parts of an address by libpq's names. The environment and a service file may supply others.

    Raises:
        DatabaseUnfit: libpq cannot parse it. The message shows a valid form, and no part of the address.
    """
    try:
        found = {name: str(text) for name, text in conninfo_to_dict(address).items()}
    except ProgrammingError:
        raise DatabaseUnfit(
            "expected an address such as postgresql://user:password@host:5432/antenna, or host=... "
            "dbname=... user=..., in ANTENNA_POSTGRES_URL, found one that PostgreSQL's client cannot parse"
        ) from None  # Its text repeats the address, and Dagster stores the cause of an error.
    # A part of a password that is not percent-encoded is parsed as host and port, which errors show.
    hosts, ports = found.get("host", "").split(","), found.get("port", "").split(",")
    if any("@" in host[1:] for host in hosts) or not all(port.isdigit() for port in ports if port):
        raise DatabaseUnfit(
            "expected an address such as postgresql://user:password@host:5432/antenna in "
            "ANTENNA_POSTGRES_URL, found one with an invalid host or port; percent-encode special "
            "characters of a password, @ as %40 and / as %2F"
        )
    return found


def place(address: str) -> str:
    """The address without login and password, for messages."""
    found = parts(address)
    if "service" in found and "host" not in found:
        return f"service {found['service']}"
    return f"{found.get('host', 'localhost')}:{found.get('port', 5432)}/{found.get('dbname', '')}"


def to_primary(address: str) -> str:
    """The address, with `target_session_attrs=primary` if it has several hosts and does not set it."""
    found = parts(address)
    several = "," in found.get("host", "") or "," in found.get("hostaddr", "")
    if several and "target_session_attrs" not in found:
        return make_conninfo(address, target_session_attrs="primary")
    return address
