"""Tables as the pages show them: text and tone, without any layout."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cell:
    """A value.

    Attributes:
        text: What is shown.
        note: A smaller second line.
        href: Where it leads, relative to the page.
        title: The whole of what was shortened.
        tone: ``good``, ``bad`` or ``warn``; never the only sign of it.
    """

    text: str
    note: str = ""
    href: str = ""
    title: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Table:
    """Rows under headings.

    Attributes:
        columns: Headings.
        rows: One cell for each heading.
        numeric: Columns that are aligned right.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numeric: frozenset[int] = field(default_factory=frozenset)
