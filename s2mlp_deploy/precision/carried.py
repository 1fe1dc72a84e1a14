"""A graph of the same network, quantized as an artifact's own file is: the ranges are carried over, layer by layer.

Another layout moves numbers and changes none, so a layer's input has the range that was measured of it. What a
placement quantizes there and not here (ONNX Runtime's quantizes results of convolutions, not of MatMuls) was not
measured, and then nothing is made.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir

from s2mlp_deploy.artifact import CALIBRATION_CACHE, Manifest
from s2mlp_deploy.calibration.observe import Statistics
from s2mlp_deploy.calibration.store import Key, load
from s2mlp_deploy.errors import QuantizationError
from s2mlp_deploy.graph.loading import load_graph
from s2mlp_deploy.graph.operators import array_of
from s2mlp_deploy.precision.derive import Derived, derive
from s2mlp_deploy.precision.quantizable import observed_values, select_ops
from s2mlp_deploy.preprocess import Preprocessing

_SAFE_WEIGHT = 64
"""The largest weight of a file with reduced range."""


def derive_as(model: ir.Model, precision: str, *, manifest: Manifest, home: Path) -> Derived:
    """Quantizes a graph with the ranges, and with the layers in higher precision, of an artifact's own file.

    Args:
        model: A float32 graph of the artifact's network, whose layers have the same names.
        precision: Of a file that the artifact has: ``int8``, ``int8-trt``.
        manifest: Of the artifact.
        home: The artifact, in which the statistics of its calibration lie.

    Raises:
        QuantizationError: Not all ranges that are needed were measured, or the statistics are not there.
        ArtifactError: A file is damaged.
    """
    record, made, file = manifest.file("fp32"), manifest.calibration, manifest.file(precision)
    if made is None:
        raise QuantizationError("the manifest tells of no calibration")
    described, settings = manifest.preprocessing, ""
    if described is not None:
        settings = msgspec.json.encode(Preprocessing.from_dict(described).to_dict(), order="sorted").decode()
    known = load(home / CALIBRATION_CACHE, Key(record.sha256, made.sha256, settings), foreign="ignore")
    if known is None or not known[1]:
        raise QuantizationError(f"{CALIBRATION_CACHE} does not lie in the artifact, or is of other data")
    own, quantized = (load_graph(home / item.path).model for item in (record, file))
    return derive(
        model,
        precision,
        carried_over(known[0], own, model, precision),
        method=made.method,
        keep={item.layer for item in manifest.precision_exceptions if item.file == file.path},
        reduce_range=precision == "int8" and has_reduced_range(quantized),
        half_io=quantized.graph.inputs[0].dtype == ir.DataType.FLOAT16,
    )


def carried_over(known: Statistics, own: ir.Model, other: ir.Model, precision: str) -> Statistics:
    """Statistics of one graph under the names of another one of the same network.

    Args:
        known: Of ``own``.
        own: The graph that was calibrated.
        other: The graph that is to be quantized.
        precision: That it is to have.

    Raises:
        QuantizationError: A range that is needed was not measured.
    """
    ranges, magnitudes = dict(known.histograms), dict(known.magnitudes)
    by_layer = {op.layer: op for op in select_ops(own).ops}
    selection = select_ops(other)
    for op in selection.ops:
        mine = by_layer.get(op.layer)
        if mine is None:
            continue
        for value, theirs in ((op.activation, mine.activation), (op.output, mine.output)):
            if str(theirs.name) in known.histograms:
                ranges[str(value.name)] = known.histograms[str(theirs.name)]
            if str(theirs.name) in known.magnitudes:
                magnitudes[str(value.name)] = known.magnitudes[str(theirs.name)]
    # What TensorRT's placement quantizes are inputs alone.
    wanted = observed_values(selection) if precision == "int8" else [op.activation for op in selection.ops]
    if missing := [str(value.name) for value in wanted if str(value.name) not in ranges]:
        raise QuantizationError(
            f"the calibration has not measured {len(missing)} tensors that are quantized there, {missing[0]} for one"
        )
    return Statistics(ranges, magnitudes, samples=known.samples)


def has_reduced_range(model: ir.Model) -> bool:
    """Whether the weights of a file have 7 bits."""
    weights = [
        array_of(value)
        for value in model.graph.initializers.values()
        if value.dtype == ir.DataType.INT8 and value.shape is not None and len(value.shape) > 1
    ]
    return bool(weights) and all(
        int(np.abs(array.astype(np.int16)).max(initial=0)) <= _SAFE_WEIGHT for array in weights if array is not None
    )
