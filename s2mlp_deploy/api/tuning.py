"""The fastest file of an artifact on this machine, and how to open it: found by measuring, kept as its default."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from s2mlp_deploy import __version__
from s2mlp_deploy.api.evidence import save_evidence
from s2mlp_deploy.api.module_records import by_module
from s2mlp_deploy.api.remembering import model_of
from s2mlp_deploy.api.tune_options import TuneOptions
from s2mlp_deploy.api.tune_state import Entrant, workplace
from s2mlp_deploy.api.tune_steps import Tuning
from s2mlp_deploy.artifact import (
    ArtifactWriter,
    Manifest,
    check_output,
    data_file,
    read_manifest,
    tuned_file,
    verify_file,
)
from s2mlp_deploy.bench.candidates import Graph, shapes_of
from s2mlp_deploy.bench.remembered import Found, machine_key, remember
from s2mlp_deploy.choices import GRAPH_ENGINE
from s2mlp_deploy.engines.registry import OF_GRAPHS, check_engine, check_here, kind_of, statuses
from s2mlp_deploy.errors import ArtifactError, TargetError
from s2mlp_deploy.evidence.machine import this_machine
from s2mlp_deploy.evidence.tune import TuneReport
from s2mlp_deploy.export.write import GraphFile
from s2mlp_deploy.files import sha256_of
from s2mlp_deploy.graph.loading import load_graph
from s2mlp_deploy.progress import ProgressCallback, no_progress
from s2mlp_deploy.serving.plan import plan_run

LOG = logging.getLogger(__name__)

_AGAIN = "run tune again"


def tune(
    directory: str | Path, options: TuneOptions | None = None, *, progress: ProgressCallback = no_progress
) -> TuneReport:
    """Finds the fastest file of an artifact on this machine and makes it what ``predict`` and ``serve`` take.

    Tried are the artifact's files, the same network in the other layout (of a zoo model, where torch is installed) and
    with its shifts in other forms, on every engine, and then how the engine is opened. They race: each runs in a
    process of its own, in turn, and is out as soon as it is slower than the best by more than chance. Whatever could
    win must compute what the artifact's float32 file computes, a quantized one as near as the file whose accuracy was
    measured.

    The winners' files become part of the artifact (``model.fp32-tuned.onnx``), the record ``evidence/tune.json``, and
    their layouts and forms are remembered for later exports of a network of that shape on this machine. A tuning that
    is interrupted goes on where it was.

    Args:
        directory: The artifact.
        options: Time, engines, threads.
        progress: Told what is being done.

    Returns:
        What was tried, what won, and why the others did not.

    Raises:
        ArtifactError: There is no artifact, or a file of it was changed.
        InputError: An option is out of range, a shape does not fit, or a size besides the batch is free and has none.
        TargetError: There is no such engine, or it is not installed.
        OutputError: The artifact cannot be written, or another command or tuning had it for ten minutes.
    """
    root, options = Path(directory), options or TuneOptions()
    manifest = read_manifest(root)
    for record in manifest.files:
        verify_file(root, record)
    manifest.file("fp32")
    # What could not be written in the end is refused before minutes are spent.
    check_output(root, force=True, files={tuned_file(record.precision) for record in manifest.files})
    engines = installed_engines(options.engines)
    usable = this_machine().usable_cores
    if options.threads and usable and options.threads > usable:
        LOG.warning(
            "%d threads share %g processors here, and would be what the artifact runs with", options.threads, usable
        )
    graph = Graph(manifest.file("fp32").path, manifest.inputs, manifest.limits, "")
    shapes_of([graph], [options.batch], options.shapes)
    asked = {
        "place": root.resolve(),
        "files": [(record.path, record.sha256) for record in manifest.files],
        "machine": machine_key(this_machine()),
        "engines": engines,
        "versions": {"s2mlp_deploy": __version__} | {item.name: item.version for item in statuses()},
        "threads": options.threads,
        "batch": options.batch,
        "shapes": dict(options.shapes),
        "seed": options.seed,
    }
    with workplace(asked) as place:
        if read_manifest(root).files != manifest.files:
            raise ArtifactError(
                "the artifact was changed while another tuning of it was waited for", where=str(root), fix=_AGAIN
            )
        if place.resumed:
            LOG.info("going on with the tuning that was interrupted after %.0f s", place.state.seconds)
        run = Tuning(root, manifest, options, engines, place, progress)
        report, kept = run.run()
        report = _adopt(root, manifest, report, kept, run)
        place.clear()
    _remember(manifest, report)
    try:
        plan_run(root)
    except ArtifactError as error:
        LOG.warning("nothing of it runs yet: %s; %s", error.problem, error.fix)
    return report


def installed_engines(asked: Sequence[str]) -> tuple[str, ...]:
    """The engines that can run graphs here.

    Args:
        asked: Those that are wanted; none for all.

    Raises:
        TargetError: There is no such engine, or no such part of a machine here, it is not installed, or none is.
    """
    there = {item.name: item for item in statuses() if item.name in OF_GRAPHS}
    for engine in asked:
        check_engine(engine, OF_GRAPHS)
        status = there[kind_of(engine)]
        if not status.available:
            raise TargetError(
                f"the engine {kind_of(engine)} is not installed", where="--engine", fix=status.install_hint
            )
        check_here(engine)
    found = tuple(dict.fromkeys(asked)) or tuple(name for name, item in there.items() if item.available)
    if not found:
        raise TargetError(
            "no engine that runs ONNX files is installed",
            fix=f"{there[GRAPH_ENGINE].install_hint}; or s2mlp-deploy[openvino]",
        )
    return found


def _adopt(root: Path, manifest: Manifest, report: TuneReport, winners: Sequence[Entrant], run: Tuning) -> TuneReport:
    """Makes the winners' files part of the artifact, and saves what was found.

    Raises:
        ArtifactError: The artifact was replaced meanwhile.
        OutputError: It cannot be written.
    """
    new = [item for item in winners if not item.variant.file]
    kept = {item.variant.file for item in winners} | {tuned_file(item.variant.precision) for item in new}
    # Of an earlier tuning, what is no winner any more: another one is, or it computes something else.
    won = {trial.number_type for trial in report.trials if trial.outcome == "won"}
    wrong = {trial.file for trial in report.trials if trial.outcome == "parity"}
    tuned = {(tuned_file(record.precision), record.precision.partition("-")[0]) for record in manifest.files}
    older = {name for name, number_type in tuned if number_type in won or name in wrong} - kept
    older |= {data_file(name) for name in older}
    if new or any(record.path in older for record in manifest.files):
        names = [tuned_file(item.variant.precision) for item in new]
        with ArtifactWriter(root, force=True, files=names) as writer:
            facts: dict[str, tuple[str, int]] = {}
            for entrant in new:
                facts |= run.variants.adopted(entrant.variant, writer.staging)
            _check(
                report, {item.variant.sha256: writer.staging / tuned_file(item.variant.precision) for item in new}, root
            )

            def renew(there: Manifest) -> Manifest:
                if {(r.path, r.sha256) for r in there.files} != {(r.path, r.sha256) for r in manifest.files}:
                    raise ArtifactError(
                        "the artifact was changed while it was tuned, and what won is of older files",
                        where=str(root),
                        fix=_AGAIN,
                    )
                gone = older | set(names)
                return replace(
                    there,
                    files=tuple(record for record in there.files if record.path not in gone),
                    precision_exceptions=tuple(item for item in there.precision_exceptions if item.file not in gone)
                    + tuple(item for entrant in new for item in entrant.variant.exceptions),
                )

            writer.add(renew, facts)
    else:
        _check(report, {}, root)
    by_hash = {item.variant.sha256: tuned_file(item.variant.precision) for item in new}
    # By its name alone, what an earlier tuning made would be taken for what has its place now.
    gone = older | set(by_hash.values())
    trials = tuple(
        replace(trial, file=by_hash.get(trial.sha256, "" if trial.file in gone else trial.file))
        for trial in report.trials
    )
    report = replace(report, trials=trials)
    named = ((item, item.variant.file or tuned_file(item.variant.precision)) for item in winners)
    proofs = (run.parity_of(item, file, report.data) for item, file in named)
    made = {tuned_file(item.variant.precision): item.variant.precision for item in new}
    graphs = [GraphFile(name, precision, load_graph(root / name).model) for name, precision in made.items()]
    modules = by_module(graphs, read_manifest(root))
    save_evidence(root, *modules, *(proof for proof in proofs if proof is not None), report)
    return report


def _check(report: TuneReport, made: Mapping[str, Path], root: Path) -> None:
    """That the winners' files are those that were measured, before anything is changed.

    Args:
        report: What won.
        made: Files that are to become part of the artifact, by the hash that was measured.
        root: The artifact.

    Raises:
        ArtifactError: One is another file.
    """
    for trial in report.trials:
        path = root / trial.file if trial.file else made.get(trial.sha256)
        if trial.outcome == "won" and (path is None or not path.is_file() or sha256_of(path) != trial.sha256):
            raise ArtifactError("the winner was replaced while it was tuned", where=str(root), fix=_AGAIN)


def _remember(manifest: Manifest, report: TuneReport) -> None:
    found = [
        Found(
            trial.number_type,
            trial.engine,
            trial.layout,
            trial.form,
            trial.ratio.value if trial.ratio is not None else 1.0,
        )
        for trial in report.winners
    ]
    # Where nothing won, what was found before is still the best that is known.
    if found:
        remember(model_of(manifest), found, time=report.environment.time)
