"""One user's allowance in `antenna demo`, and for `--serve` a receiver of notices on this machine."""

import base64
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psycopg
from rich.console import RenderableType
from rich.markup import escape

from antenna_assets.clients.postgres import connect
from antenna_assets.domain.fitting_table import FittingTable, number_columns
from antenna_assets.domain.hours import HOUR, MICROSECOND, hour_key
from antenna_assets.domain.safe_text import safe_text
from antenna_assets.operations.alerts.deliveries import record_channels
from antenna_assets.operations.allowance import Allowance, allowance_of

CHANNEL = "demo"
LINES = 12
"""Notices that are shown in a minute; the others are counted."""


def allowance(connection: psycopg.Connection, hours: Sequence[datetime]) -> Iterator[RenderableType]:
    """What a user who has used much of its quota may still transfer at the end of one of these hours, as a
    table and a line; nothing if nobody has anything left."""
    row = connection.execute(
        "SELECT id, coalesce(name, id), hour, remaining FROM usage_against_quota"
        " WHERE hour = ANY(%s) AND remaining > 1 ORDER BY percent DESC, id, hour LIMIT 1",
        [hours],
    ).fetchone()
    if row is None:
        return
    id_, name, hour, remaining = row
    title = f"Allowance: {safe_text(name)}, {hour_key(hour)}"
    table = FittingTable(*number_columns("used", "quota", "asks for"), "answer", title=escape(title))
    for more in (remaining // 2, remaining, remaining + 1):
        answer = allowance_of(connection, id_, bytes_=more, period="hour", at=hour + HOUR - MICROSECOND)
        table.add_row(*_cells(answer))
    yield table
    yield escape(
        f"A user may transfer what is left, to the byte: `antenna allowance {safe_text(id_)} --bytes N` asks"
        " about the running hour."
    )


def _cells(answer: Allowance) -> Iterator[str]:
    yield f"{answer.used:,}"
    yield f"{answer.quota or 0:,}"
    yield f"{answer.requested:,}"
    yield f"[{'green' if answer.allowed else 'red'}]{answer.answer}[/]"


class Notices:
    """Says what arrives, at most `LINES` a minute.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._seen: set[str] = set()
        self._begun = clock()
        self._shown = self._more = 0

    def arrived(self, id_: str, summary: str) -> None:
        """Take a notice; the same one may come twice."""
        if id_ in self._seen:
            return
        self._seen.add(id_)
        if self._clock() - self._begun >= 60:
            self.count()
        if self._shown < LINES:
            self._shown += 1
            self._say(f"notice: {summary}")
        else:
            self._more += 1

    def count(self) -> None:
        """Say how many were not shown, and begin another minute."""
        if self._more:
            self._say(f"and {self._more:,} more notices; `antenna alerts list` has them all")
        self._begun, self._shown, self._more = self._clock(), 0, 0


@contextmanager
def local_receiver(postgres_url: str, say: Callable[[str], None]) -> Iterator[Path | None]:
    """Receive notices on 127.0.0.1 until the end of the block, and say each in a line.

    Yields:
        The file of channels for `antenna alerts deliver`; None where other channels are in use already, of
        which such a deliverer would take the notices away.
    """
    with connect(postgres_url, application="antenna demo") as connection:
        rows = connection.execute(
            "SELECT name FROM alert_channel WHERE removed_at IS NULL AND name <> %s ORDER BY name", [CHANNEL]
        ).fetchall()
    if rows:
        others = ", ".join(name for (name,) in rows)
        say(f"notices go to the channels that are in use already ({others}), and not to this terminal")
        yield None
        return
    try:
        with tempfile.TemporaryDirectory(prefix="antenna-demo-") as name, _receiving(Path(name), say) as file:
            yield file
    finally:
        with connect(postgres_url, application="antenna demo") as connection:
            record_channels(connection, {})


@contextmanager
def _receiving(folder: Path, say: Callable[[str], None]) -> Iterator[Path]:
    key = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    (folder / "key").touch(mode=0o600)
    (folder / "key").write_text(key, encoding="ascii")
    notices = Notices(say)
    server = HTTPServer(("127.0.0.1", 0), _handler(key, notices, say))
    (folder / "channels.toml").write_text(
        f'[channels.{CHANNEL}]\nkind = "webhook"\nurl = "http://127.0.0.1:{server.server_port}/"\n'
        'secret_file = "key"\ninsecure = true\nallow_private = true\n',
        encoding="utf-8",
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
    thread.start()
    try:
        yield folder / "channels.toml"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        notices.count()


def _handler(key: str, notices: Notices, say: Callable[[str], None]) -> type[BaseHTTPRequestHandler]:
    """As the receiver of docs/alerts.md."""
    from standardwebhooks.webhooks import Webhook, WebhookVerificationError

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            try:
                notice = Webhook(key).verify(body, dict(self.headers))
            except WebhookVerificationError as error:
                say(f"a notice is refused: {error}")
                self.send_response(401)
            else:
                notices.arrived(self.headers["webhook-id"], notice["summary"])
                self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing: each request would be a line."""

    return Handler
