"""Where a webhook may connect: names are resolved here, and the addresses that were checked are used.

A name that resolves to another address at a second look (DNS rebinding) gains nothing, as there is none.
"""

import ipaddress
import socket
from typing import Any

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Target = tuple[socket.AddressFamily, tuple[Any, ...]]
"""An address family and an address of it, as sockets take them."""


class AddressRefused(Exception):
    """The host has an address that must not be called; the message says which and why."""


def targets(host: str, port: int, *, allow_private: bool) -> list[Target]:
    """The addresses of a host.

    Raises:
        AddressRefused: one of them is not public. Link-local ones, where clouds give out credentials, are
            refused in any case.
        OSError: the name cannot be resolved.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for _, _, _, _, address in found:
        refusal = why_not(
            ipaddress.ip_address(str(address[0]).partition("%")[0]), allow_private=allow_private
        )
        if refusal:
            raise AddressRefused(f"{host} is {address[0]}, {refusal}")
    return [(family, address) for family, _, _, _, address in found]


def why_not(address: IPAddress, *, allow_private: bool) -> str | None:
    """Why an address must not be called; None if it may be."""
    address = _within(address)
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        return "an address that is never called"
    if not allow_private and not address.is_global:
        return "an address that is not public; `allow_private = true` allows it"
    return None


def _within(address: IPAddress) -> IPAddress:
    """The IPv4 address within one of IPv6 that leads to it."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else address)
