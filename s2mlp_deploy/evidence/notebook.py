"""How a notebook shows a record.

Jupyter and its like ask an object for a MIME bundle, or for ``_repr_html_``. Records know nothing of drawing, and
drawing knows records: the arrow points from ``report/`` to here and never back. So whoever stands above both, the API's
door, hands over what draws. Where nobody did, or where a kind has no drawing, a notebook prints a record's fields as
Python does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shown:
    """A record as it is shown.

    Attributes:
        html: In a notebook.
        text: Where there is only text: IPython in a terminal, and whoever reads a saved notebook without a browser.
    """

    html: str
    text: str


_drawing: Callable[[object], Shown | None] | None = None


def draw_records_with(drawing: Callable[[object], Shown | None]) -> None:
    """Sets what draws records.

    Args:
        drawing: Draws a record; None where it knows no drawing of that kind.
    """
    global _drawing
    _drawing = drawing


class ShownInNotebooks:
    """A record that a notebook shows as tables."""

    def _shown(self) -> Shown | None:
        return _drawing(self) if _drawing is not None else None

    def _repr_html_(self) -> str | None:
        """HTML for a notebook; None has it print the fields."""
        shown = self._shown()
        return None if shown is None else shown.html

    def _repr_mimebundle_(self, **_kinds: object) -> dict[str, Any] | None:
        """HTML and text for IPython, whose text would else be all fields: hashes, histograms and the machine."""
        shown = self._shown()
        return None if shown is None else {"text/html": shown.html, "text/plain": shown.text}
