"""Every link of the built site: that it leads somewhere in the site, to an anchor that is there.

python docs/ext/site_links.py build/site
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """What a page links, loads and can be linked at.

    Attributes:
        links: What its links name.
        loaded: What it loads: scripts, styles, images.
        anchors: Where links may lead.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called by the parser."""
        named = {name: value or "" for name, value in attrs}
        self.anchors |= {named[name] for name in ("id", "name") if name in named}
        if tag == "a" and "href" in named:
            self.links.append(named["href"])
        elif (
            tag == "link"
            and "href" in named
            and named.get("rel") not in ("canonical", "index", "search", "next", "prev")
        ):
            self.loaded.append(named["href"])
        elif "src" in named:
            self.loaded.append(named["src"])


@cache
def _page(path: Path) -> Page:
    return Page(path)


def pages(site: Path) -> list[Path]:
    """The site's pages."""
    return sorted(path for path in site.rglob("*.html") if "_static" not in path.parts)


def links(site: Path) -> Iterator[tuple[Path, str]]:
    """Every link within the site, and everything that a page loads."""
    for path in pages(site):
        for target in (*_page(path).links, *_page(path).loaded):
            if not urlsplit(target).scheme:
                yield path, target


def foreign(site: Path) -> list[str]:
    """What pages load from elsewhere: then they would not work without a network."""
    return [
        f"{path.relative_to(site)}: {target}"
        for path in pages(site)
        for target in _page(path).loaded
        if urlsplit(target).netloc
    ]


def broken(site: Path) -> list[str]:
    """Links that lead nowhere."""
    found = []
    for path, target in links(site):
        parts = urlsplit(target)
        there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        anchor = unquote(parts.fragment)
        if not there.is_file():
            found.append(f"{path.relative_to(site)}: {target} is not there")
        elif anchor and there.suffix == ".html" and anchor not in _page(there).anchors:
            found.append(f"{path.relative_to(site)}: {target} has no such place")
    return found


if __name__ == "__main__":
    place = Path(sys.argv[1]).resolve()
    wrong = [*broken(place), *foreign(place)]
    print("\n".join(wrong))
    print(f"{len(pages(place))} pages, {sum(1 for _ in links(place)):,} links checked, {len(wrong)} broken")
    sys.exit(bool(wrong))
