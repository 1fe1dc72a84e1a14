"""Compiling ONNX files ahead of time: a file that starts faster, for one device, one kind of processor, one version."""

from __future__ import annotations

import collections
import hashlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from s2mlp_deploy.artifact import METADATA_KEY, check_onnx, how_to_get, limits_of, read_description
from s2mlp_deploy.artifact.onnx_interface import OnnxInterface, read_interface
from s2mlp_deploy.engines.openvino import library
from s2mlp_deploy.engines.openvino.library import CPU, OPENVINO, RULES
from s2mlp_deploy.engines.openvino.runtime import check_operators, compiled_of, configuration_of
from s2mlp_deploy.engines.record import (
    GRAPH_RULES,
    INSTRUCTIONS,
    build_again,
    instructions_here,
    key_of,
    mismatches,
    read_engine,
    this_platform,
    write_beside,
)
from s2mlp_deploy.engines.sidecar import check_replaceable
from s2mlp_deploy.errors import ArtifactError, CheckFailedError, InputError, TargetError
from s2mlp_deploy.evidence.build import BuildRecord, Contents, MatrixOp
from s2mlp_deploy.evidence.machine import environment_here
from s2mlp_deploy.files import remove_abandoned, sha256_of
from s2mlp_deploy.locks import locked
from s2mlp_deploy.progress import ProgressCallback, no_progress
from s2mlp_deploy.text import join_names

LOG = logging.getLogger(__name__)

_WAIT = 3600.0
"""Seconds to wait for another build of the same engine, which is then found."""

_MATRIX = frozenset(("Convolution", "Deconvolution", "FullyConnected", "MatMul"))
_NO_LAYERS = frozenset(("Const", "Input", "Output"))
_PRECISIONS = {"f32": "fp32", "fp32": "fp32", "f16": "fp16", "fp16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8"}


@dataclass(frozen=True)
class _Plan:
    path: Path
    sha256: str
    told: OnnxInterface
    description: Mapping[str, Any]
    core: Any
    version: str
    device: str
    config: Mapping[str, Any]
    output: Path
    key: str

    @property
    def precision(self) -> str | None:
        stated = self.description.get("precision")
        return stated if isinstance(stated, str) else None


def compiled_path(onnx_file: Path, device: str) -> Path:
    """``<stem>.openvino.<device>.engine`` beside the ONNX file."""
    return onnx_file.with_name(f"{onnx_file.stem}.{OPENVINO}.{device.lower()}.engine")


def build(
    onnx_file: Path,
    *,
    target: str = CPU,
    output: Path | None = None,
    precision: str | None = None,
    force: bool = False,
    report: ProgressCallback = no_progress,
) -> BuildRecord:
    """Compiles a file with its sidecar, or finds what an equal build made before.

    Args:
        onnx_file: The graph.
        target: The device.
        output: Where to write; default :func:`compiled_path`.
        precision: What the file must state that it is in; default: whatever it states.
        force: Build even if an equal one is there.
        report: Called with what is being done.

    Raises:
        TargetError: There is no such device here, or it cannot keep what it compiles.
        MissingDependencyError: OpenVINO is not installed.
        ArtifactError: The file is not ONNX, or one that ONNX Runtime optimized for itself.
        InputError: The file is in another precision.
        BuildError: OpenVINO cannot load the graph.
        CheckFailedError: A float32 graph is computed in another precision.
        OutputError: The engine cannot be written, or the graph was replaced meanwhile.
    """
    plan = _planned(onnx_file, target, output, precision)
    report("waiting for another build of this engine", 0, None)
    with locked(plan.output.with_name(f".{plan.output.name}.lock"), wait=_WAIT):
        remove_abandoned(plan.output.parent)
        found = None if force else _cached(plan)
        return found if found is not None else _build(plan, report)


def find_compiled(onnx_file: Path, device: str) -> Path | None:
    """What was compiled of a file for a device of this machine, beside the file; None where that does not fit.

    Why it does not is logged: what was changed since it was built is a warning.

    Args:
        onnx_file: The graph.
        device: ``CPU``; empty for it too.
    """
    path = compiled_path(onnx_file, device or CPU)
    if not path.is_file():
        return None
    try:
        record = read_engine(path)
    except ArtifactError as error:
        LOG.warning("%s is not taken, and its graph is run: %s (%s)", path.name, error.problem, error.fix)
        return None
    misfits = [item.field for item in mismatches(record, version=library.version_here(), capability=None)]
    if record.flavour != OPENVINO or record.onnx_sha256 != sha256_of(onnx_file):
        misfits.insert(0, "graph")
    if misfits:
        LOG.info(
            "%s is not taken, and its graph is run: it was built for another %s; %s",
            path.name,
            join_names(misfits),
            build_again(path, record),
        )
        return None
    return path


