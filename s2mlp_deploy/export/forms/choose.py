"""``auto``: the form of each shift, by what it costs at its sizes and by how its source is written.

What ``auto`` writes is never less exact than the source. A convolution computes: an infinite value makes its neighbours
NaN, and hardware that rounds factors (TF32) rounds the copies. So a shift that the source copies is copied, and one
that the source convolves may stay a convolution.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import onnx_ir as ir

from s2mlp_deploy.errors import ExportError
from s2mlp_deploy.export.forms.base import ShiftForm
from s2mlp_deploy.export.forms.cost import cost_of
from s2mlp_deploy.export.forms.grouped_conv import GroupedConv
from s2mlp_deploy.export.forms.pad_slice import PadSlice
from s2mlp_deploy.export.forms.row_gather import RowGather
from s2mlp_deploy.export.forms.slice_concat import SliceConcat
from s2mlp_deploy.graph.opsets import DEFAULT_OPSET
from s2mlp_deploy.shift.origin import CONVOLUTION
from s2mlp_deploy.shift.spec import ShiftSpec

USUAL: ShiftForm = SliceConcat()
_COPYING: Sequence[ShiftForm] = (PadSlice(), RowGather())
_CONVOLVING: ShiftForm = GroupedConv()

_CLEARLY = 0.8
"""Share of the usual form's price below which another one is chosen: the model's prices are known to a third."""
_CLEARLY_NO_CONVOLUTION = 0.5
"""The same for leaving the source's own convolution, which ONNX Runtime keeps in blocked layout with its neighbours."""


@functools.cache
def choose(
    spec: ShiftSpec, sizes: tuple[int, ...], dtype: ir.DataType, idiom: str = "", opset: int = DEFAULT_OPSET
) -> ShiftForm:
    """The form that ``auto`` writes a shift in.

    Args:
        spec: The shift.
        sizes: Of the tensor; where they are free, those of the example.
        dtype: Of its elements.
        idiom: How the source writes it (:attr:`~s2mlp_deploy.shift.origin.Origin.idiom`).
        opset: Of the graph.
    """
    usual, clearly = USUAL, _CLEARLY
    if spec.is_identity:
        return usual
    if CONVOLUTION in idiom:
        try:
            cost_of(_CONVOLVING, spec, sizes, dtype, opset)
        except ExportError:
            pass  # No convolution of runtimes has so many axes.
        else:
            usual, clearly = _CONVOLVING, _CLEARLY_NO_CONVOLUTION
    prices = {form: cost_of(form, spec, sizes, dtype, opset).microseconds for form in {USUAL, usual, *_COPYING}}
    best = min((USUAL, usual, *_COPYING), key=lambda form: prices[form])
    return best if prices[best] < clearly * prices[usual] else usual
