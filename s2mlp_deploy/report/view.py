"""What a page shows, as plain tables: everything is decided here, the templates only lay it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from urllib.parse import quote

from s2mlp_deploy.artifact import EVIDENCE, Manifest, read_manifest
from s2mlp_deploy.evidence.parity import ParityReport
from s2mlp_deploy.evidence.store import Evidence, read_evidence
from s2mlp_deploy.files import inside
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.builds import engine_table
from s2mlp_deploy.report.cells import Cell, Table
from s2mlp_deploy.report.figures import state_of, worst_of
from s2mlp_deploy.report.parity import limits_in_words, parity_table, state_cell
from s2mlp_deploy.report.precision import PrecisionView, view_precision
from s2mlp_deploy.report.scores import score_tiles
from s2mlp_deploy.report.shifts import ShiftSummary, summarise
from s2mlp_deploy.report.verdict import (
    Verdict,
    build_command,
    current_reports,
    file_of,
    parity_verdict,
    unmeasured,
)


@dataclass(frozen=True)
class ArtifactView:
    """One artifact, ready to be laid out.

    Attributes:
        manifest: What it says of itself.
        notes: Evidence that could not be read, and why.
        others: Names of evidence files of unknown kinds.
        verdict: Whether parity holds.
        warnings: What a reader must know before trusting a figure.
        tiles: The most important figures: label, value, explanation.
        facts: What the artifact is.
        config: The network's configuration.
        preprocessing: Label and value; empty where none is configured.
        tensors: Inputs and outputs.
        parity: Figures of every comparison.
        limits: The tolerances that were judged by, in words.
        files: ONNX files.
        precision: What files of other precisions cost and score; None where float32 is all there is.
        engines: Engines built.
        build: The command that builds one; empty where there is no file to build.
        hazards: Lines that mean different things to different runtimes.
        deviation: How far eager is from the functional meaning, in words; empty where nothing races.
        shifts: Distinct shifts.
        tools: Versions.
    """

    manifest: Manifest
    notes: tuple[str, ...]
    others: tuple[str, ...]
    verdict: Verdict
    warnings: tuple[str, ...]
    tiles: tuple[tuple[str, str, str], ...]
    facts: tuple[tuple[str, Cell], ...]
    config: tuple[tuple[str, str], ...]
    preprocessing: tuple[tuple[str, str], ...]
    tensors: tuple[tuple[str, Cell], ...]
    parity: Table
    limits: tuple[str, ...]
    files: Table
    precision: PrecisionView | None
    engines: Table
    build: str
    hazards: Table
    deviation: str
    shifts: tuple[ShiftSummary, ...]
    tools: tuple[tuple[str, str], ...]


def view_artifact(directory: Path, *, base: str = "./") -> ArtifactView:
    """Gathers an artifact's manifest and evidence.

    Args:
        directory: The artifact.
        base: The artifact's directory as a link on the page, quoted, ending in ``/``.

    Raises:
        ArtifactError: There is no manifest that can be read.
    """
    manifest, evidence = read_manifest(directory), read_evidence(directory)
    # The name alone: a page that is sent around says nothing of the machine it was made on.
    name = directory.resolve().name
    reports = current_reports(evidence, manifest)
    return ArtifactView(
        manifest=manifest,
        notes=tuple(
            f"{EVIDENCE}/{item.name} was left out: {item.problem}. Measure again with this version."
            for item in evidence.unreadable
        ),
        others=evidence.others,
        verdict=parity_verdict(manifest, evidence, name),
        warnings=_warnings(manifest, reports),
        tiles=_tiles(manifest, reports, evidence),
        facts=_facts(manifest),
        config=tuple((key, fmt.plain(value)) for key, value in manifest.source.config.items()),
        preprocessing=tuple(
            (key, fmt.shape(value, "×") if key == "size" and isinstance(value, list) else fmt.plain(value))
            for key, value in (manifest.preprocessing or {}).items()
        ),
        tensors=tuple(
            (kind, Cell(info.name, note=f"{info.dtype}, {fmt.shape(info.shape, '×')}"))
            for kind, infos in (("input", manifest.inputs), ("output", manifest.outputs))
            for info in infos
        ),
        parity=parity_table(manifest, evidence),
        limits=limits_in_words(reports),
        files=_files(directory, manifest, reports, base),
        engines=engine_table(directory, manifest, evidence, base),
        build=build_command(name, manifest.files[0].path) if manifest.files else "",
        hazards=_hazards(manifest),
        deviation=fmt.deviation(next((h.eager_deviation for h in manifest.hazards if h.eager_deviation), None)),
        precision=view_precision(manifest, evidence),
        shifts=tuple(summarise(manifest.shifts)),
        tools=tuple(manifest.tools.items()),
    )


def _warnings(manifest: Manifest, reports: Sequence[ParityReport]) -> tuple[str, ...]:
    warnings = [f"{note[:1].upper()}{note[1:]}." for note in manifest.notes]
    for report in reports:
        warnings += [f"{file_of(report)} was compared on inputs that tell little: {note}." for note in report.notes]
        if report.proof is not None and report.proof.unread:
            warnings.append(f"Not read off {file_of(report)}: {report.proof.unread}.")
    if manifest.source.checkpoint is None and manifest.source.seed is not None:
        warnings.append(
            f"The weights are random (seed {manifest.source.seed}): no checkpoint was given. Parity speaks of the "
            "graph; the predictions mean nothing."
        )
    return tuple(warnings)


def _hazards(manifest: Manifest) -> Table:
    rows = [
        (
            Cell(hazard.kind, tone="bad" if hazard.kind == "race" else "warn"),
            Cell(hazard.where or "unknown"),
            Cell(hazard.code),
            Cell(fmt.integer(hazard.writes), note=f"{fmt.integer(hazard.elements)} elements"),
        )
        for hazard in manifest.hazards
    ]
    return Table(("Kind", "Where", "Code", "Overlapping writes"), tuple(rows), frozenset({3}))


def _tiles(
    manifest: Manifest, reports: tuple[ParityReport, ...], evidence: Evidence
) -> tuple[tuple[str, str, str], ...]:
    tiles = []
    outputs = [output for report in reports for output in report.outputs]
    if outputs:
        worst = worst_of(outputs)
        limit = f"allowed {worst.allowed}" if len(outputs) == 1 else f"worst of {fmt.count(len(reports), 'comparison')}"
        tiles.append(("Max abs difference", worst.max_abs, limit))
        tiles.append(("PSNR", worst.psnr, "of the outputs"))
        if worst.top1 != fmt.MISSING:
            tiles.append(("Top-1 agreement", worst.top1, _images(reports)))
        if worst.candidate_accuracy != fmt.MISSING:
            tiles.append(("Accuracy", worst.candidate_accuracy, f"reference {worst.reference_accuracy}"))
    if manifest.files:
        first = manifest.files[0]
        more = f", {len(manifest.files) - 1} more" if len(manifest.files) > 1 else ""
        tiles.append(("File size", fmt.size(first.bytes), f"{first.precision}, {fmt.count(first.nodes, 'node')}{more}"))
    tiles += score_tiles(manifest, evidence)
    distinct = len(summarise(manifest.shifts))
    tiles.append(("Shifts", fmt.integer(len(manifest.shifts)), f"{distinct} distinct" if distinct else "none found"))
    return tuple(tiles)


def _images(reports: tuple[ParityReport, ...]) -> str:
    counts = {report.images for report in reports}
    return f"over {fmt.count(counts.pop(), 'image')}" if len(counts) == 1 else "see below for images"


def _facts(manifest: Manifest) -> tuple[tuple[str, Cell], ...]:
    source = manifest.source
    facts = [("Source", Cell(source.reference))]
    if source.checkpoint is not None:
        digest = source.checkpoint_sha256 or ""
        note = f"sha256 {fmt.short_hash(digest)}" if digest else ""
        facts.append(("Checkpoint", Cell(source.checkpoint, note=note, title=digest)))
    else:
        facts.append(("Checkpoint", Cell("none", note="random weights", tone="warn")))
    facts.append(("Opset", Cell(str(manifest.opset))))
    if manifest.classes:
        names = ", ".join(manifest.classes[:12]) + (", ..." if len(manifest.classes) > 12 else "")
        facts.append(("Classes", Cell(fmt.integer(len(manifest.classes)), note=names)))
    return tuple(facts)


def _files(directory: Path, manifest: Manifest, reports: tuple[ParityReport, ...], base: str) -> Table:
    states: dict[str, list[str]] = {}
    for report in reports:
        states.setdefault(file_of(report), []).append(state_of(report))
    missing = unmeasured(manifest, reports)
    rows = []
    for record in manifest.files:
        found = states.get(PurePath(record.path).name, [])
        state = next((name for name in ("fails", "unclear") if name in found), "holds")
        problem, path = "", inside(directory, record.path)
        if path is None or not path.is_file():
            problem = "missing on disk" if path is not None else "leads out of the artifact"
        elif path.stat().st_size != record.bytes:
            problem = f"{fmt.size(path.stat().st_size)} on disk: changed since the export"
        rows.append(
            (
                Cell(
                    record.path,
                    note=problem,
                    href=base + quote(record.path) if path is not None and path.is_file() else "",
                    tone="bad" if problem else "",
                ),
                state_cell("missing" if record.path in missing else state),
                Cell(record.precision),
                Cell(fmt.size(record.bytes), title=f"{record.bytes:,} bytes"),
                Cell(fmt.integer(record.nodes)),
                Cell(fmt.short_hash(record.sha256), title=record.sha256),
            )
        )
    return Table(("File", "Parity", "Precision", "Size", "Nodes", "sha256"), tuple(rows), frozenset((3, 4)))
