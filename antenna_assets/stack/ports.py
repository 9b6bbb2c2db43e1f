"""TCP ports of the embedded services on 127.0.0.1: picked once, recorded, and replaced if another program
took one.

A picked port is not reserved: a service that cannot bind it must ask for a fresh one.
"""

import json
import socket
from pathlib import Path

from antenna_assets.storage.atomic_files import replace_file

HOST = "127.0.0.1"


def is_free(port: int) -> bool:
    """Whether a server could listen on this port now."""
    with socket.socket() as server:
        # As servers do: otherwise the port of a service that has just stopped counts as taken for a minute.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((HOST, port))
        except OSError:
            return False
        return True


def is_open(host: str, port: int, timeout_seconds: float) -> bool:
    """Whether something accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout_seconds):
            return True
    except OSError:
        return False


def recorded(path: Path) -> list[int]:
    """Return the ports recorded in `path`; none if the file is missing or damaged."""
    try:
        return [int(port) for port in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError):
        return []


def remembered(path: Path, count: int, *, fresh: bool = False) -> list[int]:
    """Return `count` free ports: those recorded in `path` if all are still free, else new ones, recorded
    there.

    Args:
        fresh: pick new ones in any case.
    """
    before = [] if fresh else recorded(path)
    ports = before if len(set(before)) == count and all(map(is_free, before)) else _picked(count)
    if ports != before:
        replace_file(path, json.dumps(ports))
    return ports


def _picked(count: int) -> list[int]:
    servers = [socket.socket() for _ in range(count)]
    try:
        # All are bound at the same time, so that no two are equal.
        for server in servers:
            server.bind((HOST, 0))
        return [server.getsockname()[1] for server in servers]
    finally:
        for server in servers:
            server.close()
