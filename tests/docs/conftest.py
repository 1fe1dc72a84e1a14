"""What the tests of the documentation need besides the package."""

from __future__ import annotations

from importlib.util import find_spec

# Part of the extra `dev`; an environment that is older than it still collects everything else.
collect_ignore = [] if find_spec("sybil") else ["test_pages.py", "test_running.py", "test_snippets.py"]
