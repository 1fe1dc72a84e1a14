"""What an artifact runs as: which of its files, on which engine, opened how, and why. The one place that decides it.

`predict`, `serve`, `batch`, `doctor DIR` and :class:`~s2mlp_deploy.serving.predictor.Predictor` ask :func:`plan_run`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

from s2mlp_deploy.artifact import Manifest, read_manifest
from s2mlp_deploy.choices import GRAPH_ENGINE
from s2mlp_deploy.engines.registry import ENGINES, OF_GRAPHS, check_engine, fits_here, is_here, kind_of
from s2mlp_deploy.errors import ArtifactError, InputError
from s2mlp_deploy.evidence.build import BuildRecord
from s2mlp_deploy.evidence.choice import choose, time_of
from s2mlp_deploy.evidence.choice import file_of as timed_file
from s2mlp_deploy.evidence.standing import Standing, comparable, comparisons, hashes_of, standings
from s2mlp_deploy.evidence.store import Evidence, read_evidence
from s2mlp_deploy.evidence.tune import EngineSettings, TuneReport
from s2mlp_deploy.files import is_plain_name
from s2mlp_deploy.text import command_line, join_names

Basis: TypeAlias = Literal["asked", "tune", "engine", "bench", "rule"]
"""What decided: the caller, ``tune``, an engine that was built for the GPU that is here, ``bench``, or a rule."""

_STATES = {
    "holds": "holds",
    "fails": "FAILS",
    "unclear": "is unclear",
    "missing": "was not measured",
}


@dataclass(frozen=True)
class RunPlan:
    """What an artifact runs as.

    Attributes:
        directory: The artifact.
        file: Name of the file of it that runs: an ONNX file, or an engine that was built of one.
        precision: Of the file: ``fp32``, ``int8``, ``int8-trt``.
        engine: What runs it: ``onnxruntime``, ``onnxruntime:cuda``, ``openvino``, ``tensorrt-rtx``.
        settings: How the engine is opened.
        basis: What decided.
        why: That, in a sentence.
        parity: What is known of the file: ``holds``, ``fails``, ``unclear``, or ``missing``, not measured.
        notes: What was better and is not taken, and what should be measured; sentences.
        objections: By file, why it was not to be taken.
    """

    directory: Path
    file: str
    precision: str
    engine: str
    settings: EngineSettings
    basis: Basis
    why: str
    parity: str
    notes: tuple[str, ...] = ()
    objections: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """Of the file."""
        return self.directory / self.file

    @property
    def proven(self) -> bool:
        """Whether parity of the file holds."""
        return self.parity == "holds"

    @property
    def is_built(self) -> bool:
        """Whether the file is an engine, and no graph."""
        return not self.file.endswith(".onnx")


def plan_run(
    directory: str | Path,
    *,
    precision: str | None = None,
    engine: str | None = None,
    threads: int | None = None,
    spin: bool | None = None,
    flush_denormals: bool | None = None,
    allow_unproven: bool = False,
) -> RunPlan:
    """Decides what to run of an artifact; reads its manifest and its evidence, opens nothing.

    In this order, within what was asked for: what ``tune`` chose, if that file is still the one it measured; an engine
    that was built for the GPU that is here; the fastest file that was measured, on the engine that it was fastest on;
    the file that was changed least (float32) on ONNX Runtime, or on OpenVINO where only that is installed. Only files
    whose parity holds are taken.

    Args:
        directory: The artifact.
        precision: Which of its files; default: the fastest.
        engine: What is to run it; default: what it is fastest on, of those that are installed.
        threads: Within an operator, 0 for the engine's own choice; default: as ``tune`` chose, else 0.
        spin: Whether idle threads spin for work (ONNX Runtime); default: as ``tune`` chose, else they do.
        flush_denormals: Whether subnormal numbers count as 0; default: as ``tune`` chose, else not.
        allow_unproven: Whether a file may be taken of which no parity was measured, or of which it fails.

    Raises:
        ArtifactError: The directory is no artifact, has no such file, or none whose parity holds.
        TargetError: There is no such engine.
        InputError: Subnormal numbers are to count as 0 in an engine file.
    """
    root = Path(directory)
    case = _Case.of(root, precision, engine)
    pick = _tuned(case) or _built(case) or _measured(case) or _by_rule(case)
    state = case.state(pick.file, pick.engine)
    if state != "holds" and not allow_unproven:
        raise _unproven(case, pick)
    settings = pick.settings
    if threads is not None:
        settings = replace(settings, threads=threads)
    if spin is not None:
        settings = replace(settings, spin=spin)
    if flush_denormals is not None:
        settings = replace(settings, flush_denormals=flush_denormals)
    if settings.flush_denormals and not pick.file.endswith(".onnx"):
        raise InputError(
            "how an engine file takes subnormal numbers was decided when it was built",
            where=str(root / pick.file),
            fix="leave --flush-denormals out, or run the graph: --engine onnxruntime",
        )
    return RunPlan(
        root,
        pick.file,
        pick.precision,
        pick.engine,
        settings,
        pick.basis,
        pick.why,
        state,
        (*case.notes, *_doubts(case, pick)),
        case.objections,
    )


@dataclass(frozen=True)
class _Pick:
    file: str
    precision: str
    engine: str
    settings: EngineSettings
    basis: Basis
    why: str


@dataclass(frozen=True)
class _Case:
    """An artifact, what is known of it, and what was asked for."""

    root: Path
    manifest: Manifest
    evidence: Evidence
    standings: dict[str, Standing]
    precision: str | None
    engine: str | None
    notes: list[str]
    objections: dict[str, str]

    @classmethod
    def of(cls, root: Path, precision: str | None, engine: str | None) -> _Case:
        manifest = read_manifest(root)
        if engine is not None:
            check_engine(engine)
        evidence = read_evidence(root)
        found = {item.file: item for item in standings(manifest, comparisons(manifest, evidence))}
        return cls(root, manifest, evidence, found, precision, engine, [], {})

    def state(self, file: str, engine: str) -> str:
        """What is known of the parity of a file on an engine."""
        return self.standings[file].on(kind_of(engine)).state if file in self.standings else "missing"

    def wants(self, precision: str | None, engine: str) -> bool:
        """Whether a file on an engine is what was asked for, and can run here as far as packages tell."""
        if self.precision not in (None, precision):
            return False
        return engine == self.engine if self.engine is not None else is_here(kind_of(engine))


def _tuned(case: _Case) -> _Pick | None:
    report = case.evidence.one(TuneReport)
    present = hashes_of(case.manifest, case.evidence)
    for trial in report.winners if report is not None else ():
        if not case.wants(trial.precision, trial.engine):
            continue
        if present.get(trial.file) != trial.sha256:
            case.notes.append(f"`tune` chose {trial.file}, which has changed since: tune again")
        elif (state := case.state(trial.file, trial.engine)) != "holds":
            case.notes.append(f"`tune` chose {trial.file}, whose parity {_STATES[state]}")
        else:
            ms = f", {trial.ms:.3g} ms" if trial.ms is not None else ""
            why = f"`tune` found it fastest of {report.tried if report else 0}{ms} ({trial.settings.words})"
            return _Pick(trial.file, trial.precision, trial.engine, trial.settings, "tune", why)
    return None


def _built(case: _Case) -> _Pick | None:
    """An engine for the GPU that is here, the first whose parity holds; or one of the kind that was asked for."""
    asked = case.engine is not None and case.engine not in OF_GRAPHS and not ENGINES[kind_of(case.engine)].opens_graph
    candidates = [record for record in _records(case) if asked or fits_here(record)]
    for record in candidates:
        if case.state(record.engine, record.flavour) == "holds" and fits_here(record):
            return _built_pick(record, "it was built for the GPU that is here, and its parity holds")
        if not asked:
            state = _STATES[case.state(record.engine, record.flavour)]
            case.notes.append(f"{record.engine} was built for the GPU that is here, and its parity {state}")
    if not asked:
        return None
    if not candidates:
        told = command_line("build", case.root, "--engine", case.engine)
        kind = f"{case.precision} " if case.precision else ""
        raise ArtifactError(
            f"no {kind}engine of {case.engine} was built of this artifact",
            where=str(case.root),
            fix=f"build one: {told}, or leave --engine out",
        )
    # What does not fit is told when it is opened, with the command that builds it again.
    best = min(
        candidates, key=lambda record: (not fits_here(record), case.state(record.engine, record.flavour) != "holds")
    )
    return _built_pick(best, f"{case.engine} was asked for")


def _built_pick(record: BuildRecord, why: str) -> _Pick:
    return _Pick(record.engine, record.precision or "", record.flavour, EngineSettings(), "engine", why)


def _records(case: _Case) -> Iterator[BuildRecord]:
    """Engines of the artifact's present graphs, of kinds that run nothing but what they built."""
    graphs = {record.sha256 for record in case.manifest.files}
    for saved in case.evidence.of(BuildRecord):
        record = saved.record
        name = record.engine
        known = record.flavour in ENGINES and not ENGINES[record.flavour].opens_graph
        there = known and record.onnx_sha256 in graphs and is_plain_name(name) and (case.root / name).is_file()
        if there and case.wants(record.precision, record.flavour):
            yield record


