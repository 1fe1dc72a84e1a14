"""Per-layer parity: what leaves each module of a network in its files, against the network itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from s2mlp_deploy.api.against_file import layers_against_file, refuse_of_file
from s2mlp_deploy.api.capturing import CapturedSource
from s2mlp_deploy.api.layer_reports import refuse_engines, run_layers
from s2mlp_deploy.api.memory import release
from s2mlp_deploy.api.other_forms import other_form_of
from s2mlp_deploy.api.prepared import Prepared
from s2mlp_deploy.api.preparing import prepare
from s2mlp_deploy.api.saved_folder import check_place
from s2mlp_deploy.capture.frames import line_of_stack
from s2mlp_deploy.choices import GRAPH_ENGINE
from s2mlp_deploy.engines.base import Engine
from s2mlp_deploy.engines.torch import TorchEngine
from s2mlp_deploy.evidence.layers import LayersReport
from s2mlp_deploy.evidence.parity import Tolerances, Weights
from s2mlp_deploy.export.canonical import to_canonical
from s2mlp_deploy.parity.layers import MEMORY
from s2mlp_deploy.parity.pixels import OnPixels
from s2mlp_deploy.parity.program_taps import TappedProgram
from s2mlp_deploy.parity.tolerances import Limit
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
    is judged by what it adds of its own to what entered it in the file, the outputs as
    :func:`~s2mlp_deploy.api.parity` judges them; reports are saved under ``evidence/`` of each file's artifact.

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
        memory: Bytes that tapped tensors may take of a file at a time. Where one sample takes more, the layers
            are compared in parts, each in runs of its own; the report says in how many.
        save: A new folder for the tensors of all layers, reference and candidate, which
            :func:`~s2mlp_deploy.api.rejudge_layers` reads.
        bisect: Whether mends are tried against the first layer of a file that is past its tolerance
            (``s2mlp_deploy/api/bisecting.py``).
        progress: Told how many images are done.

    Returns:
        A report per file; ``report.first`` is the first layer past its tolerance.

    Raises:
        InputError: A file is an engine, or as for :func:`~s2mlp_deploy.api.parity`.
        TargetError: The engine is asked for another part of the machine than the CPU.
        BuildError: The engine cannot load a graph with taps.
        OutputError: ``save`` is there already, or the disk is full: then nothing is left of it.
    """
    if isinstance(source, str) and source.endswith(".onnx"):
        refuse_of_file(checkpoint, overrides)
        return layers_against_file(
            source,
            files,
            preprocess=preprocess,
            data=data,
            samples=samples,
            batch=batch,
            tolerances=tolerances,
            atol=atol,
            rtol=rtol,
            engine=engine,
            seed=seed,
            memory=memory,
            save=save,
            bisect=bisect,
            progress=progress,
        )
    if save is not None:
        check_place(Path(save))
    refuse_engines(files, engine)
    ready, program, reference = tapped_source(
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
    )
    assert ready.references is not None
    assert ready.origin is not None
    analysis, origin = ready.references.analysis, ready.origin
    assert analysis is not None

    def canonical() -> ir.Model:
        return source.canonical if isinstance(source, CapturedSource) else to_canonical(analysis.captured)

    with importing_from(origin.folder):
        return run_layers(
            ready,
            program,
            reference,
            f"{reference.name}, {origin.info.reference}",
            Weights.of(origin.info),
            memory=memory,
            save=save,
            bisect=bisect,
            data=data,
            engine=engine,
            other_form=other_form_of(canonical),
            progress=progress,
        )


def tapped_source(
    source: str | Source | CapturedSource, files: Sequence[str | Path], **options: Any
) -> tuple[Prepared, TappedProgram, Engine]:
    """What layers are compared on: the files, the captured program with taps, and the engine that runs it.

    Args:
        source: See :func:`parity_per_layer`.
        files: ONNX files.
        options: Those of :func:`~s2mlp_deploy.api.preparing.prepare` that a user gives.
    """
    ready = prepare(source, files, functional=True, **options)
    release()
    assert ready.references is not None
    assert ready.origin is not None
    analysis, origin, known = ready.references.analysis, ready.origin, ready.references.engine
    assert analysis is not None
    program = TappedProgram(analysis.captured.program.module(check_guards=False), _line_of)
    engine = TorchEngine(program, origin.example_inputs, known.inputs, known.outputs, name=known.name)
    if ready.on_pixels and origin.preprocessing is not None:
        return ready, program, OnPixels(engine, origin.preprocessing)
    return ready, program, engine


def _line_of(stack: str | None) -> str:
    line = line_of_stack(stack)
    return line.short if line is not None else ""
