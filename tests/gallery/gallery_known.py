"""What the package does not do yet, by case and by what is asked of it. Each reason ends with what would be right."""

from __future__ import annotations

KNOWN: dict[str, dict[str, str]] = {}
MAYBE: dict[str, dict[str, str]] = {}
"""May pass or not."""