def _measured(case: _Case) -> _Pick | None:
    precisions = {record.path: record.precision for record in case.manifest.files}
    files = [item for item in case.standings.values() if case.precision in (None, precisions.get(item.file))]
    if case.engine is not None:
        files = [item.on(kind_of(case.engine)) for item in files]
    choice = choose(
        case.manifest,
        case.evidence,
        files,
        runs=lambda result: case.wants(precisions.get(timed_file(result)), result.candidate.engine),
    )
    case.objections.update(choice.objections)
    for result in choice.unproven:
        case.notes.append(
            f"{timed_file(result)} on {result.candidate.engine} was measured faster, its parity there was not measured"
        )
    if choice.timed is None:
        return None
    candidate = choice.timed.candidate
    tied = f", as fast as {join_names(map(timed_file, choice.tied))} within the noise" if choice.tied else ""
    time = time_of(choice.timed)  # What the table of `bench` has, and the report.
    took = f", {time:.3g} ms a run of {candidate.batch}" if time is not None else ""
    why = f"`bench` measured it fastest of the files whose parity holds{took}{tied}"
    return _Pick(choice.file, precisions[choice.file], candidate.engine, EngineSettings(), "bench", why)


def _by_rule(case: _Case) -> _Pick:
    engine = case.engine or _default_engine()
    if case.precision is not None:
        file = case.manifest.file(case.precision).path
        asked = " on ".join([case.precision, *([case.engine] if case.engine else [])])
        return _Pick(file, case.precision, engine, EngineSettings(), "asked", f"{asked} was asked for")
    graphs = {
        record.path: record.precision for record in case.manifest.files if record.path in comparable(case.manifest)
    }
    if not graphs:
        raise ArtifactError("the artifact has no files", where=str(case.root), fix="export again with --force")
    there = [item.on(kind_of(engine)) for item in case.standings.values()]
    case.objections.clear()  # Some may be of another engine.
    case.objections.update(choose(case.manifest, case.evidence, there, runs=lambda _: False).objections)
    sound = [name for name in graphs if name not in case.objections]
    # The manifest names float32 first: what was changed least.
    file = next(iter([*sound, *(name for name in graphs if case.state(name, engine) == "holds"), *graphs]))
    why = f"nothing was measured that runs here, and {file} is the least changed file whose parity holds"
    if case.state(file, engine) != "holds":
        why = f"parity holds of no file, and {file} was changed least"
    return _Pick(file, graphs[file], engine, EngineSettings(), "rule", why)