def _planned(path: Path, target: str, output: Path | None, precision: str | None) -> _Plan:
    beside = check_onnx(path)
    told = read_interface(path)
    check_operators(told, path)
    description = read_description(told.metadata.get(METADATA_KEY), path)
    stated = description.get("precision")
    if precision is not None and str(stated).partition("-")[0] != precision:
        raise InputError(
            f"the file is in {stated or 'no stated precision'}, and OpenVINO changes none: {precision} was asked for",
            where=str(path),
            fix=f"name a file in {precision}, or {how_to_get(precision)}",
        )
    openvino = library.load()
    core = library.shared_core()
    device = library.find_device(target, core.available_devices, "--target")
    if "EXPORT_IMPORT" not in core.get_property(device, "OPTIMIZATION_CAPABILITIES"):
        raise TargetError(f"OpenVINO cannot keep what it compiles for {device}", where="--target", fix="--target cpu")
    usual = compiled_path(path, device)
    check_replaceable(output or usual, usual)
    config = configuration_of(told, path, device)
    version = str(openvino.get_version())
    sha256 = sha256_of(path)
    key = key_of(
        {
            "onnx": [sha256, *(sha256_of(path.parent / name) for name in beside)],
            "flavour": OPENVINO,
            "version": version,
            "targets": device,
            "platform": this_platform(),
            INSTRUCTIONS: instructions_here(),
            "flags": {name: str(value) for name, value in config.items()},
            GRAPH_RULES: RULES,
        }
    )
    return _Plan(path, sha256, told, description, core, version, device, config, output or usual, key)


def _cached(plan: _Plan) -> BuildRecord | None:
    try:
        record = read_engine(plan.output)
    except ArtifactError:
        return None
    same = record.key == plan.key and (record.inputs, record.outputs) == (plan.told.inputs, plan.told.outputs)
    return replace(record, cached=True) if same else None


def _build(plan: _Plan, report: ProgressCallback) -> BuildRecord:
    start = time.monotonic()
    report("compiling the graph", 0, None)
    compiled, notes = compiled_of(plan.core, plan.path, plan.device, plan.config)
    contents = contents_of(compiled)
    _check(plan, contents)
    report("writing the engine", 0, None)
    stream = compiled.export_model()
    content = memoryview(stream.getvalue() if hasattr(stream, "getvalue") else bytes(stream))
    flags: dict[str, Any] = {"device": str(plan.core.get_property(plan.device, "FULL_DEVICE_NAME")), GRAPH_RULES: RULES}
    if plan.device == CPU:
        flags[INSTRUCTIONS] = instructions_here()
    record = BuildRecord(
        onnx=plan.path.name,
        onnx_sha256=plan.sha256,
        engine=plan.output.name,
        engine_sha256=hashlib.sha256(content).hexdigest(),
        bytes=content.nbytes,
        flavour=OPENVINO,
        version=plan.version,
        targets=(plan.device,),
        profiles=(),
        layers=contents.layers,
        layer_dtypes=contents.dtypes,
        seconds=round(time.monotonic() - start, 3),
        platform=this_platform(),
        precision=plan.precision,
        flags=flags,
        inputs=plan.told.inputs,
        outputs=plan.told.outputs,
        engine_contents=contents,
        advice=notes,
        arguments=("--engine", OPENVINO, *(("--target", plan.device) if plan.device != CPU else ())),
        preprocessing_in_graph=plan.description.get("preprocessing_in_graph") is True,
        limits=limits_of(plan.description),
        key=plan.key,
        environment=environment_here(),
    )
    write_beside(plan.path, plan.output, content, record)
    return record


def contents_of(compiled: Any) -> Contents:
    """What a compiled graph holds: its layers, and what each GEMM and convolution computes in."""
    layers = []
    for node in compiled.get_runtime_model().get_ordered_ops():
        told = node.get_rt_info()
        kind, precision, kernel = (str(told[name].value) for name in ("layerType", "runtimePrecision", "primitiveType"))
        if kind in _MATRIX:
            # A kernel of float32 may read weights in int8, whose type is then told as the layer's.
            precision = kernel.rpartition("_")[2].lower()
        if kind not in _NO_LAYERS:
            layers.append((node.get_friendly_name(), kind, _PRECISIONS.get(precision, precision)))
    return Contents(
        source="engine",
        layers=len(layers),
        types=dict(collections.Counter(kind for _, kind, _ in layers).most_common()),
        dtypes=dict(collections.Counter(precision for _, _, precision in layers).most_common()),
        reformats=sum(kind == "Reorder" for _, kind, _ in layers),
        matrix_ops=tuple(MatrixOp(name, precision) for name, kind, precision in layers if kind in _MATRIX),
    )


def _check(plan: _Plan, contents: Contents) -> None:
    """Refuses a compiled float32 graph with GEMMs or convolutions in another precision."""
    wrong = [op for op in contents.matrix_ops if op.precision != "fp32"] if plan.precision == "fp32" else []
    if wrong:
        raise CheckFailedError(
            f"{len(wrong)} GEMMs and convolutions of a float32 graph are computed in another precision, the first in "
            f"{wrong[0].precision}: {wrong[0].name}",
            where=str(plan.path),
            fix="report it with the version of OpenVINO; run the file with --engine onnxruntime",
        )
