"""How long work tells how far it is: the one callback type, for every room."""

from __future__ import annotations

from collections.abc import Callable

ProgressCallback = Callable[[str, int, int | None], None]
"""Called with what is being done, how much of it is done, and how much there is (None where nobody knows)."""


def no_progress(what: str, done: int, total: int | None) -> None:
    """Reports to nobody."""
