"""The archive of Spark's classes: Java maps it if it is there, and does without it if not."""

import re
import sys
from pathlib import Path

import psutil
import pytest

from antenna_assets.engines.spark_session import archive, configuration
from antenna_assets.stack.class_archive import make_archive
from antenna_assets.streaming.spark import build_class_archive as class_archive
from antenna_assets.streaming.spark.build_class_archive import ArchiveError, main, rehearse


def java_options(monkeypatch: pytest.MonkeyPatch, prefix: Path) -> str:
    monkeypatch.setattr(sys, "prefix", str(prefix))
    return configuration("local[*]")["spark.driver.extraJavaOptions"]


def test_without_an_archive_java_is_told_of_none(monkeypatch, tmp_path):
    assert "SharedArchiveFile" not in java_options(monkeypatch, tmp_path)


def test_an_archive_in_a_folder_with_a_space_is_named_in_quotes(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "with space"))
    archive().parent.mkdir(parents=True)
    archive().touch()
    options = java_options(monkeypatch, tmp_path / "with space")
    assert re.search(rf'"-XX:SharedArchiveFile={re.escape(str(archive()))}"', options)


def test_a_rehearsal_that_fails_leaves_nothing_and_is_said_but_is_no_error(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ArchiveError, match=r"expected Java to write spark-.*[.]jsa, it ended with 1"):
        make_archive(archive(), rehearse)
    assert list(archive().parent.iterdir()) == []
    main([])
    assert "expected Java to write" in capsys.readouterr().err


def test_an_archive_that_is_there_is_not_made_again(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    archive().parent.mkdir(parents=True)
    archive().write_bytes(b"kept")
    monkeypatch.setattr(class_archive, "rehearse", lambda _: pytest.fail("expected it to be kept"))
    main([])
    assert archive().read_bytes() == b"kept"


@pytest.mark.services
def test_java_maps_the_archive_of_this_environment(spark):
    assert archive().is_file(), "run `make setup`, or the tests by `make test`"
    java = psutil.Process(int(spark._jvm.java.lang.ProcessHandle.current().pid()))
    assert str(archive()) in {mapped.path for mapped in java.memory_maps()}
