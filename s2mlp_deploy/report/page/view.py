"""What a page shows, as plain tables: everything is decided here, the templates only lay it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from urllib.parse import quote

from s2mlp_deploy.artifact import EVIDENCE, Manifest, read_manifest
from s2mlp_deploy.evidence.standing import Comparison, Standing, comparisons, file_of, standings
from s2mlp_deploy.evidence.store import kind_of, read_evidence
from s2mlp_deploy.files import inside
from s2mlp_deploy.report import format as fmt
from s2mlp_deploy.report.banner import holding_elsewhere, race_warning
from s2mlp_deploy.report.opening import opening
from s2mlp_deploy.report.page.bench import BenchView, view_benches
from s2mlp_deploy.report.page.builds import engine_table
from s2mlp_deploy.report.page.cells import Cell, Table
from s2mlp_deploy.report.page.engine_layers import EngineLayersView, view_engine_layers
from s2mlp_deploy.report.page.icicle import Icicle, view_icicles
from s2mlp_deploy.report.page.layers import LayersView, view_layers
from s2mlp_deploy.report.page.measurements import MachineView, view_machines
from s2mlp_deploy.report.page.parity import ParityView, state_cell, view_parity
from s2mlp_deploy.report.page.precision import PrecisionView, view_precision
from s2mlp_deploy.report.page.tiles import FileTile, file_tiles
from s2mlp_deploy.report.page.tune import TuneView, view_tune
from s2mlp_deploy.report.shifts import ShiftSummary, summarise
from s2mlp_deploy.report.verdict import Verdict, build_command, shown_directory
from s2mlp_deploy.text import join_names


@dataclass(frozen=True)
class ArtifactView:
    """One artifact, ready to be laid out.

    Attributes:
        manifest: What it says of itself.
        notes: Evidence that could not be read, and why.
        others: Names of evidence files of unknown kinds.
        verdict: Whether parity holds, and the paragraph that sums everything up.
        race: What a race in the source means, and what to do about it; None where there is none.
        warnings: What a reader must know before trusting a figure.
        tiles: One for each file.
        facts: What the artifact is.
        config: The network's configuration.
        preprocessing: Label and value; empty where none is configured.
        tensors: Inputs and outputs.
        icicles: The modules of each file.
        layers: Every comparison by layer; None where there is none.
        parity: Every comparison.
        files: ONNX files.
        hashes: Of every file, as ``sha256sum --check`` reads them.
        precision: What files of other precisions cost and score; None where float32 is all there is.
        engines: Engines built.
        engine_layers: What layers engines have.
        benches: How long files take.
        tune: What tune tried; None where nothing was.
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
    race: Verdict | None
    warnings: tuple[str, ...]
    tiles: tuple[FileTile, ...]
    facts: tuple[tuple[str, Cell], ...]
    config: tuple[tuple[str, str], ...]
    preprocessing: tuple[tuple[str, str], ...]
    tensors: tuple[tuple[str, Cell], ...]
    icicles: tuple[Icicle, ...]
    layers: LayersView | None
    parity: ParityView
    files: Table
    hashes: str
    precision: PrecisionView | None
    engines: Table
    engine_layers: tuple[EngineLayersView, ...]
    benches: tuple[BenchView, ...]
    tune: TuneView | None
    build: str
    hazards: Table
    shifts: tuple[ShiftSummary, ...]
    machines: tuple[MachineView, ...]
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
    name = shown_directory(directory)
    found = comparisons(manifest, evidence)
    files = standings(manifest, found)
    return ArtifactView(
        manifest=manifest,
        notes=tuple(
            f"{EVIDENCE}/{item.name} was left out: {item.problem}. "
            f"Measure again with this version: {kind_of(item.record).renewal(name, item.name)}."
            for item in evidence.unreadable
        ),
        others=evidence.others,
        verdict=opening(manifest, evidence, name),
        race=race_warning(manifest, evidence, name),
        warnings=_warnings(manifest, found),
        tiles=file_tiles(manifest, evidence, files),
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
        icicles=view_icicles(manifest, evidence),
        layers=view_layers(manifest, evidence),
        parity=view_parity(found),
        files=_files(directory, manifest, files, base),
        hashes="\n".join(f"{record.sha256}  {record.path}" for record in manifest.files),
        engines=engine_table(directory, manifest, evidence, base),
        engine_layers=view_engine_layers(manifest, evidence),
        benches=view_benches(manifest, evidence),
        tune=view_tune(manifest, evidence),
        build=build_command(name) if manifest.files else "",
        hazards=_hazards(manifest),
        precision=view_precision(manifest, evidence),
        shifts=tuple(summarise(manifest.shifts)),
        machines=view_machines(evidence),
        tools=tuple(manifest.tools.items()),
    )


def _warnings(manifest: Manifest, found: Sequence[Comparison]) -> tuple[str, ...]:
    warnings = [f"{note[:1].upper()}{note[1:]}." for note in manifest.notes]
    for report in (item.report for item in found if item.counts):
        warnings += [f"{file_of(report)} was compared on inputs that tell little: {note}." for note in report.notes]
        if report.proof is not None and report.proof.unread:
            warnings.append(f"Not read off {file_of(report)}: {report.proof.unread}.")
    # Two comparisons of a file say the same of it.
    return tuple(dict.fromkeys(warnings))


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
    distinct = len(summarise(manifest.shifts))
    facts.append(("Shifts", Cell(fmt.integer(len(manifest.shifts)), note=f"{distinct} distinct" if distinct else "")))
    if manifest.classes:
        names = ", ".join(manifest.classes[:12]) + (", ..." if len(manifest.classes) > 12 else "")
        facts.append(("Classes", Cell(fmt.integer(len(manifest.classes)), note=names)))
    return tuple(facts)


def _standing_cell(standing: Standing) -> Cell:
    """Whether parity holds; where it fails on one engine and not on another, on which."""
    return state_cell(standing.state, f"on {join_names(standing.engines)}" if holding_elsewhere(standing) else "")


def _files(directory: Path, manifest: Manifest, files: Sequence[Standing], base: str) -> Table:
    known = {item.file: item for item in files}
    rows = []
    for record in manifest.files:
        problem, path = "", inside(directory, record.path)
        if path is None or not path.is_file():
            problem = "missing on disk" if path is not None else "leads out of the artifact"
        elif path.stat().st_size != record.bytes:
            problem = f"{fmt.size(path.stat().st_size)} on disk: changed since the export"
        standing = known.get(PurePath(record.path).name)
        rows.append(
            (
                Cell(
                    record.path,
                    note=problem,
                    href=base + quote(record.path) if path is not None and path.is_file() else "",
                    tone="bad" if problem else "",
                ),
                _standing_cell(standing) if standing is not None else Cell("weights of a graph"),
                Cell(record.precision),
                Cell(fmt.size(record.bytes), title=f"{record.bytes:,} bytes"),
                Cell(fmt.integer(record.nodes)),
                Cell(fmt.short_hash(record.sha256), title=record.sha256),
            )
        )
    return Table(("File", "Parity", "Precision", "Size", "Nodes", "sha256"), tuple(rows), frozenset((3, 4)))
