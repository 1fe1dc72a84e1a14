"""Tables as the pages show them: text and tone, without any layout."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from s2mlp_deploy.report.format import MISSING

_UNITS = ("ms",)


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

    @property
    def filled(self) -> Table:
        """The same without columns in which no row has anything; the first one stays."""
        kept = [
            index
            for index in range(len(self.columns))
            if index == 0 or any(row[index].note or row[index].text not in ("", MISSING) for row in self.rows)
        ]
        return Table(
            tuple(self.columns[index] for index in kept),
            tuple(tuple(row[index] for index in kept) for row in self.rows),
            frozenset(place for place, index in enumerate(kept) if index in self.numeric),
        )


def headings(names: Iterable[str]) -> tuple[str, ...]:
    """Names as headings: with a capital letter but for units."""
    return tuple(name if name in _UNITS else f"{name[:1].upper()}{name[1:]}" for name in names)
