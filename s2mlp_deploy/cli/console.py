"""What every command shares: where output goes, how errors and progress are shown."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from s2mlp_deploy.deprecation import DeprecatedUseWarning
from s2mlp_deploy.files import to_json
from s2mlp_deploy.progress import ProgressCallback
from s2mlp_deploy.text import UNSAFE, harmless, whole_number

BROKEN_PIPE = 141
"""Exit status where nobody reads the output, as of a process that SIGPIPE ended. 1 would be a check that failed."""

_PIPE_WIDTH = 10_000
"""Columns of what is no terminal: lines are as long as they need to be. ``COLUMNS`` wins, up to as many."""


class PlainConsole(Console):
    """A console on which nobody's text is a command to the terminal.

    Class names, file names, tensor keys and metadata are other people's text: an escape character in them would colour
    or clear the screen, retitle the window or write to the clipboard. What is printed goes through here, tables,
    warnings and errors alike; rich's own styles are added later.

    Attributes:
        document_written: Whether this command has written its one JSON document.
    """

    document_written = False

    def __init__(self, *, force_terminal: bool | None = None, **options: Any) -> None:
        super().__init__(force_terminal=force_terminal, **options)
        self._forced = force_terminal

    @property
    def on_screen(self) -> bool:
        """Whether this is a terminal, not a pipe or a log that was promised colours (``FORCE_COLOR``)."""
        if self._forced is not None:
            return self._forced
        try:
            return self.file.isatty()
        except ValueError:  # It was closed.
            return False

    @property
    def draws(self) -> bool:
        """Whether lines can be drawn over: not in a pipe, whatever its colours, and not where ``TERM`` is dumb."""
        return self.on_screen and self.is_interactive and not self.is_dumb_terminal

    @property
    def size(self) -> ConsoleDimensions:
        """Of the terminal; a pipe has none, and whoever reads it looks for whole names in whole lines."""
        # Rich reads COLUMNS once, when the console is made; this one lives as long as the process.
        if columns := whole_number(os.environ.get("COLUMNS", "")):
            return ConsoleDimensions(min(columns, _PIPE_WIDTH), super().size.height)
        return super().size if self.on_screen else ConsoleDimensions(_PIPE_WIDTH, 25)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        Console.size.fset(self, new_size)  # type: ignore[attr-defined]

    def on_broken_pipe(self) -> None:
        """Whoever read the output, as ``head`` does, has what it wanted: no message, and none when Python ends."""
        self.quiet = True
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(BROKEN_PIPE)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See :class:`rich.console.Console`."""
        for segment in super().render(renderable, options):
            yield (
                segment
                if segment.control or not UNSAFE.search(segment.text)
                else segment._replace(text=harmless(segment.text))
            )


def drop_unusable_sizes(environment: MutableMapping[str, str]) -> None:
    """Removes what the environment says of the terminal's size where that is no size, or none that anybody has.

    Rich, and typer's help through it, make a number of whatever looks like digits, when a console is made: thousands of
    them, or a superscript, would end every command before it begins.
    """
    for name in ("COLUMNS", "LINES"):
        if not 0 < (whole_number(environment.get(name, "")) or 0) <= _PIPE_WIDTH:
            environment.pop(name, None)


drop_unusable_sizes(os.environ)
OUT = PlainConsole()
ERR = PlainConsole(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, everything else on stderr.")]


def emit(value: object, *, as_json: bool, render: Callable[[Console], None]) -> None:
    """Prints a result: as JSON on stdout, or rendered for people."""
    if as_json:
        write_document(value)
    else:
        render(OUT)


def write_document(value: object) -> None:
    """Writes the one JSON document of a command to stdout."""
    # JSON escapes what is below a space itself; as an escape the others are still the same text.
    document = to_json(value).decode()
    sys.stdout.write(UNSAFE.sub(lambda found: f"\\u{ord(found.group()):04x}", document))
    OUT.document_written = True


class _Warnings(logging.Handler):
    """Prints what the package has to say on stderr, unwrapped: some of it holds a command to copy."""

    def emit(self, record: logging.LogRecord) -> None:
        kind = ("note: ", "dim") if record.levelno == logging.INFO else (f"{record.levelname.lower()}: ", "yellow")
        line = Text.assemble(kind, record.getMessage())
        ERR.print(line, soft_wrap=True)


def set_up_logging() -> None:
    """Notes and warnings of the package go to stderr; what it makes of onnx-ir's, it says in its own words."""
    # Python prints what nobody handles, and onnx-ir logs the traceback of every graph that it cannot infer.
    logging.getLogger("onnx_ir").addHandler(logging.NullHandler())
    logger = logging.getLogger("s2mlp_deploy")
    if not logger.handlers:
        logger.addHandler(_Warnings())
        logger.propagate = False
    logger.setLevel(logging.WARNING)
    # What it does in the user's place is said: which file it took, for example.
    for room in ("api", "sources"):
        logging.getLogger(f"s2mlp_deploy.{room}").setLevel(logging.INFO)
    warnings.showwarning = _show_warning


_python_shows = warnings.showwarning


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Shows a deprecation without the line of code beside it: a user of the command line did not write it."""
    if issubclass(category, DeprecatedUseWarning):
        logging.getLogger("s2mlp_deploy").warning("%s", message)
    else:
        _python_shows(message, category, *where, **more)


_EVERY = 5.0
"""Seconds between two lines of progress where there is no terminal to draw a bar on."""


@contextmanager
def progress() -> Iterator[ProgressCallback]:
    """A progress bar on stderr where that is a terminal; elsewhere, in a pipe or a log, a line every few seconds."""
    if not ERR.draws:
        with _lines() as callback:
            yield callback
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


@contextmanager
def _lines() -> Iterator[ProgressCallback]:
    """Says on stderr every few seconds what is being done, from a thread: a capture reports nothing while it runs."""
    start, ended = time.monotonic(), threading.Event()
    state: tuple[str, int, int | None] = ("starting", 0, None)

    def report(what: str, done: int, total: int | None) -> None:
        nonlocal state
        state = (what, done, total)

    def tell() -> None:
        while not ended.wait(_EVERY):
            what, done, total = state
            count = "" if total is None else f", {done} of {total}"
            line = harmless(f"{what}{count} ({time.monotonic() - start:.0f} s)")
            # Not through the console: where nobody reads stderr, that is no reason to end the work.
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.write(f"{line}\n")
                sys.stderr.flush()

    thread = threading.Thread(target=tell, name="progress", daemon=True)
    thread.start()
    try:
        yield report
    finally:
        ended.set()
        thread.join()
