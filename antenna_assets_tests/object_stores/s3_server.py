"""A server that speaks S3 on 127.0.0.1, in a process of its own: moto's, whose buckets are gone when it ends."""

from contextlib import AbstractContextManager
from typing import Any

from antenna_assets_tests.object_stores.server_process import listening


def s3_server() -> AbstractContextManager[str]:
    """The address of a new server, without buckets, for the block."""
    return listening(lambda port: ["-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)])


def environment(address: str) -> dict[str, str]:
    """What the programs of all vendors need to find the server and be let in."""
    return {
        "AWS_ENDPOINT_URL": address,
        # deltalake speaks TLS alone if it is not told otherwise.
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "an-id",
        "AWS_SECRET_ACCESS_KEY": "a-secret-key",
        "AWS_REGION": "us-east-1",
    }


def client(address: str) -> Any:
    """Amazon's own client, with which no part of the project reads or writes."""
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=address,
        region_name="us-east-1",
        aws_access_key_id="an-id",
        aws_secret_access_key="a-secret-key",
    )


def objects(address: str, bucket: str) -> dict[str, int]:
    """The names of all objects of a bucket, and their sizes."""
    pages = client(address).get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {one["Key"]: one["Size"] for page in pages for one in page.get("Contents", [])}
