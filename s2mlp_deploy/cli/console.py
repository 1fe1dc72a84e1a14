"""What every command shares: where output goes, how errors and progress are shown."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler

from s2mlp_deploy.files import to_json
from s2mlp_deploy.progress import ProgressCallback, no_progress

OUT = Console()
ERR = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, everything else on stderr.")]


def emit(value: object, *, as_json: bool, render: Callable[[Console], None]) -> None:
    """Prints a result: as JSON on stdout, or rendered for people."""
    if as_json:
        sys.stdout.write(to_json(value).decode())
    else:
        render(OUT)


def set_up_logging() -> None:
    """Warnings of the package go to stderr."""
    logger = logging.getLogger("s2mlp_deploy")
    if not logger.handlers:
        handler = RichHandler(console=ERR, show_time=False, show_path=False, markup=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
        logger.propagate = False
    logger.setLevel(logging.WARNING)


@contextmanager
def progress() -> Iterator[ProgressCallback]:
    """A progress bar on stderr where that is a terminal; nothing in a pipe."""
    if not ERR.is_terminal:
        yield no_progress
        return
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=ERR, transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def report(what: str, done: int, total: int | None) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield report
