"""The order of the test files: from the reports of a run to the file, longest first."""

from pathlib import Path

import pytest

from antenna_assets_tests import durations

REPORT = """<testsuites><testsuite>
<testcase classname="antenna_assets_tests.test_a" name="test_short" time="0.5"/>
<testcase classname="antenna_assets_tests.faults.test_b" name="test_long[1]" time="7.25"/>
<testcase classname="antenna_assets_tests.faults.test_b" name="test_short" time="1"/>
</testsuite></testsuites>"""
KEPT = """\
    8.2 faults/test_b.py
    7.2   ::test_long[1]
    0.5 test_a.py
"""


def test_a_file_is_kept_with_its_seconds_and_its_long_tests(tmp_path: Path) -> None:
    (tmp_path / "two.xml").write_text(REPORT, encoding="utf-8")
    assert durations.measured(tmp_path / "two.xml") == KEPT


def test_only_long_files_have_a_place_in_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kept.txt").write_text(KEPT, encoding="utf-8")
    monkeypatch.setattr(durations, "FILE", tmp_path / "kept.txt")
    assert durations.long_files() == {"faults/test_b.py": 8.2}
