"""What the package does not do yet, by case and by what ``test_gallery`` asks of it."""

from __future__ import annotations

KNOWN: dict[str, dict[str, str]] = {}
MAYBE: dict[str, dict[str, str]] = {}
"""May pass or not."""
