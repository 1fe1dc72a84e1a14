"""Icicle charts of a file's modules: width is time or size, colour is error, precision, time or size.

The boxes are elements of the page with their place in percent, not an SVG: a browser shortens their labels to what fits
and turns the chart on a phone, and radio buttons switch what is drawn, all without a script. The script that the page
carries adds the arrow keys, the panel of details and looking closer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from s2mlp_deploy.artifact import Manifest
from s2mlp_deploy.evidence.bench import BenchReport, BenchResult
from s2mlp_deploy.evidence.build import BuildRecord
from s2mlp_deploy.evidence.layers import LayersReport
from s2mlp_deploy.evidence.modules import ModulesReport
from s2mlp_deploy.evidence.profile import UNATTRIBUTED, Profile
from s2mlp_deploy.evidence.standing import hashes_of
from s2mlp_deploy.evidence.store import Evidence
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.bench import threads_in_words
from s2mlp_deploy.report.environment import time_in_words
from s2mlp_deploy.report.figures import data_in_words, measured
from s2mlp_deploy.report.page.cells import Cell, Table, headings
from s2mlp_deploy.report.page.layers import current_layers
from s2mlp_deploy.report.page.module_tree import Module, tree_of
from s2mlp_deploy.report.profile import SHARES, not_matrix, share_rows
from s2mlp_deploy.report.shifts import summarise

_MOST_BOXES, _MOST_ON_A_PAGE, _ROWS = 450, 2400, 24
_ERRORS = ((1e-3, "below a thousandth"), (1e-2, "below a hundredth"), (0.1, "below a tenth"), (0.5, "below half"))
_SHARES = ((0.005, "below 0.5 %"), (0.01, "below 1 %"), (0.03, "below 3 %"), (0.1, "below 10 %"))
_PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")

LEGENDS: dict[str, tuple[tuple[str, str], ...]] = {
    "error": (
        ("k0", "not compared"),
        *((f"k{index}", f"{text} of its limit") for index, (_, text) in enumerate(_ERRORS, 1)),
        ("k5", "up to its limit"),
        ("k6", "past its limit"),
    ),
    "precision": (
        *((f"p{index}", name) for index, name in enumerate(_PRECISIONS, 1)),
        ("p6", "several"),
        ("p0", "other, or not known"),
    ),
    **{
        what: (
            *((f"k{index}", f"{text} of {whole}") for index, (_, text) in enumerate(_SHARES, 1)),
            ("k5", "10 % or more"),
        )
        for what, whole in (("time", "the time"), ("size", "the weights"))
    },
}
"""Of each colouring the classes of its colours with what they say."""


@dataclass(frozen=True)
class Box:
    """A module in the chart.

    Attributes:
        depth: Modules around it.
        prefix: The containers in its name, which are left out where there is no room: ``blocks.`` of ``blocks.7``.
        name: Shown in it.
        text: Everything that is known of it, in words.
        style: Its place: percentages of the whole by time (t, u) and by size (s, v).
        colours: Classes of its colours by error, precision, time and size.
    """

    depth: int
    prefix: str
    name: str
    text: str
    style: str
    colours: str


@dataclass(frozen=True)
class Icicle:
    """A chart, and what it shows as tables.

    Attributes:
        title: The file, and what ran it where that was timed.
        summary: What is drawn, in words.
        boxes: Outer modules before those inside.
        rows: Levels.
        timed: Whether there are times; else width is size.
        colourings: What can be coloured by; the first is chosen.
        notes: What is missing and how to get it, what was left out.
        modules: The largest modules.
        operators: Time by operator; None without times.
    """

    title: str
    summary: str
    boxes: tuple[Box, ...]
    rows: int
    timed: bool
    colourings: tuple[str, ...]
    notes: tuple[str, ...]
    modules: Table
    operators: Table | None


@dataclass(frozen=True)
class _Subject:
    """What one chart is of."""

    title: str
    record: ModulesReport | None
    layers: LayersReport | None
    result: BenchResult | None = None
    report: BenchReport | None = None

    @property
    def profile(self) -> Profile | None:
        return self.result.profile if self.result is not None else None


def view_icicles(manifest: Manifest, evidence: Evidence) -> tuple[Icicle, ...]:
    """A chart for each ONNX file and engine whose modules are known, and for each runtime that timed it."""
    subjects = [item for item in _subjects(manifest, evidence) if item.record is not None or item.profile is not None]
    shifts = {
        where: f"shift {summary.direction}, border {summary.border_kind}"
        for summary in summarise(manifest.shifts)
        for where in summary.where
    }
    most = min(_MOST_BOXES, _MOST_ON_A_PAGE // max(1, len(subjects)))
    return tuple(_icicle(item, shifts, most) for item in subjects)


def _subjects(manifest: Manifest, evidence: Evidence) -> Iterator[_Subject]:
    present = hashes_of(manifest, evidence)
    records = {
        item.record.file: item.record
        for item in evidence.of(ModulesReport)
        if item.record.file_sha256 == present.get(item.record.file)
    }
    built = {
        # What an engine was built of says nothing of it once that has been replaced.
        record.engine: PurePath(record.onnx).name
        if record.onnx_sha256 == present.get(PurePath(record.onnx).name)
        else record.engine
        for record in (item.record for item in evidence.of(BuildRecord))
    }
    compared = current_layers(manifest, evidence)
    for name, sha256 in present.items():
        timed: dict[tuple[str, int, int], tuple[BenchResult, BenchReport]] = {}
        for report in evidence.newest(BenchReport):
            for result in report.results:
                candidate = result.candidate
                if PurePath(candidate.file).name == name and candidate.sha256 == sha256 and result.profile is not None:
                    timed.setdefault((candidate.engine, candidate.batch, candidate.threads), (result, report))
        graph = built.get(name, name)
        several = len({threads for *_, threads in timed}) > 1
        for (engine, batch, _), (result, report) in timed.items():
            layers = _layers_of(compared, graph, engine)
            threads = f", {threads_in_words(result.candidate)}" if several else ""
            yield _Subject(f"{name} on {engine}, batch {batch}{threads}", records.get(graph), layers, result, report)
        if not timed and name not in built:
            yield _Subject(name, records.get(name), _layers_of(compared, name))


def _layers_of(compared: Sequence[LayersReport], file: str, engine: str = "") -> LayersReport | None:
    """The comparison of a file's layers: as this engine computes them where it was looked at, else the first."""
    own = [report for report in compared if report.file == file]
    runtime = engine.partition(":")[0]
    return next((report for report in own if report.candidate.partition(" ")[0] == runtime), next(iter(own), None))


