"""The pages: their links and anchors lead somewhere, the modules that they name exist, and their prose is wrapped."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from antenna_assets.storage.project_files import docker_folder

ROOT = docker_folder().parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
# Written by programs.
GENERATED = {ROOT / "docs" / "proofs.md", ROOT / "docs" / "benchmarks.md"}
# Where a page may begin when it names a file.
FOLDERS = [ROOT / name for name in (".", "antenna_assets", "antenna_assets_tests", "docs", "docker")]
WIDTH = 110


def prose(page: Path) -> Iterator[str]:
    """The lines of a page outside of its blocks of code."""
    in_block = False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("```"):
            in_block = not in_block
        elif not in_block:
            yield line


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = [line.lstrip("#").strip() for line in prose(page) if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_to_a_page_and_an_anchor_that_exist(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", "\n".join(prose(page))):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", [page for page in PAGES if page not in GENERATED], ids=name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    text = "\n".join(prose(page))
    paths = re.findall(r"`((?:[a-z0-9_-]+/)+[a-z0-9_.-]+\.(?:py|sql|toml|yaml|yml|md|json))`", text)
    missing = [path for path in paths if not any((folder / path).exists() for folder in FOLDERS)]
    known = {
        path.name
        for folder in ("antenna_assets", "antenna_assets_tests", "docker")
        for path in (ROOT / folder).rglob("*.py")
    }
    missing += [file for file in re.findall(r"`([a-z0-9_]+\.py)`", text) if file not in known | {"fix.py"}]
    assert missing == []


@pytest.mark.parametrize("page", [page for page in PAGES if page not in GENERATED], ids=name)
def test_prose_is_wrapped(page: Path) -> None:
    # Tables and pictures have a line each, and a code span without a space cannot be broken.
    long = [
        line
        for line in prose(page)
        if len(line) > WIDTH
        and not line.startswith(("|", "!["))
        and not re.fullmatch(r"\s*`[^`]*`[.,:]?", line)
    ]
    assert long == []
