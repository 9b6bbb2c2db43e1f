"""A standby of the tests' PostgreSQL, as a failover needs one: it takes no writes until it is promoted."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from psycopg.conninfo import make_conninfo

from antenna_assets.stack.postgres_data import own, run_program
from antenna_assets_tests.free_ports import free_port


class Standby:
    """A copy of a server that follows it."""

    def __init__(self, primary: str, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data"
        self.port = free_port()
        place = urlsplit(primary).netloc.rpartition(":")[0]
        self.url = urlunsplit(urlsplit(primary)._replace(netloc=f"{place}:{self.port}"))
        own(self._data)
        run_program(
            folder,
            *(
                "pg_basebackup",
                "--dbname",
                make_conninfo(primary, dbname="postgres"),
                "--pgdata",
                str(self._data),
            ),
            *("--checkpoint=fast", "--write-recovery-conf"),
        )
        # The primary's settings name its port.
        (self._data / "antenna.conf").write_text(
            f"listen_addresses = '127.0.0.1'\nport = {self.port}\nunix_socket_directories = ''\nmax_connections = 100\n"
            "max_locks_per_transaction = 256\n"
        )
        run_program(
            folder, "pg_ctl", "start", "-w", "-D", str(self._data), "-l", str(self._data / "standby.log")
        )

    def promote(self) -> None:
        """Make it a primary, which takes writes once this returns."""
        run_program(self._folder, "pg_ctl", "promote", "-w", "-D", str(self._data))

    def stop(self) -> None:
        """End its processes."""
        run_program(self._folder, "pg_ctl", "stop", "-m", "immediate", "-D", str(self._data))


@contextmanager
def standby_of(primary: str) -> Iterator[Standby]:
    """A standby of a server for as long as the block lasts."""
    folder = Path(tempfile.mkdtemp(prefix="standby-"))
    # The server's own user has to reach its data.
    folder.chmod(0o755)
    try:
        standby = Standby(primary, folder)
        try:
            yield standby
        finally:
            standby.stop()
    finally:
        shutil.rmtree(folder)
