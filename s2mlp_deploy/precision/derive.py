"""From a float32 graph and its statistics to the graphs of other precisions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from s2mlp_deploy.artifact import PrecisionException, model_file
from s2mlp_deploy.calibration.observe import Observer, Statistics
from s2mlp_deploy.choices import CALIBRATION_METHOD
from s2mlp_deploy.precision.exclusion import NOTHING, Exclusion
from s2mlp_deploy.precision.half import to_half
from s2mlp_deploy.precision.placements import Calibrated, placement_of
from s2mlp_deploy.precision.quantizable import observed_values, select_ops

_BY_BUDGET = "kept by the accuracy budget"


@dataclass(frozen=True)
class Derived:
    """A graph of another precision.

    Attributes:
        precision: Of its file.
        model: The graph.
        exceptions: Layers in higher precision than the file's, and why.
    """

    precision: str
    model: ir.Model
    exceptions: tuple[PrecisionException, ...]

    @property
    def file(self) -> str:
        """The name of its file."""
        return model_file(self.precision)


def derive(
    model: ir.Model,
    precision: str,
    statistics: Statistics,
    *,
    method: str,
    keep: AbstractSet[str] = frozenset(),
    exclusion: Exclusion = NOTHING,
    reduce_range: bool = False,
    half_io: bool = False,
) -> Derived:
    """Makes the graph of one file.

    Args:
        model: The float32 graph.
        precision: Of the file: fp16, int8, int8-trt or fp8-trt.
        statistics: Of the graph over the calibration data.
        method: How ranges are chosen.
        keep: Layers that the accuracy budget keeps from being quantized.
        exclusion: What the user wants in higher precision.
        reduce_range: Whether the weights of ``int8`` have 7 bits, for x86 processors without VNNI.
        half_io: Whether float16 graphs have float16 inputs and outputs.

    Raises:
        QuantizationError: There is nothing to quantize, or the graph cannot be cast.
    """
    if precision == "fp16":
        half = to_half(model, statistics.magnitudes, keep_io=not half_io, exclusion=exclusion)
        islands = tuple(PrecisionException(i.node, "fp32", i.reason, model_file(precision)) for i in half.islands)
        return Derived(precision, half.model, islands)
    placement = placement_of(precision, reduce_range=reduce_range)
    higher = "fp16" if placement.scheme.half_scales else "fp32"
    selection = select_ops(model, exclusion, dtype=placement.scheme.weight_dtype())
    reasons = selection.skipped | {op.layer: _BY_BUDGET for op in selection.ops if op.layer in keep}
    exceptions = [PrecisionException(layer, higher, reason, model_file(precision)) for layer, reason in reasons.items()]
    quantized = placement.apply(model, Calibrated(statistics.histograms, method), keep, exclusion)
    if placement.scheme.half_scales:
        half = to_half(quantized, statistics.magnitudes, keep_io=not half_io)
        exceptions += [PrecisionException(i.node, "fp32", i.reason, model_file(precision)) for i in half.islands]
        quantized = half.model
    return Derived(precision, quantized, tuple(exceptions))


def derive_on(
    model: ir.Model, precision: str, batches: Iterable[Mapping[str, NDArray[Any]]], exclusion: Exclusion = NOTHING
) -> ir.Model:
    """Makes the graph of one file with ranges measured on these inputs, for a trial that is not kept.

    Args:
        model: The float32 graph.
        precision: See :func:`derive`.
        batches: Its inputs.
        exclusion: See there.

    Raises:
        QuantizationError: See there; or a value is NaN or infinite on these inputs.
    """
    observer, seen = Observer(model, observed_values(select_ops(model))), Statistics()
    for feeds in batches:
        seen = observer.update(seen, feeds)
    return derive(model, precision, seen, method=CALIBRATION_METHOD, exclusion=exclusion).model
