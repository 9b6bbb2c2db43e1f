"""Files are listed and removed alike on a disk and in S3, and never more than was asked for."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from antenna_assets.storage.files import removable, remove, remove_files, remove_tree, walk
from antenna_assets.storage.paths import (
    StoreError,
    file_errors,
    lake_path,
    name_within,
    reason_of,
    require_store,
)
from antenna_assets_tests.object_stores.conftest import Bucket

if TYPE_CHECKING:
    from antenna_assets.storage.paths import LakePath

pytestmark = pytest.mark.services


@pytest.fixture(params=["disk", "S3", "Google"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> "LakePath":
    """An empty place for a lake."""
    if request.param == "disk":
        return tmp_path / "lake"
    if request.param == "Google":
        return lake_path(request.getfixturevalue("gs_place"))
    bucket = request.getfixturevalue("bucket")
    return lake_path(f"s3://{bucket.name}/lake")


def put(root: "LakePath", *names: str) -> None:
    for name in names:
        path = root / name
        if isinstance(path, Path):
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"four")


def files(root: "LakePath") -> set[str]:
    return {name_within(root, one.path) for one in walk(root) if not one.is_folder}


def test_everything_is_listed_with_its_size_and_time(root: "LakePath") -> None:
    assert list(walk(root)) == []
    put(root, "landing/1-a/hour=1/part é.parquet", "landing/1-a/%41", "landing-2/x")
    found = list(walk(root / "landing"))
    sizes = {name_within(root, one.path): one.size for one in found if not one.is_folder}
    assert sizes == {"landing/1-a/hour=1/part é.parquet": 4, "landing/1-a/%41": 4}
    now = datetime.now(UTC)
    assert all(abs(now - one.changed) < timedelta(minutes=1) for one in found)


def test_a_folder_goes_only_with_all_that_it_holds(root: "LakePath") -> None:
    put(root, "a/goes", "a/b/stays", "c/goes")
    remove(removable(walk(root), lambda one: one.path.name != "stays"))
    assert files(root) == {"a/b/stays"}


def test_a_name_with_a_pattern_in_it_is_that_name_alone(root: "LakePath") -> None:
    put(root, "x/*", "x/[ab]", "x/a", "x/ab", "x/?b")
    remove_files([root / "x/*", root / "x/[ab]", root / "x/?b", root / "x/never was"])
    assert files(root) == {"x/a", "x/ab"}


def test_a_tree_goes_whole_and_alone(root: "LakePath") -> None:
    put(root, "landing/1/a/b", "landing/1/c", "landing/10/a")
    remove_tree(root / "landing/1", within=root)
    assert files(root) == {"landing/10/a"}
    remove_tree(root / "landing/1", within=root)


@pytest.mark.parametrize("place", ["", "..", "../lake-2", "landing/..", "landing/../../lake-2", "../.."])
def test_a_tree_that_is_not_within_is_refused_and_nothing_goes(root: "LakePath", place: str) -> None:
    put(root, "landing/1/a")
    put(root.parent / "lake-2", "b")
    with pytest.raises(ValueError, match="expected a folder within .* nothing was removed"):
        remove_tree(root / place, within=root)
    assert files(root) == {"landing/1/a"}
    assert files(root.parent / "lake-2") == {"b"}


def test_what_spark_leaves_for_a_folder_goes_and_so_do_names_that_no_disk_has(bucket: Bucket) -> None:
    for key in (
        "lake/landing/1/2/",
        "lake/landing/1/2/a",
        "lake/landing//b",
        "lake/landing/./c",
        "lake-2//d",
    ):
        bucket.put(key)
    root = lake_path(f"s3://{bucket.name}/lake")
    remove_tree(root / "landing" / "1", within=root)
    assert bucket.objects().keys() == {"lake/landing//b", "lake/landing/./c", "lake-2//d"}
    remove(walk(root))
    assert bucket.objects().keys() == {"lake-2//d"}


def test_a_bucket_that_is_not_there_is_told(bucket: Bucket) -> None:
    place = f"s3://{bucket.name}-2/lake"
    with pytest.raises(StoreError, match=f"{place} cannot be listed: The specified bucket does not exist"):
        require_store(place)
    with pytest.raises(OSError, match="The specified bucket does not exist"):
        list(walk(lake_path(place)))


def test_a_store_that_does_not_answer_fails_as_a_disk_does(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match="Could not connect to the endpoint URL"):
        require_store(f"s3://{bucket.name}/lake")
    # One of its own: that of the other tests is connected already.
    from s3fs import S3FileSystem

    store = S3FileSystem(skip_instance_cache=True, config_kwargs={"retries": {"total_max_attempts": 1}})
    with pytest.raises(Exception, match="Could not connect") as failure:
        store.info(f"{bucket.name}/lake")
    assert isinstance(failure.value, file_errors())
    assert reason_of(failure.value).startswith("Could not connect to the endpoint URL")


def test_a_missing_package_is_named_with_what_to_install() -> None:
    without = "import sys; sys.modules['s3fs'] = None; from antenna_assets.storage.paths import lake_path; "
    told = subprocess.run(
        [sys.executable, "-c", without + "lake_path('s3://bucket/lake')"], capture_output=True, text=True
    )
    assert told.returncode == 1
    assert "s3:// is reached through fsspec: Install s3fs" in told.stderr
    assert "pip install 'antenna-assets[s3]'" in told.stderr