def _icicle(subject: _Subject, shifts: dict[str, str], most: int) -> Icicle:
    profile, layers = subject.profile, subject.layers
    root = tree_of(subject.record, profile, layers.layers if layers is not None else ())
    timed = root.ms > 0
    boxes, hidden = _boxes(root, shifts, most, timed=timed)
    # What there is nothing of is no colour to choose.
    colourings = [
        name
        for name, there in (
            ("error", layers is not None),
            ("precision", bool(root.computes)),
            ("time", timed),
            ("size", root.bytes > 0),
        )
        if there
    ]
    notes = []
    if not timed:
        notes.append("No times are saved, so width is size: bench --per-module saves them.")
    if layers is None:
        notes.append("Its layers were not compared: parity --per-layer does it.")
    if subject.record is None:
        notes.append("Sizes and precisions are not known: an older version wrote the file, or another tool.")
    if hidden:
        told = fmt.count(hidden, "small module is", "small modules are")
        notes.append(f"{told} drawn as part of those around.")
    if profile is not None and timed:
        unknown = sum(node.ms for node in profile.nodes if not node.module)
        notes.append(f"Not GEMM or Conv: {not_matrix(profile)}.")
        if unknown:
            share = fmt.percent(unknown / root.ms, 1)
            notes.append(f"{share} of the time is of nodes that the runtime made or fused and that name no module.")
    return Icicle(
        title=subject.title,
        summary=_summary(subject, root),
        boxes=boxes,
        rows=1 + max(box.depth for box in boxes),
        timed=timed,
        colourings=tuple(colourings) or ("size",),
        notes=tuple(notes),
        modules=_modules(root),
        operators=_operators(profile) if profile is not None and timed else None,
    )


def _summary(subject: _Subject, root: Module) -> str:
    parts = []
    profile, result, report = subject.profile, subject.result, subject.report
    if profile is not None and result is not None and report is not None and root.ms > 0:
        runtime, runs = result.candidate.runtime or result.candidate.engine, fmt.count(profile.runs, "run")
        parts.append(
            f"{fmt.milliseconds(root.ms)} ms a run, of {runs} with every node timed, {runtime}, "
            f"{time_in_words(report.environment)}"
        )
    if root.bytes:
        parts.append(f"{fmt.size(root.bytes)} of weights")
    if subject.layers is not None:
        first = subject.layers.first
        said = f"first past its limit: {first.path}" if first is not None else "every layer within its limit"
        parts.append(f"layers of {subject.layers.candidate} compared on {data_in_words(subject.layers)}: {said}")
    return "; ".join(parts)


