"""A bucket for each test that asks, on one S3 server a run."""

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import uuid4

import pytest
from s3fs import S3FileSystem

from antenna_assets.settings import Settings, load_settings
from antenna_assets.storage.paths import filesystem
from antenna_assets_tests.object_stores.gs_server import gs_server
from antenna_assets_tests.object_stores.s3_server import client, environment, objects, s3_server


@dataclass(frozen=True)
class Bucket:
    """A bucket that was empty at first, and the address of its server."""

    address: str
    name: str

    def objects(self) -> dict[str, int]:
        return objects(self.address, self.name)

    def put(self, key: str, body: bytes = b"litter") -> None:
        client(self.address).put_object(Bucket=self.name, Key=key, Body=body)


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A new bucket, which the environment's credentials are for."""
    for name, value in environment(server).items():
        monkeypatch.setenv(name, value)
    # An instance of s3fs finds its server when it is created, and the process keeps it: another test had another server.
    S3FileSystem.clear_instance_cache()
    made = Bucket(server, f"bucket-{uuid4().hex[:12]}")
    client(server).create_bucket(Bucket=made.name)
    return made


@pytest.fixture
def on_s3(settings: Settings, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The test's settings, with a lake in the bucket."""
    monkeypatch.setenv("ANTENNA_LAKE", f"s3://{bucket.name}/a/lake")
    assert settings.kafka_bootstrap
    return load_settings()


@pytest.fixture(scope="session")
def gs_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with gs_server(tmp_path_factory.mktemp("gs")) as found:
        yield found


@pytest.fixture
def gs_place(gs_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """A place in a new bucket of Google's."""
    for name, value in gs_environment.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{uuid4().hex[:12]}"
    filesystem("gs").mkdir(bucket)
    return f"gs://{bucket}/a/lake"
