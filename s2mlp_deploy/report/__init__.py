"""Saved results as pages and tables: reads manifests and evidence files, never engines, graphs or torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from s2mlp_deploy.report.notebook import NotebookPage


def display(directory: str | Path) -> NotebookPage | None:
    """Shows an artifact's page in a notebook, in a frame of its own; nothing is written.

    Args:
        directory: The artifact, or its ``manifest.json`` and ``evidence/`` alone.

    Returns:
        None where IPython shows it at once; elsewhere the page, which front ends show that ask for ``_repr_html_``.

    Raises:
        ArtifactError: There is no manifest that can be read.
        MissingDependencyError: jinja2 is not installed.
    """
    # The command line imports the terminal's half of this room at every start, and must not pay for the pages' half.
    from s2mlp_deploy.report.notebook import page_of, show

    return show(page_of(directory))
