"""`make prove`: each row has a test and a place in a part; the page says what the reports say and nothing more."""

import re
from pathlib import Path

from antenna_assets_tests.prove.between import CELLS, FEATURES
from antenna_assets_tests.prove.page import page
from antenna_assets_tests.prove.results import RowTest, keep, read, rows
from antenna_assets_tests.prove.rows import LIVENESS, PARTS, ROWS

REPORT = """<?xml version="1.0"?><testsuites commit="{commit}">
<testsuite timestamp="2026-11-24T{time}:00+00:00">
<testcase classname="a.test_b" name="test_row_7_the_broker_is_killed[1|2]" time="12.3"><properties>
<property name="kills" value="12000"/><property name="away, s" value="2.5"/></properties></testcase>
<testcase classname="a.test_b" name="test_row_7_the_broker_is_killed[3]" time="1"><properties><property name="kills" value="5"/>
<property name="away, s" value="10.5"/>
</properties></testcase><testcase classname="a.test_b" name="test_row_8_postgresql_is_away" time="1">{fault}</testcase></testsuite></testsuites>"""


def write(folder: Path, name: str, **values: str) -> None:
    (folder / name).write_text(REPORT.format(**values), encoding="utf-8")


def test_every_row_has_a_test_and_is_in_one_part() -> None:
    code = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.rglob("test_*.py")]
    tested = {int(row) for text in code for row in re.findall(r"^def test_row_(\d+)_", text, re.MULTILINE)}
    assert tested == set(ROWS)
    assert sorted(row for part in PARTS.values() for row in part) == sorted(ROWS)


BROKER = [RowTest("a.test_b", f"test_row_7_the_broker_is_killed[{case}]") for case in ("1|2", "3")]
DATABASE = RowTest("a.test_b", "test_row_8_postgresql_is_away")


def test_the_page_has_the_figures_of_the_tests_and_says_which_failed(tmp_path: Path) -> None:
    write(tmp_path, "one.xml", commit="c" * 40, time="10:00", fault="<failure/>")
    text = page(rows(read(tmp_path), [*BROKER, DATABASE]), {})
    assert f"1 of {len(ROWS)} rows shown, by 3 tests" in text
    assert "| yes | the broker is killed (2 cases) | kills: 12,005; away, s: 2.5 to 10.5 | 13 |" in text
    assert "| **NO** | postgresql is away |" in text
    assert text.count("The long form was not run to its end yet.") == len(ROWS) - 2


def test_what_is_kept_of_a_report_is_what_is_read_and_nothing_of_the_machine(tmp_path: Path) -> None:
    fault = '<failure message="on host-7">said host-7</failure><system-out>host-7</system-out>'
    text = REPORT.format(commit="", time="10:00", fault=fault)
    text = text.replace("<testsuite ", '<testsuite hostname="host-7" ')
    text = text.replace("</testsuite>", '<testcase time="9"/></testsuite>')
    (tmp_path / "report").write_text(text.replace(' commit=""', ""), encoding="utf-8")
    keep(tmp_path / "report", tmp_path / "kept.xml", "d" * 40)
    assert "host-7" not in (tmp_path / "kept.xml").read_text(encoding="utf-8")
    found = read(tmp_path)
    assert {test: (run.passed, run.commit) for test, run in found.items()} == {
        **dict.fromkeys(BROKER, (True, "d" * 40)),
        DATABASE: (False, "d" * 40),
    }
    assert found[BROKER[0]].figures == {"kills": "12000", "away, s": "2.5"}


def test_the_newest_run_of_a_test_counts(tmp_path: Path) -> None:
    write(tmp_path, "late.xml", commit="b" * 40, time="11:00", fault="")
    write(tmp_path, "early.xml", commit="a" * 40, time="10:00", fault="<error/>")
    found = read(tmp_path)[DATABASE]
    assert (found.passed, found.commit) == (True, "b" * 40)


def test_a_row_is_shown_only_if_all_of_its_tests_were_run(tmp_path: Path) -> None:
    write(tmp_path, "one.xml", commit="c" * 40, time="10:00", fault="")
    found = rows(read(tmp_path), [*BROKER, DATABASE, RowTest("a.test_b", "test_row_8_another")])
    assert (found[7].passed, found[8].passed) == (True, False)
    assert "**1 of its tests were not run to their end yet.**" in page(found, {})


def test_a_row_of_earlier_code_is_shown_as_such_until_it_is_run_again(tmp_path: Path) -> None:
    write(tmp_path, "one.xml", commit="c" * 40, time="10:00", fault="")
    found = rows(read(tmp_path), [*BROKER, DATABASE])
    before = page({}, found)
    assert before.count("**Shown of earlier code; not run again since.**") == 2
    assert f"0 of {len(ROWS)} rows shown" in before
    assert "2 more were shown of earlier code" in before
    assert "earlier code" not in page(found, found)


def test_liveness_and_safety_are_apart() -> None:
    text = page({}, {})
    order = [int(row) for row in re.findall(r"^## Row (\d+)$", text, re.MULTILINE)]
    assert order == [*LIVENESS, *(row for row in ROWS if row not in LIVENESS)]


def test_each_cell_of_the_matrix_is_of_known_features_and_names_the_rows_that_show_it() -> None:
    for cell in CELLS:
        assert {cell.one, cell.other} <= FEATURES.keys()
        rows_named = {int(row) for row in re.findall(r"\d+", cell.why.partition(":")[0])}
        assert (cell.status == "shown") == bool(rows_named & set(ROWS)), cell


def test_a_test_is_the_same_to_pytest_and_in_its_reports() -> None:
    node = "antenna_assets_tests/faults/test_x.py::test_row_7_it_is[a::b/c.py]"
    assert RowTest.of_node(node) == RowTest(
        "antenna_assets_tests.faults.test_x", "test_row_7_it_is[a::b/c.py]"
    )
