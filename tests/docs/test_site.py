"""The built site: links, search and width, in a browser and from files. ``make docs`` builds it before."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from in_chromium import Listener, needs_browser

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "build" / "site"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (SITE / "index.html").is_file(), reason="no site here: make docs builds it"),
]

PROBE = """
const wait = (frame, page) => new Promise((done, fail) => {
  frame.onload = () => setTimeout(done, 50);
  setTimeout(fail, 60_000, page + " does not load");
});
async function look(frame, page) {
  const loaded = wait(frame, page);
  frame.src = page;
  await loaded;
  const inside = frame.contentDocument, view = inside.defaultView;
  const scrolls = item => ["auto", "scroll", "hidden", "clip"].includes(view.getComputedStyle(item).overflowX);
  const held = item => { for (let at = item.parentElement; at; at = at.parentElement) if (scrolls(at)) return true; };
  const out = [...inside.querySelectorAll("article *")].filter(item =>
    item.getBoundingClientRect().right > inside.documentElement.clientWidth + 1 && !held(item));
  return {page: inside.documentElement.scrollWidth, out: out.slice(0, 3).map(item => item.outerHTML.slice(0, 120))};
}
addEventListener("load", async () => {
  const found = {};
  for (const frame of document.querySelectorAll("iframe")) {
    for (const page of PAGES) found[frame.id + " " + page] = await look(frame, page);
  }
  tell(found);
});
"""
SEARCH = """
addEventListener("load", async () => {
  const page = document.querySelector("iframe").contentDocument;
  const links = () => [...page.querySelectorAll("#search-results li a")].map(item => item.getAttribute("href"));
  const ended = () => page.querySelector("#search-results .search-summary")?.textContent;
  for (let i = 0; i < 600 && !(links().length && ended()); i++) await new Promise(done => setTimeout(done, 50));
  tell({links: links(), summary: ended()});
});
"""


@pytest.fixture(scope="module")
def links() -> Any:
    """The checker of links, which can be run by itself too."""
    spec = importlib.util.spec_from_file_location("site_links", ROOT / "docs" / "ext" / "site_links.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_link_leads_somewhere_and_nothing_comes_from_elsewhere(links):
    assert links.broken(SITE) == []
    assert links.foreign(SITE) == []
    assert len(links.pages(SITE)) > 40
    assert sum(1 for _ in links.links(SITE)) > 3000


def test_links_that_lead_nowhere_are_found(links, tmp_path):
    (tmp_path / "a.html").write_text('<p id="here"><a href="b.html#there"></a><a href="#here"></a>')
    (tmp_path / "b.html").write_text('<a href="c.html"></a><script src="https://example.com/x.js"></script>')
    assert links.broken(tmp_path) == ["a.html: b.html#there has no such place", "b.html: c.html is not there"]
    assert links.foreign(tmp_path) == ["b.html: https://example.com/x.js"]


def test_every_page_of_the_repository_has_one():
    sources = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.ipynb"), *(ROOT / "benchmarks").glob("*.md")]
    missing = [path for path in sources if not (SITE / path.relative_to(ROOT)).with_suffix(".html").is_file()]
    assert missing == []


def browsed(body: str, script: str, place: Path) -> dict[str, Any]:
    """What a script told of the frames of a page."""
    with Listener() as listener:
        page = place / "frames.html"
        page.write_text(f"<!DOCTYPE html><body>{body}<script>{listener.script}{script}</script>")
        return listener.browse(page.as_uri(), place)[0]


@needs_browser
def test_search_works_from_files(tmp_path):
    address = (SITE / "search.html").as_uri() + "?q=grouped-conv"
    found = browsed(f'<iframe src="{address}"></iframe>', SEARCH, tmp_path)
    assert any(link.startswith("docs/reference/forms.html") for link in found["links"]), found


@needs_browser
def test_no_page_is_wider_than_a_phone_or_a_desktop(links, tmp_path):
    pages = [
        path.as_uri() for path in links.pages(SITE) if path.name not in ("index.html", "search.html", "genindex.html")
    ]
    frames = "".join(
        f'<iframe id="{width}" style="width:{width}px;height:900px;border:0"></iframe>' for width in (390, 1280)
    )
    seen = browsed(frames, f"const PAGES = {json.dumps(pages)};{PROBE}", tmp_path)
    assert len(seen) == 2 * len(pages)
    wide = {name: look for name, look in seen.items() if look["out"] or look["page"] > int(name.split()[0])}
    assert wide == {}
