"""`antenna doctor` tries whether a store refuses a second write of a name: without it two commits of one version both succeed."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from antenna_assets.operations import doctor
from antenna_assets.settings import Settings
from antenna_assets_tests.object_stores.conftest import Bucket

pytestmark = pytest.mark.services

Another = Callable[[Callable[[dict[str, str]], int]], AbstractContextManager[str]]


@pytest.fixture
def another_store(server: str) -> Another:
    """Makes a store in front of the tests' own: it may change the headers of a write, or answer by a status of its own."""

    @contextmanager
    def store(change: Callable[[dict[str, str]], int]) -> Iterator[str]:
        class Forward(BaseHTTPRequestHandler):
            def forward(self) -> None:
                headers = dict(self.headers)
                body = self.rfile.read(int(headers.get("Content-Length", 0)))
                status = change(headers) if self.command == "PUT" else 0
                if status:
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                upstream = http.client.HTTPConnection(urlsplit(server).netloc, timeout=30)
                upstream.request(self.command, self.path, body, headers)
                answer = upstream.getresponse()
                told = answer.read()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(told)))
                self.end_headers()
                self.wfile.write(told)
                upstream.close()

            do_GET = do_PUT = do_DELETE = do_HEAD = forward

            def log_message(self, *_arguments: object) -> None:
                pass

        front = ThreadingHTTPServer(("127.0.0.1", 0), Forward)
        thread = threading.Thread(target=front.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{front.server_address[1]}"
        finally:
            front.shutdown()
            front.server_close()
            thread.join()

    return store


def finding(bucket: Bucket, home: Path) -> doctor.Finding:
    settings = Settings(home=home, lake=f"s3://{bucket.name}/a/lake")
    return next(found for found in doctor.findings(settings) if found.name == "lake")


def test_a_store_that_writes_no_name_twice_is_fine_and_nothing_stays(bucket: Bucket, tmp_path: Path) -> None:
    found = finding(bucket, tmp_path)
    assert (found.ok, found.fix) == (True, "")
    assert "writes no name twice" in found.found
    assert bucket.objects() == {}


def test_a_store_that_ignores_the_condition_is_named(
    bucket: Bucket, another_store: Another, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ignore(headers: dict[str, str]) -> int:
        headers.pop("If-None-Match", None)
        return 0

    with another_store(ignore) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        found = finding(bucket, tmp_path)
    assert not found.ok
    assert "found that it overwrites it" in found.found
    assert bucket.objects() == {}


@pytest.mark.parametrize(
    ("condition", "status", "told"),
    [
        (True, 400, "does not support conditional writes"),
        (False, 403, "cannot be written"),
    ],
)
def test_a_store_that_refuses_the_question_or_every_write_is_named(
    bucket: Bucket,
    another_store: Another,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    condition: bool,
    status: int,
    told: str,
) -> None:
    def refuse(headers: dict[str, str]) -> int:
        return status if ("If-None-Match" in headers) is condition else 0

    with another_store(refuse) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        found = finding(bucket, tmp_path)
    assert not found.ok
    assert told in found.found
    assert bucket.objects() == {}
