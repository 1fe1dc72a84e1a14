"""From the figures of layers to reports of them, whatever the reference is. Never imports torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from s2mlp_deploy.api.bisecting import Maker, Run, as_computed, with_bisection
from s2mlp_deploy.api.evidence import save_evidence
from s2mlp_deploy.api.opening import is_engine
from s2mlp_deploy.api.prepared import Prepared
from s2mlp_deploy.api.saved_layers import LayerWriter
from s2mlp_deploy.data.noise import NoiseBatches
from s2mlp_deploy.engines.base import Engine
from s2mlp_deploy.engines.registry import OF_GRAPHS, check_engine, kind_of
from s2mlp_deploy.errors import InputError, TargetError
from s2mlp_deploy.evidence.layers import LayerParity, LayersReport
from s2mlp_deploy.evidence.machine import environment_here
from s2mlp_deploy.evidence.parity import Weights
from s2mlp_deploy.parity.layers import Layers, LookedInto, compare_layers
from s2mlp_deploy.parity.own_limits import LEAST
from s2mlp_deploy.parity.tolerances import default_tolerances, own_distance, tolerances_by_output
from s2mlp_deploy.progress import ProgressCallback


def run_layers(
    ready: Prepared,
    program: LookedInto,
    reference: Engine,
    told: str,
    weights: Weights,
    *,
    memory: int,
    save: str | Path | None,
    bisect: bool,
    data: str | Path | Iterable[Any] | None,
    engine: str,
    other_form: Maker | None,
    progress: ProgressCallback,
) -> tuple[LayersReport, ...]:
    """Compares the layers of files, judges and keeps what was found.

    Args:
        ready: Files and inputs.
        program: The reference with taps.
        reference: The engine that runs it.
        told: What the reference is, in words.
        weights: Of the reference.
        memory: See :func:`~s2mlp_deploy.api.parity_per_layer`, as for the rest.
        save: See there.
        bisect: See there.
        data: See there.
        engine: See there.
        other_form: See :class:`~s2mlp_deploy.api.bisecting.Run`.
        progress: See there.
    """
    graphs = {str(path): as_computed(ready.graphs[str(path)], engine) for path in ready.paths}
    done = 0

    def on_batch(size: int) -> None:
        nonlocal done
        done += size
        progress("comparing layers", done, None)

    writer = None if save is None else LayerWriter(Path(save), [str(path) for path in ready.paths])
    with closing(writer) if writer is not None else nullcontext():
        measured = compare_layers(
            program,
            reference,
            {key: model for key, (model, _) in graphs.items()},
            ready.inputs,
            adapt=ready.adapted,
            splits=ready.splits,
            memory=memory,
            engine=engine,
            plain={key: ready.sessions[key] for key, (_, rounds) in graphs.items() if not rounds},
            foreign=isinstance(ready.inputs, NoiseBatches),
            keep=writer,
            on_batch=on_batch,
        )
        reports = _reports(ready, measured, told, weights, graphs)
        if bisect:
            run = Run(program, reference, ready, memory, data, engine, other_form)
            reports = tuple(
                with_bisection(report, path, run, progress) for path, report in zip(ready.paths, reports, strict=True)
            )
        if writer is not None:
            writer.commit(reports)
    for path, report in zip(ready.paths, reports, strict=True):
        save_evidence(path.parent, report, label=report.label)
    return reports


def refuse_engines(files: Sequence[str | Path], engine: str) -> None:
    """Refuses files that have no layers to be looked at, and what cannot look.

    Raises:
        InputError: A file is an engine.
        TargetError: The engine runs no graphs, or on another part of the machine than the CPU.
    """
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


def _reports(
    ready: Prepared,
    measured: Mapping[str, Layers],
    reference: str,
    weights: Weights,
    graphs: Mapping[str, tuple[ir.Model, bool]],
) -> tuple[LayersReport, ...]:
    inputs = ready.inputs
    environment = environment_here()
    reports = []
    for path in ready.paths:
        key, found = str(path), measured[str(path)]
        ready.check_unchanged(path)
        report = LayersReport(
            reference=reference,
            candidate=f"{ready.sessions[key].name}{', results rounded to float16' if graphs[key][1] else ''}",
            file=path.name,
            precision=ready.precisions[key],
            data=inputs.described,
            images=found.images,
            layers=_judged(ready, path, found),
            unmatched=found.unmatched,
            runs=found.runs,
            parts=found.parts,
            tapping=found.tapping,
            file_sha256=ready.hashes[path],
            noise=isinstance(inputs, NoiseBatches),
            data_sha256=ready.data_sha256,
            weights=weights,
            environment=environment,
        )
        reports.append(report)
    return tuple(reports)


def _judged(ready: Prepared, path: Path, found: Layers) -> tuple[LayerParity, ...]:
    """A file's layers with their limits: the caller's, else those of a layer's own distance and of the file's outputs.

    Args:
        ready: What was compared.
        path: The file.
        found: Its figures.
    """
    key, judging = str(path), ready.judging
    precision, on_pixels = ready.precisions[key], key in ready.on_pixels
    base = judging.tolerances or default_tolerances(precision, on_pixels=on_pixels)
    names = [layer.path for layer in found.layers]
    if judging.for_all:
        limits = tolerances_by_output(names, base, atol=judging.atol, rtol=judging.rtol)
        return tuple(replace(layer, tolerances=limits[layer.path]) for layer in found.layers)
    own = own_distance(precision, on_pixels=on_pixels)
    noise = isinstance(ready.inputs, NoiseBatches)
    outputs, _ = judging.of_file(
        path, ready.hashes[path], precision, on_pixels=on_pixels, images=found.images, on_noise=noise
    )
    if noise and precision.startswith(("int8", "fp8")):
        # Noise lies outside of the ranges: outputs tell something only where they did when the file was made.
        outputs = {
            name: limits
            for name, limits in outputs.items()
            if limits.min_sqnr not in (None, LEAST) or any(v is not None for v in judging.given(name).values())
        }
    return tuple(
        replace(layer, tolerances=outputs.get(layer.path)) if layer.own is None else replace(layer, own_tolerances=own)
        for layer in found.layers
    )
