"""A server of Google Cloud Storage's JSON interface on 127.0.0.1, and a login for it, each in memory.

It has no XML interface, which deltalake lists with, and not all that Hadoop's connector asks for.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from antenna_assets_tests.object_stores.server_process import listening


@contextmanager
def gs_server(folder: Path) -> Iterator[dict[str, str]]:
    """A new server, without buckets, for the block; the environment that Google's programs find it by."""
    program = (
        "from gcp_storage_emulator.server import create_server; create_server('127.0.0.1', {}, True).run()"
    )
    with listening(lambda port: ["-c", program.format(port)]) as address, _tokens() as token_uri:
        key = folder / "account.json"
        key.write_text(json.dumps(_account(token_uri)))
        yield {"STORAGE_EMULATOR_HOST": address, "GOOGLE_APPLICATION_CREDENTIALS": str(key)}


def _account(token_uri: str) -> dict[str, str]:
    """A service account's key file."""
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {
        "type": "service_account",
        "project_id": "a-project",
        "private_key_id": "1",
        "private_key": key.decode(),
        "client_email": "antenna@a-project.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": token_uri,
    }


class _Tokens(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        answer = json.dumps({"access_token": "a-token", "expires_in": 3600, "token_type": "Bearer"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def _tokens() -> Iterator[str]:
    """Where an account's key is exchanged for a token."""
    with HTTPServer(("127.0.0.1", 0), _Tokens) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/token"
        finally:
            server.shutdown()
            thread.join()
