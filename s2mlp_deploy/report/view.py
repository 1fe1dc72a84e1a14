"""What a page shows, as plain tables: everything is decided here, the templates only lay it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

from s2mlp_deploy.artifact import Manifest, read_manifest
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.cells import Cell, Table
from s2mlp_deploy.report.evidence import (
    Evidence,
    Figures,
    eager_of,
    mapping,
    outputs_of,
    read_evidence,
    sequence,
    state_of,
    text,
    worst_of,
)
from s2mlp_deploy.report.precision import PrecisionView, precision_tiles, view_precision
from s2mlp_deploy.report.shifts import ShiftSummary, summarise
from s2mlp_deploy.report.verdict import (
    STATES,
    TONES,
    Verdict,
    build_command,
    current,
    file_of,
    judge,
    state_in,
    unmeasured,
)


@dataclass(frozen=True)
class ArtifactView:
    """One artifact, ready to be laid out.

    Attributes:
        manifest: What it says of itself.
        evidence: What was measured.
        verdict: Whether parity holds.
        warnings: What a reader must know before trusting a figure.
        tiles: The most important figures: label, value, explanation.
        facts: What the artifact is.
        config: The network's configuration.
        preprocessing: Label and value; empty where nobody said.
        tensors: Inputs and outputs.
        parity: Figures of every comparison.
        limits: The tolerances that were judged by, in words.
        files: ONNX files.
        precision: What files of other precisions cost and score; None where float32 is all there is.
        engines: Engines built.
        build: The command that builds one; empty where there is no file to build.
        hazards: Lines that mean different things to different runtimes.
        effect: How far eager is from the functional meaning, in words; empty where nothing races.
        shifts: Distinct shifts.
        tools: Versions.
    """

    manifest: Manifest
    evidence: Evidence
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
    effect: str
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
    verdict = judge(manifest, evidence, name)
    present = current(evidence, manifest)
    return ArtifactView(
        manifest=manifest,
        evidence=evidence,
        verdict=verdict,
        warnings=_warnings(manifest),
        tiles=_tiles(manifest, present),
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
        limits=_limits(present),
        files=_files(directory, manifest, present, base),
        engines=engine_table(directory, manifest, evidence, base),
        build=build_command(name, manifest.files[0].path) if manifest.files else "",
        hazards=_hazards(manifest),
        effect=fmt.effect(next((h.eager_deviation for h in manifest.hazards if h.eager_deviation), None)),
        precision=view_precision(manifest, evidence),
        shifts=tuple(summarise(manifest.shifts)),
        tools=tuple(manifest.tools.items()),
    )


def state_cell(state: str) -> Cell:
    """A verdict in a table: colour and word."""
    return Cell(STATES[state], tone=TONES[state])


def _warnings(manifest: Manifest) -> tuple[str, ...]:
    warnings = [f"{note[:1].upper()}{note[1:]}." for note in manifest.notes]
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


def _tiles(manifest: Manifest, evidence: Evidence) -> tuple[tuple[str, str, str], ...]:
    tiles = []
    outputs = [output for saved in evidence.parity for output in outputs_of(saved.data)]
    if outputs:
        worst = worst_of(outputs)
        over = fmt.count(len(evidence.parity), "comparison")
        allowed = f"allowed {fmt.figure(worst.allowed)}" if len(outputs) == 1 else f"worst of {over}"
        tiles.append(("Max abs difference", fmt.figure(worst.max_abs), allowed))
        tiles.append(("PSNR", fmt.decibels(worst.psnr), "of the outputs"))
        if worst.top1 is not None:
            tiles.append(("Top-1 agreement", fmt.percent(worst.top1), _images(evidence)))
        if worst.candidate_accuracy is not None:
            was = fmt.percent(worst.reference_accuracy)
            tiles.append(("Accuracy", fmt.percent(worst.candidate_accuracy), f"reference {was}"))
    if manifest.files:
        first = manifest.files[0]
        more = f", {len(manifest.files) - 1} more" if len(manifest.files) > 1 else ""
        tiles.append(("File size", fmt.size(first.bytes), f"{first.precision}, {fmt.count(first.nodes, 'node')}{more}"))
    tiles += precision_tiles(manifest, evidence)
    distinct = len(summarise(manifest.shifts))
    tiles.append(("Shifts", fmt.integer(len(manifest.shifts)), f"{distinct} distinct" if distinct else "none found"))
    return tuple(tiles)


def _images(evidence: Evidence) -> str:
    counts = {fmt.integer(saved.data.get("images")) for saved in evidence.parity}
    return f"over {counts.pop()} images" if len(counts) == 1 else "see below for images"


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


def parity_table(manifest: Manifest, evidence: Evidence) -> Table:
    """A row for each output of each comparison."""
    rows = []
    for saved in evidence.parity:
        report = saved.data
        file = Cell(file_of(report), note=text(report.get("precision"), ""), title=saved.name)
        engine = Cell(text(report.get("candidate")), note=f"against {text(report.get('reference'))}")
        images = fmt.number(report.get("images"))
        counted = "" if images is None else f"{fmt.integer(images)} image{'' if images == 1 else 's'}"
        data = ": ".join(part for part in (counted, text(report.get("data"), "")) if part)
        rows += [
            (file, state_cell(state_in(report, manifest)), engine, *_parity_cells(output, data))
            for output in outputs_of(report) or (worst_of(()),)
        ]
        eager = Cell("torch, eager", note="undefined: its code races", tone="warn")
        rows += [
            (file, Cell("not judged", tone="warn"), eager, *_parity_cells(output, data)) for output in eager_of(report)
        ]
    # The verdict comes early: on a narrow screen the end of a row is out of sight.
    names = ("File", "Parity", "Engine", "Output and data", "Max abs", "Max rel", "PSNR", "Top-1", "Accuracy")
    return Table(names, tuple(rows), frozenset(range(4, 9)))


def _parity_cells(output: Figures, data: str) -> tuple[Cell, ...]:
    bad = f"{output.not_finite:,} values not finite" if output.not_finite else ""
    over = output.max_abs is not None and output.allowed is not None and not output.max_abs <= output.allowed
    return (
        Cell(output.name or "-", note=bad or data, tone="bad" if bad else ""),
        Cell(
            fmt.figure(output.max_abs),
            note="" if output.allowed is None else f"{'over' if over else 'allowed'} {fmt.figure(output.allowed)}",
            tone="bad" if over else "",
        ),
        Cell(fmt.figure(output.max_rel)),
        Cell(fmt.decibels(output.psnr), note=f"cosine {fmt.cosine(output.cosine)}"),
        Cell(fmt.percent(output.top1), note="" if output.top5 is None else f"top-5 {fmt.percent(output.top5)}"),
        Cell(
            fmt.percent(output.candidate_accuracy),
            note="" if output.reference_accuracy is None else f"reference {fmt.percent(output.reference_accuracy)}",
        ),
    )


def _limits(evidence: Evidence) -> tuple[str, ...]:
    limits: dict[str, None] = {}
    for saved in evidence.parity:
        given = mapping(saved.data.get("tolerances"))
        if given:
            parts = [f"{key.replace('_', ' ')} {fmt.plain(value)}" for key, value in given.items()]
            limits[f"{text(saved.data.get('precision'), 'files')}: {', '.join(parts)}"] = None
    return tuple(limits)


def _files(directory: Path, manifest: Manifest, evidence: Evidence, base: str) -> Table:
    states: dict[str, list[str]] = {}
    for saved in evidence.parity:
        states.setdefault(file_of(saved.data), []).append(state_of(saved.data))
    missing = unmeasured(manifest, evidence)
    rows = []
    for record in manifest.files:
        found = states.get(PurePath(record.path).name, [])
        state = next((name for name in ("fails", "unclear") if name in found), "holds")
        problem, path = "", directory / record.path
        if not path.is_file():
            problem = "missing on disk"
        elif path.stat().st_size != record.bytes:
            problem = f"{fmt.size(path.stat().st_size)} on disk: changed since the export"
        rows.append(
            (
                Cell(
                    record.path,
                    note=problem,
                    href="" if problem == "missing on disk" else base + quote(record.path),
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


def engine_table(directory: Path, manifest: Manifest, evidence: Evidence, base: str, label: str = "") -> Table:
    """A row for each engine built; with a label, a first column that says of which artifact."""
    hashes = {record.sha256 for record in manifest.files}
    rows = []
    for saved in evidence.builds:
        record = saved.data
        name, onnx_hash = text(record.get("engine")), record.get("onnx_sha256")
        stale = isinstance(onnx_hash, str) and onnx_hash not in hashes
        profiles = [
            f"{tensor}: " + " / ".join(fmt.shape(mapping(sizes).get(key)) for key in ("min", "opt", "max"))
            for profile in sequence(record.get("profiles"))
            for tensor, sizes in mapping(profile).items()
        ]
        promised = text(record.get("precision"), "")
        dtypes = [f"{fmt.integer(times)} {dtype}" for dtype, times in mapping(record.get("layer_dtypes")).items()]
        flavour = f"{text(record.get('flavour'))} {text(record.get('version'), '')}".strip()
        cells = (
            Cell(
                name,
                note=f"from {text(record.get('onnx'))}" + (", which has changed since: build again" if stale else ""),
                href=base + quote(name) if _is_beside(directory, name) else "",
                tone="bad" if stale else "",
            ),
            Cell(flavour, note=text(record.get("platform"), "")),
            Cell(", ".join(map(str, sequence(record.get("targets")))) or "-"),
            Cell("; ".join(profiles) or "fixed", note="minimum / optimum / maximum" if profiles else ""),
            Cell(
                fmt.integer(record.get("layers")),
                note="; ".join(filter(None, (f"every GEMM in {promised}" if promised else "", ", ".join(dtypes)))),
            ),
            Cell(fmt.seconds(record.get("seconds"))),
            Cell(fmt.size(record.get("bytes"))),
        )
        rows.append((Cell(label), *cells) if label else cells)
    columns = ("Engine", "Builder", "GPU targets", "Profile shapes", "Layers", "Build time", "Size")
    shift = 1 if label else 0
    return Table(
        ("Artifact", *columns) if label else columns, tuple(rows), frozenset(index + shift for index in (4, 5, 6))
    )


def _is_beside(directory: Path, name: str) -> bool:
    # Evidence is data: a name with a folder in it would make a link that leaves the artifact.
    return name == PurePath(name).name and name not in ("-", "..") and (directory / name).is_file()


def overview_row(
    label: str, href: str, directory: Path, manifest: Manifest, evidence: Evidence
) -> list[tuple[Cell, ...]]:
    """The rows of one artifact: one for each comparison of a file, one for a file that has none."""
    rows: list[tuple[Cell, ...]] = []
    for record in manifest.files:
        found = [saved.data for saved in evidence.parity if file_of(saved.data) == PurePath(record.path).name]
        reports: list[Mapping[str, Any]] = list(found) or [{}]
        for report in reports:
            worst = worst_of(outputs_of(report))
            rows.append(
                (
                    Cell(label, note=record.path, href=href, title=directory.name),
                    state_cell(state_in(report, manifest) if report else "missing"),
                    Cell(fmt.integer(record.nodes)),
                    Cell(fmt.size(record.bytes)),
                    Cell(fmt.figure(worst.max_abs)),
                    Cell(fmt.decibels(worst.psnr)),
                    Cell(fmt.percent(worst.top1)),
                    Cell(fmt.percent(worst.reference_accuracy)),
                    Cell(fmt.percent(worst.candidate_accuracy)),
                )
            )
    return rows
