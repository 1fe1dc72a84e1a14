"""How a notebook shows a record.

Jupyter and its like ask an object for ``_repr_html_``. Records know nothing of drawing, and drawing knows records: the
arrow points from ``report/`` to here and never back. So whoever stands above both, the API's door, hands over what
draws. Where nobody did, or where a kind has no drawing, a notebook prints a record's fields as Python does.
"""

from __future__ import annotations

from collections.abc import Callable

_drawing: Callable[[object], str | None] | None = None


def draw_records_with(drawing: Callable[[object], str | None]) -> None:
    """Sets what draws records.

    Args:
        drawing: Makes HTML of a record; None where it knows no drawing of that kind.
    """
    global _drawing
    _drawing = drawing


class ShownInNotebooks:
    """A record that a notebook shows as tables."""

    def _repr_html_(self) -> str | None:
        """HTML for a notebook; None has it print the fields."""
        return _drawing(self) if _drawing is not None else None
