"""Markdown for generated pages: tables, and docstrings, which are written in reStructuredText."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence

_ROLE = re.compile(r":\w+(?::\w+)*:`~?(?:[^`<]*<)?([^`>]+)>?`")


def plain(docstring: str) -> str:
    """A docstring's text as Markdown: roles become names, double back quotes single ones."""
    text = _ROLE.sub(lambda role: f"`{role[1].rpartition('.')[2]}`", docstring)
    return re.sub(r"``([^`]+)``", r"`\1`", text)


def cell(text: str) -> str:
    """Text that stands in a table: on one line, with no bar of its own."""
    return " ".join(text.split()).replace("|", "\\|")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell(part) for part in line)} |" for line in lines) + "\n"


def code(text: str) -> str:
    """Text in back quotes; nothing of nothing. Sharp brackets and bars are kept as they are written."""
    return f"`{text}`" if text else ""


def attributes_of(record: type) -> dict[str, str]:
    """What a class says of its attributes, its bases' among them: name and text of each, as Markdown."""
    found: dict[str, str] = {}
    for kind in reversed(record.__mro__):
        section = re.search(
            r"^Attributes:\n((?:[ ].*\n?|\n)+)", inspect.cleandoc(kind.__dict__.get("__doc__") or ""), re.M
        )
        if section:
            parts = re.split(r"^    (\w+): ", section[1], flags=re.M)
            found |= {name: plain(" ".join(text.split())) for name, text in zip(parts[1::2], parts[2::2], strict=True)}
    return found


def summary_of(record: type) -> str:
    """What stands before the first section of a class's docstring, as Markdown."""
    text = inspect.cleandoc(record.__dict__.get("__doc__") or "")
    return plain(re.split(r"^(?:Attributes|Raises|Args|Returns):$", text, maxsplit=1, flags=re.M)[0]).strip()
