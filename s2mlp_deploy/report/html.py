"""One self-contained HTML page per artifact, and one over several, from what was saved.

The same saved results give the same bytes: a page has no date but those of the evidence, so two pages can be compared.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from s2mlp_deploy.artifact import REPORT, is_own_report, read_manifest
from s2mlp_deploy.errors import InputError, MissingDependencyError, OutputError
from s2mlp_deploy.evidence.difference import DifferenceReport
from s2mlp_deploy.evidence.parity import ParityReport
from s2mlp_deploy.evidence.store import read_evidence
from s2mlp_deploy.files import check_parents, write_file
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.banner import parity_verdict
from s2mlp_deploy.report.page.builds import engine_table
from s2mlp_deploy.report.page.cells import Cell, Table
from s2mlp_deploy.report.page.difference import view_difference
from s2mlp_deploy.report.page.icicle import LEGENDS
from s2mlp_deploy.report.page.parity import overview_rows
from s2mlp_deploy.report.page.view import view_artifact
from s2mlp_deploy.report.verdict import Verdict, shown_directory
from s2mlp_deploy.text import harmless, join_names

if TYPE_CHECKING:
    import jinja2

_HYPHENED = re.compile(r"\b\d+(?:\.\d+)?e-\d+|\b\d{4}-\d\d-\d\d\b|(?<![\w-])--[a-z][a-z-]*\b")
"""Numbers, dates and options."""
_UNIT = re.compile(r"(?<=\d) (?=%|(?:dB|ms|s|bytes|[kMGT]B)\b)")
"""Between a number and its unit."""
_LONG = re.compile(r"[^\s&<>]{21,}")
_JOINT = re.compile(r"[._](?=\w)")
_UNBREAKABLE = re.compile(r"[^\s._/-]{21,}")
_OVERVIEW_COLUMNS = (
    "Shift form",
    "Parity",
    "Nodes",
    "File size",
    "Max abs",
    "PSNR",
    "Top-1 agreement",
    "Accuracy, reference",
    "Accuracy, file",
)


def write_report(directory: Path, page: Path | None = None, *, title: str | None = None) -> Path:
    """Writes the page of an artifact.

    Args:
        directory: The artifact.
        page: The page; default ``report.html`` in the artifact.
        title: Heading; default the artifact's name.

    Returns:
        The page.

    Raises:
        ArtifactError: There is no manifest that can be read. Damaged evidence is no error: the page shows it.
        MissingDependencyError: jinja2 is not installed.
        OutputError: The page cannot be written, or another that is none of ours is there.
    """
    path = page if page is not None else directory / REPORT
    return _write_page(path, render_report(directory, base=_base(path, directory), title=title))


def render_report(directory: Path, *, base: str = "./", title: str | None = None) -> bytes:
    """The page of an artifact, as :func:`write_report` writes it.

    Args:
        directory: The artifact.
        base: The artifact's directory as a link on the page, quoted, ending in ``/``.
        title: Heading; default the artifact's name.

    Raises:
        ArtifactError: There is no manifest that can be read.
        MissingDependencyError: jinja2 is not installed.
    """
    view = view_artifact(directory, base=base)
    return _render("report.html.j2", title=title or view.manifest.name, view=view)


def write_overview(path: Path, artifacts: Mapping[str, Path], *, title: str) -> Path:
    """Writes one page over several artifacts, with the details of the first.

    A row links to the artifact's own report where that exists, so write those first.

    Args:
        path: The page.
        artifacts: Directories by what distinguishes them, for example the form of their shifts.
        title: Heading.

    Returns:
        The page.

    Raises:
        InputError: There are no artifacts.
        ArtifactError: One of them has no manifest that can be read.
        MissingDependencyError: jinja2 is not installed.
        OutputError: The page cannot be written, or another that is none of ours is there.
    """
    if not artifacts:
        raise InputError("there is nothing to write an overview of", fix="name at least one artifact")
    rows: list[tuple[Cell, ...]] = []
    engines: list[tuple[Cell, ...]] = []
    verdicts: dict[str, Verdict] = {}
    references: set[str] = set()
    engine_columns: Table | None = None
    for label, directory in artifacts.items():
        manifest, evidence = read_manifest(directory), read_evidence(directory)
        references |= {saved.record.reference for saved in evidence.of(ParityReport)}
        base = _base(path, directory)
        href = base + REPORT if (directory / REPORT).is_file() else ""
        rows += overview_rows(label, href, directory, manifest, evidence)
        engine_columns = engine_table(directory, manifest, evidence, base, label)
        engines += engine_columns.rows
        verdicts[label] = parity_verdict(manifest, evidence, shown_directory(directory))
    assert engine_columns is not None
    first, directory = next(iter(artifacts.items()))
    page = _render(
        "overview.html.j2",
        title=title,
        count=fmt.count(len(artifacts), "artifact") + " side by side",
        references=join_names(sorted(references)) or "not measured yet",
        verdict=_together(verdicts),
        comparison=Table(_OVERVIEW_COLUMNS, tuple(rows), frozenset(range(2, 9))),
        all_engines=Table(engine_columns.columns, tuple(engines), engine_columns.numeric),
        first=first,
        view=view_artifact(directory, base=_base(path, directory)),
    )
    return _write_page(path, page)


def write_difference(path: Path, report: DifferenceReport) -> Path:
    """Writes one page on what distinguishes two files.

    Args:
        path: The page.
        report: What was found.

    Returns:
        The page.

    Raises:
        MissingDependencyError: jinja2 is not installed.
        OutputError: The page cannot be written, or another that is none of ours is there.
    """
    page = _render(
        "difference.html.j2",
        title="Difference of two files" if len(report.files) == 1 else "Difference of two artifacts",
        before=report.before,
        after=report.after,
        files=[view_difference(file) for file in report.files],
        only_before=report.only_before,
        only_after=report.only_after,
    )
    return _write_page(path, page)


def check_page(path: Path) -> None:
    """Refuses to replace a page that is no report of this package.

    Raises:
        OutputError: Such a page is there, or none can be written.
    """
    check_parents(path)
    if os.path.lexists(path) and not is_own_report(path):
        raise OutputError(
            "there is a page that this package did not write, and it is not replaced",
            where=str(path),
            fix="move it away",
        )


def _write_page(path: Path, page: bytes) -> Path:
    check_page(path)
    write_file(path, page)
    return path


def _together(verdicts: Mapping[str, Verdict]) -> Verdict:
    """The worst of the verdicts, and who has it."""
    by_tone = {tone: [name for name in verdicts if verdicts[name].tone == tone] for tone in ("bad", "warn", "good")}
    several = f"{'both' if len(verdicts) == 2 else f'all {len(verdicts)}'} artifacts"
    everywhere = several if len(verdicts) > 1 else f"the artifact {next(iter(verdicts))}"
    if by_tone["bad"]:
        failures = tuple(f"{name}: {failure}" for name in by_tone["bad"] for failure in verdicts[name].failures)
        held = (f"Parity holds for {join_names(by_tone['good'])}.",) if by_tone["good"] else ()
        return Verdict("bad", f"Parity FAILS for {join_names(by_tone['bad'])}", held, failures)
    if by_tone["warn"]:
        lines = tuple(f"{name}: {verdicts[name].headline}." for name in by_tone["warn"])
        commands = tuple(command for name in by_tone["warn"] for command in verdicts[name].commands)
        return Verdict("warn", "Parity is not shown for every artifact", lines, (), commands)
    return Verdict("good", f"Parity holds for {everywhere}")


def _base(page: Path, directory: Path) -> str:
    """Path of an artifact as a link on the page."""
    try:
        relative = Path(os.path.relpath(directory.resolve(), page.resolve().parent)).as_posix()
    except ValueError:  # another drive on Windows
        return f"{directory.resolve().as_uri()}/"
    # A colon in the first part would read as a scheme without the dot.
    return "./" if relative == "." else f"./{quote(relative)}/"


def _unbroken(sentence: str) -> str:
    """Keeps 7.63e-06 and 2026-11-28 on one line: browsers break them after a hyphen."""
    from markupsafe import Markup, escape

    return Markup(_HYPHENED.sub(r'<span class="unbroken">\g<0></span>', _with_units(escape(harmless(sentence)))))


def _breakable(text: str) -> str:
    """Lets long names break after a dot or an underscore, before browsers break them within a word."""
    from markupsafe import Markup, escape

    escaped = _with_units(escape(harmless(text)))
    return Markup(_LONG.sub(lambda word: _JOINT.sub(r"\g<0><wbr>", word[0]), escaped))


def _with_units(text: str) -> str:
    """No line ends between a number and its unit."""
    return _UNIT.sub("&nbsp;", str(text))


def _is_short(text: str) -> bool:
    """Whether no word is too long for a column of a table: it need not be broken within."""
    return not _UNBREAKABLE.search(text)


def _harmless(value: object) -> object:
    """Others' text without characters that turn the rest of a line round; what is markup already is ours."""
    return harmless(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _render(template: str, **values: Any) -> bytes:
    return _environment().get_template(template).render(values).encode("utf-8", "replace")


@functools.cache
def _environment() -> jinja2.Environment:
    try:
        import jinja2
    except ImportError:
        raise MissingDependencyError("jinja2", extra="onnx", purpose="writing HTML reports") from None
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("s2mlp_deploy.report"),
        # Class names, module names and evidence are other people's text.
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_harmless,
    )
    environment.filters["unbroken"] = _unbroken
    environment.filters["breakable"] = _breakable
    environment.tests["short"] = _is_short
    environment.globals["legends"] = LEGENDS
    return environment
