"""Parity: an artifact's files against the module they come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import onnx_ir as ir

from s2mlp_deploy.api.against_file import parity_against_file, refuse_of_file
from s2mlp_deploy.api.capturing import CapturedSource
from s2mlp_deploy.api.output_reports import Told, report_outputs, try_besides
from s2mlp_deploy.api.preparing import prepare
from s2mlp_deploy.api.references import evaluation
from s2mlp_deploy.artifact import (
    MANIFEST,
    ShiftRecord,
    current_fields,
    model_file,
    read_manifest,
    tuned_file,
    verify_file,
)
from s2mlp_deploy.choices import GRAPH_ENGINE
from s2mlp_deploy.errors import ShiftError
from s2mlp_deploy.evidence.calibration import CalibrationReport
from s2mlp_deploy.evidence.parity import GraphProof, ParityReport, Tolerances, Weights
from s2mlp_deploy.evidence.store import read_record
from s2mlp_deploy.parity.compare import compare
from s2mlp_deploy.parity.proof import prove
from s2mlp_deploy.parity.tolerances import Limit
from s2mlp_deploy.progress import ProgressCallback, no_progress
from s2mlp_deploy.shift.spec import ShiftSpec
from s2mlp_deploy.sources.isolation import importing_from
from s2mlp_deploy.sources.source import Source
from s2mlp_deploy.text import first_line_of

_EAGER = "eager"


def parity(
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
    progress: ProgressCallback = no_progress,
) -> tuple[ParityReport, ...]:
    """Compares ONNX or engine files with the PyTorch module they come from.

    The reference runs once for all files. Where the module's code races, the reference is its functional meaning, and
    the eager run is reported beside it, never compared with. Reports are saved under ``evidence/`` of each file's
    artifact.

    Inputs and outputs of a file are those of the module with the same names; where the names differ, their order
    counts.

    A file that was exported with its preprocessing is compared from the pixels on: it gets decoded images, the
    reference what Python's preprocessing makes of them; that then holds for every file of the call.

    What an artifact knows need not be given: preprocessing and class names, and, where ``source`` is what it was
    exported from, its checkpoint (found again by name and hash), overrides and seed.

    Args:
        source: What :func:`~s2mlp_deploy.api.load` takes, or what it or :func:`~s2mlp_deploy.api.capture` returned; or
            an ONNX file, which is right (:func:`~s2mlp_deploy.api.parity_against_file`).
        files: ONNX files to compare, artifacts for all of theirs; engine files where their GPU is.
        checkpoint: See :func:`~s2mlp_deploy.api.load`.
        overrides: See there.
        preprocess: See there.
        data: What :func:`~s2mlp_deploy.data.dataset.open_data` takes: images in a folder or archive, arrays, or
            something to iterate over; without it the inputs are seeded noise, or images of it.
        samples: At most this many images (default: all; without data 16).
        batch: Images per run; a file with a fixed batch runs with that.
        tolerances: Limits for every file; default what a file's own making measured of it
            (:mod:`s2mlp_deploy.parity.own_limits`), and where that is not known by its precision, wider where it
            preprocesses.
        atol: Allowed absolute difference in place of the tolerances': a number, or numbers by the output's name, where
            ``""`` stands for all others.
        rtol: Allowed difference as a share of the reference's peak, in the same way.
        engine: What runs ONNX files: ``onnxruntime``, or with another execution provider than the CPU
            ``onnxruntime:cuda``; ``openvino``, or with another device ``openvino:GPU``.
        seed: Of random weights where ``source`` is a name, of noise, and of the choice of samples; default: the
            artifact's, or 0.
        progress: Told how many images are done.

    Returns:
        A report per file; ``report.passed`` is the verdict.

    Raises:
        InputError: Files, data or limits cannot be used, an input or output has no counterpart, or an option is given
            that a loaded source cannot honour (its subclasses say what).
    """
    if isinstance(source, str) and source.endswith(".onnx"):
        refuse_of_file(checkpoint, overrides)
        return parity_against_file(
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
            progress=progress,
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
    )
    assert ready.origin is not None
    assert ready.references is not None
    origin, references, inputs = ready.origin, ready.references, ready.inputs
    progress("reading shifts", 0, None)
    proofs = {
        str(path): _proof(path, ready.graphs[str(path)].graph, ready.descriptions[str(path)], origin, references.shifts)
        for path in ready.paths
        if str(path) in ready.graphs
    }
    eager = {} if references.eager is None else {_EAGER: references.eager}
    engines = {key: ready.adapted(key, engine) for key, engine in (ready.sessions | eager).items()}
    done = 0

    def on_batch(size: int) -> None:
        nonlocal done
        done += size
        progress("comparing", done, inputs.count)

    progress("comparing", 0, inputs.count)
    with importing_from(origin.folder), evaluation(origin.module):
        measured = compare(ready.reference, engines, inputs, on_batch=on_batch)
        tried = try_besides(ready, progress)
    told = Told(
        f"{ready.reference.name}, {origin.info.reference}",
        Weights.of(origin.info),
        {key: engine.name for key, engine in engines.items()},
        measured.notes,
        proofs,
        measured.figures.get(_EAGER, ()),
    )
    return report_outputs(ready, measured, tried, told, ready.on_pixels)


def _proof(
    path: Path, graph: ir.Graph, description: Mapping[str, Any], origin: Source, shifts: Sequence[ShiftSpec]
) -> GraphProof:
    """What is read off a file: its own description, the float32 file beside it and the saved calibration help."""
    try:
        told = msgspec.convert(current_fields(dict(description)).get("shifts", ()), tuple[ShiftRecord, ...])
    except (msgspec.ValidationError, KeyError, TypeError, ShiftError) as error:
        return GraphProof(0, failures=(f"what the file says of its shifts is damaged: {first_line_of(error)}",))
    if not description:
        if not shifts:
            return GraphProof(0)
        return GraphProof(0, unread="the file does not say what its shifts are: it was not exported by this package")
    float32, calibration = None, None
    if description.get("precision") != "fp32" and (path.parent / MANIFEST).is_file():
        manifest = read_manifest(path.parent)
        record = next((item for item in manifest.files if item.path == model_file("fp32")), None)
        if record is not None and path.name in {item.path for item in manifest.files}:
            float32 = verify_file(path.parent, record)
        if manifest.calibration is not None and path.name in manifest.calibration.files:
            saved = read_record(path.parent, CalibrationReport)
            calibration = saved if saved is not None and saved.calibration == manifest.calibration else None
    rewritten = path.name == tuned_file(str(description.get("precision")))
    return prove(
        graph, told, shifts, module=origin.module, float32=float32, rewritten=rewritten, calibration=calibration
    )
