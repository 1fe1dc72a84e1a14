"""The built site: links, search and width, in a browser and from files. ``make docs`` builds it before."""

from __future__ import annotations

import html
import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "build" / "site"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (SITE / "index.html").is_file(), reason="no site here: make docs builds it"),
]
in_a_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium here: apt-get install chromium")

PROBE = """
const wait = frame => new Promise(done => { frame.onload = () => setTimeout(done, 50); });
async function look(frame, page) {
  const loaded = wait(frame);
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
  document.body.innerHTML = "<pre></pre>";
  document.querySelector("pre").textContent = JSON.stringify(found);
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


def dumped(page: str, place: Path, budget: int) -> str:
    """A page's document after its scripts ran, from a file and without a network."""
    done = subprocess.run(
        [
            *(str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"),
            *(f"--user-data-dir={place}/profile", f"--virtual-time-budget={budget}", "--window-size=1400,1000"),
            *("--dump-dom", page),
        ],
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    return done.stdout


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


@in_a_browser
def test_search_works_from_files(tmp_path):
    text = dumped((SITE / "search.html").as_uri() + "?q=grouped-conv", tmp_path, 20_000)
    results = text[text.index('id="search-results"') :]
    assert re.search(r'<a href="[^"]*docs/reference/forms\.html', results), results[:2000]


@in_a_browser
def test_no_page_is_wider_than_a_phone_or_a_desktop(links, tmp_path):
    pages = [
        path.as_uri() for path in links.pages(SITE) if path.name not in ("index.html", "search.html", "genindex.html")
    ]
    frames = "".join(
        f'<iframe id="{width}" style="width:{width}px;height:900px;border:0"></iframe>' for width in (390, 1280)
    )
    script = f"const PAGES = {json.dumps(pages)};{PROBE}"
    (tmp_path / "frames.html").write_text(f"<!DOCTYPE html><body>{frames}<script>{script}</script>")
    found = re.search(r"<pre>(.*?)</pre>", dumped((tmp_path / "frames.html").as_uri(), tmp_path, 900_000), re.DOTALL)
    assert found is not None
    seen = json.loads(html.unescape(found[1]))
    assert len(seen) == 2 * len(pages)
    wide = {name: look for name, look in seen.items() if look["out"] or look["page"] > int(name.split()[0])}
    assert wide == {}
