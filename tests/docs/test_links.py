"""Links between pages: files and headings that they name are there. Generated parts are checked in the built site."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(path for name in ("docs", "benchmarks", "examples") for path in (ROOT / name).rglob("*.md"))]
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^ *(```+|~~~+).*?^ *\1", re.MULTILINE | re.DOTALL)


def links(page: Path) -> list[str]:
    """What a page links in its own repository."""
    return [target for target in LINK.findall(FENCE.sub("", page.read_text())) if "://" not in target]


@cache
def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as public forges and the site name them."""
    text = FENCE.sub("", page.read_text())
    names = [re.sub(r"[^\w\- ]", "", name.lower()).strip() for name in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
    return {name.replace(" ", "-") for name in names}


def test_every_link_leads_to_a_file_of_the_repository_and_a_heading_of_it():
    wrong, read = [], 0
    for page in PAGES:
        for target in links(page):
            read += 1
            name, _, anchor = target.partition("#")
            there = (page.parent / name).resolve() if name else page
            if not there.exists() or not there.is_relative_to(ROOT):
                wrong.append(f"{page.relative_to(ROOT)}: {target}")
            elif anchor and anchor not in headings(there) and "<!-- generated:" not in there.read_text():
                wrong.append(f"{page.relative_to(ROOT)}: {target} has no such heading")
    assert wrong == []
    assert read > 100


def test_every_page_of_figures_is_linked_by_the_page_of_all_of_them():
    named = {target.partition("#")[0] for target in links(ROOT / "benchmarks" / "README.md")}
    pages = {page.name for page in (ROOT / "benchmarks").glob("*.md")} - {"README.md"}
    assert sorted(pages - named) == []


def test_pages_that_messages_and_docstrings_name_are_there():
    wrong, read = [], 0
    for path in (ROOT / "s2mlp_deploy").rglob("*.py"):
        for page in re.findall(r"\b(?:docs|benchmarks)/[\w/-]+\.md\b", path.read_text()):
            # Triton's own, not ours.
            if "docs/user_guide/" in page:
                continue
            read += 1
            if not (ROOT / page).is_file():
                wrong.append(f"{path.relative_to(ROOT)}: {page}")
    assert wrong == []
    assert read >= 10
