"""Parts of reference pages that are made from the code while a page is read, so that none can go stale.

A page says where with a comment of its own, ``<!-- generated: NAME ARGUMENTS -->``; what comes there is Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import api_pages
import command_pages
import error_pages
import record_pages

MARK = re.compile(r"^<!-- generated: (\w+)([^>]*?) -->$", re.MULTILINE)


GENERATORS: dict[str, Callable[..., str]] = {
    "api": api_pages.entries,
    "choices": api_pages.choices,
    "commands": command_pages.commands,
    "errors": error_pages.errors,
    "evidence": record_pages.evidence,
    "kinds": record_pages.kinds,
    "manifest": record_pages.manifest,
}


def expand(text: str) -> str:
    """A page's text with what its marks stand for."""
    return MARK.sub(lambda mark: GENERATORS[mark[1]](*mark[2].split()), text)
