"""`make prove`: each row has a test and a place in a part; the page says what the reports say and nothing more."""

import re
from pathlib import Path

from antenna_assets_tests.prove.page import page
from antenna_assets_tests.prove.results import read
from antenna_assets_tests.prove.rows import PARTS, ROWS

REPORT = """<?xml version="1.0"?><testsuites commit="{commit}">
<testsuite timestamp="2026-11-24T{time}:00+00:00">
<testcase name="test_row_7_the_broker_is_killed[1|2]" time="12.3"><properties>
<property name="kills" value="12000"/><property name="away, s" value="2.5"/></properties></testcase>
<testcase name="test_row_7_the_broker_is_killed[3]" time="1"><properties><property name="kills" value="5"/>
</properties></testcase><testcase name="test_row_8_postgresql_is_away" time="1">{fault}</testcase></testsuite></testsuites>"""


def write(folder: Path, name: str, **values: str) -> None:
    (folder / name).write_text(REPORT.format(**values), encoding="utf-8")


def test_every_row_has_a_test_and_is_in_one_part() -> None:
    code = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.rglob("test_*.py")]
    tested = {int(row) for text in code for row in re.findall(r"^def test_row_(\d+)_", text, re.MULTILINE)}
    assert tested == set(ROWS)
    assert sorted(row for rows in PARTS.values() for row in rows) == sorted(ROWS)


def test_the_page_has_the_figures_of_the_tests_and_says_which_failed(tmp_path: Path) -> None:
    write(tmp_path, "one.xml", commit="c" * 40, time="10:00", fault="<failure/>")
    text = page(read(tmp_path))
    assert f"1 of {len(ROWS)} rows shown, by 3 tests" in text
    assert "| yes | the broker is killed (2 cases) | kills: 12,005; away, s: 2.5 | 13 |" in text
    assert "| **NO** | postgresql is away |" in text
    assert text.count("The long form was not run to its end yet.") == len(ROWS) - 2


def test_the_newest_run_of_a_row_counts(tmp_path: Path) -> None:
    write(tmp_path, "late.xml", commit="b" * 40, time="11:00", fault="")
    write(tmp_path, "early.xml", commit="a" * 40, time="10:00", fault="<error/>")
    found = read(tmp_path)
    assert (found[8].passed, found[8].commit) == (True, "b" * 40)
