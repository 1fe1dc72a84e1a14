"""Records and pages in a notebook.

A record is shown by the words that a terminal shows of it: one text for both, and no package besides.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.terminal_theme import TerminalTheme

from s2mlp_deploy.evidence.accuracy import AccuracyReport
from s2mlp_deploy.evidence.bench import BenchReport
from s2mlp_deploy.evidence.build import BuildRecord
from s2mlp_deploy.evidence.calibration import CalibrationReport
from s2mlp_deploy.evidence.difference import DifferenceReport
from s2mlp_deploy.evidence.engine_difference import EngineDifference
from s2mlp_deploy.evidence.engine_layers import EngineLayers, RunTimes
from s2mlp_deploy.evidence.layers import LayersReport
from s2mlp_deploy.evidence.modules import ModulesReport
from s2mlp_deploy.evidence.notebook import Shown, ShownInNotebooks
from s2mlp_deploy.evidence.parity import ParityReport
from s2mlp_deploy.evidence.profile import Profile
from s2mlp_deploy.evidence.store import Evidence
from s2mlp_deploy.evidence.tune import TuneReport
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.accuracy import print_accuracy
from s2mlp_deploy.report.bench import print_bench
from s2mlp_deploy.report.difference import print_difference
from s2mlp_deploy.report.engine_difference import print_engine_difference
from s2mlp_deploy.report.engine_layers import print_layers as print_engine_layers
from s2mlp_deploy.report.engine_layers import print_times
from s2mlp_deploy.report.engines import print_build
from s2mlp_deploy.report.html import render_report
from s2mlp_deploy.report.layers import print_layers
from s2mlp_deploy.report.profile import print_profile
from s2mlp_deploy.report.tables import print_pairs, print_table, print_words, visible_text
from s2mlp_deploy.report.terminal import print_parity
from s2mlp_deploy.report.tune import print_tune
from s2mlp_deploy.text import harmless, with_prompts

_WIDTH, _WIDE = 118, 190
"""Columns of a record, and of one whose table is wider; a notebook that is narrower scrolls it."""

_HEIGHT = 720
"""Pixels of a page in a notebook."""

# The colours of the page on white, which every one of them is legible on: a notebook may be light or dark.
_INK, _BAD, _GOOD, _WARN, _LINK = (26, 32, 41), (179, 32, 27), (19, 108, 55), (138, 83, 0), (29, 78, 216)
_DIM, _SOFT = "#8c8f94", "#5a6675"
_COLOURS = [_INK, _BAD, _GOOD, _WARN, _LINK, _LINK, _LINK, _INK]
_THEME = TerminalTheme((255, 255, 255), _INK, _COLOURS, _COLOURS)
_FORMAT = (
    '<pre style="background:#fff;color:#1a2029;padding:8px 12px;overflow-x:auto;font-size:13px;line-height:1.3;'
    "white-space:pre;font-family:ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace\">{code}</pre>"
)


def shown_of(record: object) -> Shown | None:
    """A record as a notebook shows it; None for what has no drawing.

    Args:
        record: Of a type of :data:`~s2mlp_deploy.evidence.store.KINDS`, or a profile.
    """
    printer = _PRINTERS.get(type(record))
    if printer is None:
        return None
    return drawn(lambda console: printer(console, record), _WIDE if isinstance(record, LayersReport) else _WIDTH)


def drawn(printer: Callable[[Console], None], width: int = _WIDTH) -> Shown:
    """What is printed on a terminal, as a notebook shows it.

    Args:
        printer: Prints on the console that it is given.
        width: Columns.
    """
    # In a notebook rich would show every line at once besides, as an output of its own.
    console = Console(record=True, file=io.StringIO(), width=width, legacy_windows=False, force_jupyter=False)
    printer(console)
    text = "\n".join(line.rstrip() for line in console.export_text(clear=False).strip("\n").split("\n"))
    html = console.export_html(theme=_THEME, code_format=_FORMAT, inline_styles=True)
    # What is dim rich mixes with the ground by half, which is too pale to read.
    html = html.replace(f"color: {_DIM}; text-decoration-color: {_DIM}", f"color: {_SOFT}")
    return Shown(harmless(html), harmless(text))


class ShownAsPrinted(ShownInNotebooks):
    """A result that a notebook shows as the command line prints it."""

    def print_to(self, console: Console) -> None:
        """Prints it."""
        raise NotImplementedError

    def _shown(self) -> Shown:
        return drawn(self.print_to)


def _print_calibration(console: Console, report: CalibrationReport) -> None:
    made = report.calibration
    print_words(console, visible_text(console, "Calibration", "bold"))
    print_pairs(
        console,
        [
            ("data", made.data),
            ("samples", fmt.integer(made.samples)),
            ("method", made.method),
            ("activations", fmt.integer(len(report.activations))),
        ],
    )


def _print_modules(console: Console, report: ModulesReport) -> None:
    rows = [
        (
            module.path or fmt.MISSING,
            fmt.integer(sum(module.operators.values())),
            ", ".join(f"{fmt.size(amount)} {name}" for name, amount in module.weights.items()),
            ", ".join(module.computes),
        )
        for module in report.modules
    ]
    print_table(console, f"Modules of {report.file}", ("module", "nodes", "weights", "computes in"), rows)


def _print_evidence(console: Console, evidence: Evidence) -> None:
    saved = [(item.name, type(item.record).__name__, "") for item in evidence.saved]
    unreadable = [(item.name, item.record.__name__, item.problem) for item in evidence.unreadable]
    others = [(name, None, "of no kind that is known") for name in evidence.others]
    rows = [*saved, *unreadable, *others]
    shown = 3 if unreadable or others else 2
    columns = ("file", "record", "left out because")[:shown]
    print_table(console, fmt.count(len(saved), "record"), columns, [row[:shown] for row in rows])


_PRINTERS: dict[type[Any], Callable[[Console, Any], None]] = {
    ParityReport: print_parity,
    AccuracyReport: print_accuracy,
    LayersReport: print_layers,
    ModulesReport: _print_modules,
    BenchReport: print_bench,
    BuildRecord: print_build,
    CalibrationReport: _print_calibration,
    TuneReport: print_tune,
    EngineLayers: print_engine_layers,
    RunTimes: print_times,
    DifferenceReport: print_difference,
    EngineDifference: print_engine_difference,
    Evidence: _print_evidence,
    Profile: lambda console, profile: print_profile(console, "a run", profile),
}


@dataclass(frozen=True)
class NotebookPage:
    """An artifact's page, for a notebook to show.

    Attributes:
        page: A whole HTML document.
    """

    page: str = field(repr=False)

    def _repr_html_(self) -> str:
        """A frame with the page: its styles stay inside; its script, of no origin, reaches nothing else."""
        # Between single quotes these two alone mean something; a notebook that is saved keeps every letter.
        page = self.page.replace("&", "&amp;").replace("'", "&#39;")
        return (
            f'<iframe sandbox="allow-scripts" title="s2mlp-deploy report" '
            f"style=\"width:100%;height:{_HEIGHT}px;border:0\" srcdoc='{page}'></iframe>"
        )


def page_of(directory: str | Path) -> NotebookPage:
    """An artifact's page, made anew from its manifest and evidence; nothing is written.

    Raises:
        ArtifactError: There is no manifest that can be read.
        MissingDependencyError: jinja2 is not installed.
    """
    return NotebookPage(with_prompts(render_report(Path(directory)).decode()))


def show(page: NotebookPage) -> NotebookPage | None:
    """Shows a page at once where IPython runs; elsewhere it is returned, for whoever shows what a cell gives back."""
    shell = sys.modules.get("IPython")
    if shell is None or shell.get_ipython() is None:
        return page
    shell.display.display(page)
    return None
