"""From a float32 graph and its statistics to the graphs of other precisions."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import onnx_ir as ir

from s2mlp_deploy.artifact import PrecisionException, model_file
from s2mlp_deploy.calibration.observe import Statistics
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.precision.exclusion import NOTHING, Exclusion
from s2mlp_deploy.precision.half import to_half
from s2mlp_deploy.precision.placements import PLACEMENTS, Calibrated, placement_of
from s2mlp_deploy.precision.quantizable import select_ops

FILES_OF = {"fp32": (), "fp16": ("fp16",), "int8": ("int8", "int8-trt"), "fp8": ("fp8-trt",)}
"""The precisions of the files that a precision on the command line stands for, beside fp32, which is always there."""

_HALF_SCALES_FROM = 19
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


def file_precisions(wanted: Sequence[str]) -> tuple[str, ...]:
    """The precisions of the files that the command line's stand for, without fp32.

    Raises:
        InputError: There is no such precision.
    """
    if strange := [name for name in wanted if name not in FILES_OF]:
        raise InputError(f"there is no precision {strange[0]!r}", fix=f"choose from {', '.join(FILES_OF)}")
    return tuple(dict.fromkeys(file for name in FILES_OF if name in wanted for file in FILES_OF[name]))


def is_half(precision: str) -> bool:
    """Whether the file of a precision is a float16 graph, with or without Q/DQ."""
    return precision == "fp16" or PLACEMENTS[precision].scheme.half_scales


def check_opset(wanted: Sequence[str], opset: int) -> None:
    """Refuses float16 scales and fp8 in an opset that has none.

    Args:
        wanted: What :func:`file_precisions` returned.
        opset: Of the float32 graph.

    Raises:
        InputError: QuantizeLinear takes float16, and gives fp8, from opset 19 on.
    """
    lacking = [name for name in wanted if name in PLACEMENTS and PLACEMENTS[name].scheme.half_scales]
    if opset < _HALF_SCALES_FROM and lacking:
        raise InputError(
            f"{model_file(lacking[0])} cannot be written in opset {opset}, whose Q and DQ know neither float16 nor fp8",
            fix=f"export with --opset {_HALF_SCALES_FROM} or more",
        )


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
