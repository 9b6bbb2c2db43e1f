"""The address of PostgreSQL in every form that libpq takes: a URI, `key=value` words, a service, several hosts, a socket.

libpq itself reads it, here and wherever it is entered; nothing takes it apart by hand.
"""

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from antenna_assets.clients.postgres_errors import DatabaseUnfit


def parts(address: str) -> dict[str, str]:
    """What the address says, by libpq's names; what it leaves open is the environment's and a service file's.

    Raises:
        DatabaseUnfit: libpq cannot read it. The message shows a form to use, and nothing of the address.
    """
    try:
        found = {name: str(text) for name, text in conninfo_to_dict(address).items()}
    except ProgrammingError:
        raise DatabaseUnfit(
            "expected an address such as postgresql://user:password@host:5432/antenna, or host=... dbname=... user=..., in"
            " ANTENNA_POSTGRES_URL, found one that PostgreSQL's client cannot read"
        ) from None  # Its text repeats the address, and Dagster stores the causes of an error with it.
    # A password that is not percent-encoded is cut into a host and a port, which errors show.
    hosts, ports = found.get("host", "").split(","), found.get("port", "").split(",")
    if any("@" in host[1:] for host in hosts) or not all(port.isdigit() for port in ports if port):
        raise DatabaseUnfit(
            "expected an address such as postgresql://user:password@host:5432/antenna in ANTENNA_POSTGRES_URL, found one whose"
            " host or port cannot be; special characters of a password are written percent-encoded, @ as %40 and / as %2F"
        )
    return found


def place(address: str) -> str:
    """Where the address leads, without login and password."""
    found = parts(address)
    if "service" in found and "host" not in found:
        return f"service {found['service']}"
    return f"{found.get('host', 'localhost')}:{found.get('port', 5432)}/{found.get('dbname', '')}"


def to_primary(address: str) -> str:
    """The address; of several hosts the primary is meant, and not the first that answers, unless it says otherwise."""
    found = parts(address)
    several = "," in found.get("host", "") or "," in found.get("hostaddr", "")
    if several and "target_session_attrs" not in found:
        return make_conninfo(address, target_session_attrs="primary")
    return address
