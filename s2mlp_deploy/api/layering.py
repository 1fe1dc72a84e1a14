"""Per-layer parity: what leaves each module of a network in its files, against the network itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from s2mlp_deploy.api.bisecting import Run, as_computed, with_bisection
from s2mlp_deploy.api.capturing import CapturedSource
from s2mlp_deploy.api.evidence import save_evidence
from s2mlp_deploy.api.opening import is_engine
from s2mlp_deploy.api.preparing import Prepared, prepare
from s2mlp_deploy.api.saved_layers import LayerWriter, check_place
from s2mlp_deploy.capture.frames import line_of_stack
from s2mlp_deploy.choices import GRAPH_ENGINE
from s2mlp_deploy.data.noise import NoiseBatches
from s2mlp_deploy.engines.registry import OF_GRAPHS, check_engine, kind_of
from s2mlp_deploy.engines.torch import TorchEngine
from s2mlp_deploy.errors import InputError, TargetError
from s2mlp_deploy.evidence.layers import LayersReport
from s2mlp_deploy.evidence.machine import environment_here
from s2mlp_deploy.evidence.parity import Tolerances, Weights
from s2mlp_deploy.parity.layers import MEMORY, Layers, compare_layers
from s2mlp_deploy.parity.pixels import OnPixels
from s2mlp_deploy.parity.program_taps import TappedProgram
from s2mlp_deploy.parity.tolerances import Limit, default_tolerances, tolerances_by_output
from s2mlp_deploy.progress import ProgressCallback, no_progress
from s2mlp_deploy.sources.isolation import importing_from
from s2mlp_deploy.sources.source import Source


def parity_per_layer(
    source: str | Source | CapturedSource,
    files: Sequence[str | Path],
    *,
    checkpoint: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    preprocess: str | Path | None = None,
    data: str | Path | Iterable[Any] | None = None,
    samples: int | None = None,
    batch: int = 8,
    tolerances: Tolerances | None = None,
    atol: Limit = None,
    rtol: Limit = None,
    engine: str = GRAPH_ENGINE,
    seed: int | None = None,
    memory: int = MEMORY,
    save: str | Path | None = None,
    bisect: bool = False,
    progress: ProgressCallback = no_progress,
) -> tuple[LayersReport, ...]:
    """Compares what leaves each module of a network in ONNX files of it, by module path, on a CPU.

    The reference is the captured program, the functional meaning of the module. A file in float16 is computed in
    float32 with every result rounded to float16, on any processor; by OpenVINO in float32 without rounding. Every layer
    is judged by the limits of the file's precision; reports are saved under ``evidence/`` of each file's artifact.

    Args:
        source: See :func:`~s2mlp_deploy.api.parity`, as for what follows.
        files: ONNX files, or artifacts for all of theirs.
        checkpoint: See there.
        overrides: See there.
        preprocess: See there.
        data: See there.
        samples: See there.
        batch: Images per run at most; fewer where the tapped tensors would take more than ``memory``.
        tolerances: Limits of every layer; default by the file's precision.
        atol: Allowed absolute difference in place of the tolerances': a number for all layers and outputs, or numbers
            by the output's name, where ``""`` stands for all others.
        rtol: Allowed difference as a share of the peak of the reference's layer, in the same way.
        engine: What runs the files, ``onnxruntime`` or ``openvino``, on the CPU.
        seed: See there.
        memory: Bytes that tapped tensors may take at a time on either side. Where one sample takes more, the layers
            are compared in parts, each in runs of its own; the report says in how many.
        save: A new folder for the tensors of all layers, reference and candidate, which
            :func:`~s2mlp_deploy.api.rejudge_layers` reads.
        bisect: Whether mends are tried against the first layer of a file that is past its tolerance
            (:mod:`s2mlp_deploy.api.bisecting`).
        progress: Told how many images are done.

    Returns:
        A report per file; ``report.first`` is the first layer past its tolerance.

    Raises:
        InputError: A file is an engine, the engine is asked for another part of the machine than the CPU, or as for
            :func:`~s2mlp_deploy.api.parity`.
        BuildError: The engine cannot load a graph with taps.
        OutputError: ``save`` is there already, or the disk is full: then nothing is left of it.
    """
    if save is not None:
        check_place(Path(save))
    if engine not in OF_GRAPHS:
        check_engine(engine, OF_GRAPHS)
        raise TargetError(
            f"layers are compared on a CPU, not on {engine}", where="--engine", fix=f"--engine {kind_of(engine)}"
        )
    for file in files:
        if is_engine(Path(file)):
            raise InputError(
                "an engine has no layers that can be looked at without changing it",
                where=str(file),
                fix="name the ONNX file that it was built from",
            )
    ready = prepare(
        source,
        files,
        checkpoint=checkpoint,
        overrides=overrides,
        preprocess=preprocess,
        data=data,
        samples=samples,
        batch=batch,
        tolerances=tolerances,
        atol=atol,
        rtol=rtol,
        engine=engine,
        seed=seed,
        progress=progress,
        functional=True,
    )
    analysis, origin, inputs = ready.references.analysis, ready.origin, ready.inputs
    assert analysis is not None
    program = TappedProgram(analysis.captured.program.module(check_guards=False), _line_of)
    known = ready.references.engine
    taken = TorchEngine(program, origin.example_inputs, known.inputs, known.outputs, name=known.name)
    reference = OnPixels(taken, origin.preprocessing) if ready.on_pixels and origin.preprocessing is not None else taken
    graphs = {str(path): as_computed(ready.graphs[str(path)], engine) for path in ready.paths}
    done = 0

    def on_batch(size: int) -> None:
        nonlocal done
        done += size
        progress("comparing layers", done, None)

    writer = None if save is None else LayerWriter(Path(save), [str(path) for path in ready.paths])
    with importing_from(origin.folder), closing(writer) if writer is not None else nullcontext():
        measured = compare_layers(
            program,
            reference,
            {key: model for key, (model, _) in graphs.items()},
            inputs,
            adapt=ready.adapted,
            splits=_splits(ready),
            memory=memory,
            engine=engine,
            keep=writer,
            on_batch=on_batch,
        )
        reports = _reports(ready, measured, reference.name, graphs, tolerances, atol, rtol)
        if bisect:
            run = Run(program, reference, ready, _splits(ready), memory, data, engine)
            reports = tuple(
                with_bisection(report, path, run, source, progress)
                for path, report in zip(ready.paths, reports, strict=True)
            )
        if writer is not None:
            writer.commit(reports)
    for path, report in zip(ready.paths, reports, strict=True):
        save_evidence(path.parent, report, label=report.label)
    return reports


def _reports(
    ready: Prepared,
    measured: Mapping[str, Layers],
    reference: str,
    graphs: Mapping[str, tuple[ir.Model, bool]],
    tolerances: Tolerances | None,
    atol: Limit,
    rtol: Limit,
) -> tuple[LayersReport, ...]:
    origin, inputs = ready.origin, ready.inputs
    environment = environment_here()
    reports = []
    for path in ready.paths:
        key, found = str(path), measured[str(path)]
        ready.check_unchanged(path)
        base = tolerances or default_tolerances(ready.precisions[key], on_pixels=key in ready.on_pixels)
        limits = tolerances_by_output([layer.path for layer in found.layers], base, atol=atol, rtol=rtol)
        report = LayersReport(
            reference=f"{reference}, {origin.info.reference}",
            candidate=f"{ready.sessions[key].name}{', results rounded to float16' if graphs[key][1] else ''}",
            file=path.name,
            precision=ready.precisions[key],
            data=inputs.described,
            images=found.images,
            layers=tuple(replace(layer, tolerances=limits[layer.path]) for layer in found.layers),
            unmatched=found.unmatched,
            runs=found.runs,
            parts=found.parts,
            tapping=found.tapping,
            file_sha256=ready.hashes[path],
            noise=isinstance(inputs, NoiseBatches),
            data_sha256=ready.data_sha256,
            weights=Weights.of(origin.info),
            environment=environment,
        )
        reports.append(report)
    return tuple(reports)


def _line_of(stack: str | None) -> str:
    line = line_of_stack(stack)
    return line.short if line is not None else ""


def _splits(ready: Prepared) -> bool:
    """Whether a batch may be cut into smaller ones: where it is free on all sides, and not a clip of several images."""
    if ready.whole or ready.on_pixels or any(limit.name == "batch" for limit in ready.sizes):
        return False
    infos = [info for session in ready.sessions.values() for info in session.inputs]
    return all(info.shape and info.shape[0] == "batch" for info in (*ready.fed, *infos))