def _default_engine() -> str:
    """ONNX Runtime, or OpenVINO where that alone is installed."""
    if not is_here(GRAPH_ENGINE):
        for name in OF_GRAPHS:
            if is_here(name):
                return name
    return GRAPH_ENGINE


def _doubts(case: _Case, pick: _Pick) -> Iterator[str]:
    standing, kind = case.standings.get(pick.file), kind_of(pick.engine)
    ran = standing.on(kind).engines if standing else ()
    if ran and kind not in ran:
        yield (f"parity of {pick.file} was measured on {join_names(ran)}, not on {kind}: {_parity_command(case, pick)}")


def _parity_command(case: _Case, pick: _Pick) -> str:
    """Measures what is to run, where it is to run."""
    built = not pick.file.endswith(".onnx")
    source, place = case.manifest.source, str(case.root / pick.file if built else case.root)
    engine = [] if built or pick.engine == GRAPH_ENGINE else ["--engine", pick.engine]
    return command_line("parity", source.reference, place, *engine)


def _weights(case: _Case) -> str:
    """What the command that measures parity needs where the weights are not at hand, in words."""
    source, name = case.manifest.source, case.manifest.source.checkpoint
    if not name or not is_plain_name(name) or source.reference.endswith((".pt2", ".onnx")):
        return ""
    usual = (Path(), case.root, case.root.parent)
    if any((place / name).is_file() for place in usual):
        return ""
    return f"; with --checkpoint PATH where {name} lies elsewhere than here or beside the artifact"


def _unproven(case: _Case, pick: _Pick) -> ArtifactError:
    standing, kind = case.standings.get(pick.file), kind_of(pick.engine)
    known = case.state(pick.file, pick.engine)
    ran = standing.on(kind).engines if standing else ()
    elsewhere = bool(ran) and kind not in ran
    state = _STATES[known] + (f" on {join_names(ran)}" if ran else "")
    if standing is not None and standing.superseded:
        state = "was measured of an older file, or of other weights"
    told = f"parity of {pick.file} {state}"
    if case.precision is None and pick.basis == "rule" and len(case.standings) > 1:
        files = [f"{name}: parity {_STATES[case.state(name, pick.engine)]}" for name in case.standings]
        told = "the artifact has no file whose parity holds\n    " + "\n    ".join(files)
    measure = f"measure it: {_parity_command(case, pick)}{_weights(case)}; "
    measure = "" if known == "fails" and not elsewhere else measure
    return ArtifactError(
        f"{told}, and only files whose parity holds are run" if "\n" not in told else told,
        where=str(case.root / pick.file),
        fix=f"{measure}to run it all the same: --allow-unproven (allow_unproven=True)",
    )
