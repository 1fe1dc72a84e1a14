"""The pages for users and their blocks, as Sybil reads them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sybil import Document, Example, Region
from sybil.parsers.abstract.lexers import LexerCollection
from sybil.parsers.markdown import SkipParser
from sybil.parsers.markdown.lexers import DirectiveInHTMLCommentLexer, RawFencedCodeBlockLexer

ROOT = Path(__file__).resolve().parents[2]
RUN = ("bash", "console", "python")
SHOWN = "output"
LANGUAGES = {*RUN, SHOWN, "text", "json", "toml", "yaml", "ini", "html", "dockerfile", "makefile", "protobuf"}
"""What a block may be said to be; the site colours all of them."""


def pages() -> list[Path]:
    """README and what lies under docs/, without notebooks."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def pages_that_run() -> list[Path]:
    """Those for users. What contributors type installs other versions, or is a piece of a file."""
    return [page for page in pages() if not _is_for_contributors(page.relative_to(ROOT))]


def _is_for_contributors(page: Path) -> bool:
    return "contributing" in page.parts or page.name in ("architecture.md", "extending.md")


@dataclass(frozen=True)
class Block:
    """A fenced block, or an invisible one of a comment.

    Attributes:
        language: As its fence declares it; "" where it does not.
        text: What stands between the fences.
        line: Of the page, where the text begins.
    """

    language: str
    text: str
    line: int


Evaluate = Callable[[Example], None]


class _Blocks:
    """A parser of Sybil's for every fenced block of Markdown but MyST's directives, and for invisible ones."""

    def __init__(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate
        self._lexers = LexerCollection(
            [
                RawFencedCodeBlockLexer(re.compile(r"(?P<language>[^\n]*)\n")),
                DirectiveInHTMLCommentLexer(
                    "invisible-code-block", r"\w+", {"arguments": "language", "source": "source"}
                ),
            ]
        )

    def __call__(self, document: Document) -> Iterator[Region]:
        for region in self._lexers(document):
            language, source = str(region.lexemes["language"]).strip(), region.lexemes["source"]
            if not language.startswith("{"):
                line = document.text.count("\n", 0, region.start) + 2
                yield Region(region.start, region.end, Block(language, str(source), line), self._evaluate)


def parse(page: Path, evaluate: Evaluate) -> Document:
    """A page whose examples are its blocks (``parsed`` is a :class:`Block`) and ``skip`` comments (a pair)."""
    return Document.parse(str(page), _Blocks(evaluate), SkipParser())


def blocks(page: Path) -> list[Block]:
    """The blocks of a page in their order."""
    return [part.parsed for part in parse(page, lambda _: None) if isinstance(part.parsed, Block)]


def skipped(page: Path) -> list[tuple[Block, str | None]]:
    """The blocks that do not run, with the reasons that the page gives."""
    found: list[tuple[Block, str | None]] = []
    action, reason = "", None
    for part in parse(page, lambda _: None):
        if not isinstance(part.parsed, Block):
            action, reason = part.parsed
        elif action in ("next", "start"):
            found.append((part.parsed, reason))
            action = "" if action == "next" else action
    return found


def command_lines(text: str) -> list[str]:
    """The commands of a ``console`` block, without their prompts and outputs."""
    return [command for command, _ in transcript(text)]


def transcript(text: str) -> list[tuple[str, str]]:
    """The commands of a ``console`` block, each with what is shown below it.

    A command goes on in the next line after a backslash, or where that begins with ``> ``.
    """
    found: list[tuple[str, str]] = []
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        end = 1
        while end < len(lines) and (lines[end - 1].endswith("\\") or lines[end].startswith("> ")):
            end += 1
        command = "\n".join([lines[0], *(line.removeprefix("> ") for line in lines[1:end])])
        found.append((command, "\n".join(lines[end:])))
    return found


def figures() -> str:
    """How many blocks there are and run, and why others do not."""
    kept = [(page, [block for block in blocks(page) if block.language in RUN]) for page in pages_that_run()]
    kept = [(page, found) for page, found in kept if found]
    reasons = Counter(
        (reason or "").strip('"') for page, _ in kept for block, reason in skipped(page) if block.language in RUN
    )
    every, shown = sum(len(found) for _, found in kept), 0
    for page, _ in kept:
        for block in blocks(page):
            shown += block.language == SHOWN or (
                block.language == "console" and any(text.strip() for _, text in transcript(block.text))
            )
    lines = [f"{len(kept)} pages, {every} blocks, of which {every - reasons.total()} run; {shown} show an output"]
    return "\n".join([*lines, *(f"{count} not run: {reason}" for reason, count in reasons.most_common())])


if __name__ == "__main__":
    print(figures())