def _boxes(root: Module, shifts: dict[str, str], most: int, *, timed: bool) -> tuple[tuple[Box, ...], int]:
    """The boxes, and how many modules are too small to have one."""
    whole_ms, whole_bytes = root.ms or 1.0, root.bytes or 1
    everything = list(root.walk())
    # A module is never larger than the one around it, so no box is without those around it.
    sizes = sorted((max(m.ms / whole_ms, m.bytes / whole_bytes) for _, m in everything), reverse=True)
    least = sizes[most - 1] if len(sizes) > most else 0.0
    boxes: list[Box] = []
    todo: list[tuple[int, float, float, Module]] = [(0, 0.0, 0.0, root)]
    while todo:
        depth, left, across, module = todo.pop()
        time, size = module.ms / whole_ms, module.bytes / whole_bytes
        around, dot, name = module.name.rpartition(".")
        places = f"--d:{depth};" + (f"--t:{_share(left)};--u:{_share(time)};" if timed else "")
        boxes.append(
            Box(
                depth,
                around + dot,
                name,
                _text(module, shifts, time, size, timed=timed),
                f"{places}--s:{_share(across)};--v:{_share(size)}",
                f"e{_error(module)} p{_precision(module)} t{_bucket(time)} s{_bucket(size)}",
            )
        )
        inside = []
        for child in module.children:
            if max(child.ms / whole_ms, child.bytes / whole_bytes) > least or not least:
                inside.append((depth + 1, left, across, child))
            left += child.ms / whole_ms
            across += child.bytes / whole_bytes
        todo += reversed(inside)
    return tuple(boxes), len(everything) - len(boxes)


def _share(value: float) -> str:
    return f"{100 * value:.2f}".rstrip("0").rstrip(".") + "%"


def _text(module: Module, shifts: dict[str, str], time: float, size: float, *, timed: bool) -> str:
    kind = module.layer.kind if module.layer is not None else ""
    parts = [(module.path or "the whole network") + (f", {kind}" if kind and kind != "shift" else "")]
    if timed:
        parts.append(f"{fmt.milliseconds(module.ms)} ms, {fmt.percent(time, 1)} of the time")
    if module.bytes:
        parts.append(f"{fmt.size(module.bytes)}, {fmt.percent(size, 1)} of the weights")
    if module.computes:
        parts.append(f"computes in {_computes(module)}")
    if (used := module.strain) is not None:
        inside = "" if module.layer is not None else "inside at most "
        parts.append(f"{inside}{_used(used)} of its limit")
    if module.path in shifts:
        parts.append(shifts[module.path])
    if module.operators:
        shown = list(module.operators)[:6]
        parts.append(", ".join(shown) + (" and others" if len(module.operators) > 6 else ""))
    return "; ".join(parts)


def _used(strain: float) -> str:
    return "equal, 0" if strain == 0 else f"error {fmt.figure(strain)}"


def _computes(module: Module) -> str:
    if len(module.computes) == 1:
        return next(iter(module.computes))
    ordered = sorted(module.computes.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} ({fmt.integer(count)})" for name, count in ordered)


def _error(module: Module) -> int:
    used = module.strain
    if used is None:
        return 0
    if not used <= 1:
        return 6
    return next((index for index, (limit, _) in enumerate(_ERRORS, 1) if used < limit), 5)


def _precision(module: Module) -> int:
    if len(module.computes) > 1:
        return 6
    name = next(iter(module.computes), "")
    return _PRECISIONS.index(name) + 1 if name in _PRECISIONS else 0


def _bucket(share: float) -> int:
    return next((index for index, (limit, _) in enumerate(_SHARES, 1) if share < limit), 5)


def _modules(root: Module) -> Table:
    """The modules that matter most, as deep as the table has rows for, in the order of the network."""
    shown: Sequence[Module] = [root]
    while True:
        deeper = [inside for module in shown for inside in (module.children or [module])]
        if len(deeper) > _ROWS or len(deeper) == len(shown):
            break
        shown = deeper
    whole = root.ms or 1.0
    rows = [
        (
            Cell(module.path or module.name, note=module.layer.kind if module.layer is not None else ""),
            Cell(f"{module.ms:.3f}" if root.ms else fmt.MISSING),
            Cell(fmt.percent(module.ms / whole, 1) if root.ms else fmt.MISSING),
            Cell(fmt.percent(module.matrix_ms / module.ms, 0) if module.ms else fmt.MISSING),
            Cell(fmt.size(module.bytes) if root.bytes else fmt.MISSING),
            Cell(_computes(module) if module.computes else fmt.MISSING),
            Cell(
                measured(module.layer.metrics.max_abs) if module.layer is not None else fmt.MISSING,
                note=f"limit {fmt.figure(module.layer.allowed)}" if module.layer is not None else "",
                tone="bad" if module.layer is not None and module.layer.failures else "",
            ),
        )
        for module in sorted(shown, key=lambda module: module.path == UNATTRIBUTED)
    ]
    columns = ("Module", "ms", "Share", "Of it GEMM or Conv", "Weights", "Computes in", "Max abs")
    return Table(columns, tuple(rows), frozenset({1, 2, 3, 4})).filled


def _operators(profile: Profile) -> Table:
    rows = share_rows(profile.by_operator(), profile.ms or 1.0, _ROWS)
    return Table(
        headings(("operator", *SHARES)),
        tuple(tuple(map(Cell, row)) for row in rows),
        frozenset(range(1, len(SHARES) + 1)),
    )
