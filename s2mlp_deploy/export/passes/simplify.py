"""Folds constants and removes operators that do nothing, by rules that change no number.

onnxscript's own selection, which ``torch.onnx.export(optimize=True)`` runs, compares constants with a tolerance (1e-8,
and a 100,000th of the number): ``x + 1e-8`` and ``x * 1.000005`` lose their operator there, and with it a divisor's
guard against zero. Its rules left out here, with what version 0.7.2 makes of them:

- ``mul_by_1``, ``div_by_1``, ``add_0``, ``sub_0``: that tolerance. Exact ones stand below.
- ``successive_clip``: ``x.clamp(0, 1).clamp(2, 3)`` becomes 1. ``successive_relu_clip``: ``relu(x.clamp(max=-1))``
  becomes -1. ``successive_clip_relu`` goes with them.
- ``min_min``, ``max_max``, ``min_max``, ``max_min``: a bound of shape [1, 1] loses its axes.
- ``two_reshapes_matmul_reshape``: looks at the first and last shapes only, so that 4 products of [1, 1] pass for one of
  [2, 2]. ``one_reshape_matmul_reshape`` goes with it.
- ``no_op_static_scatter_nd``: takes ``reduction="add"`` for an assignment.
- ``cast_cast``: float64 to float32 to float16 is to round twice.
- ``slice_split``: takes the halves of an odd axis for 3 and 2 where they are 2 and 3.
- the fusions for opset 23 (RMSNormalization, RotaryEmbedding, Attention), whose constants have the same tolerance.

Batch normalization is still folded into the convolution in front of it: that rounds its factors anew, as every runtime
does, and drops nothing.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript.optimizer import fold_constants
from onnxscript.rewriter import MatchResult, RewritePass
from onnxscript.rewriter.pattern import Constant, RewriteRule, RewriteRuleSet
from onnxscript.rewriter.rules import common as rules

_ROUNDS = 2
"""As onnxscript: what a round leaves over, a second one finds."""


def _exactly(value: int) -> Constant:
    return Constant(value, rel_tol=0.0, abs_tol=0.0)


def _identity(op: Any, x: ir.Value, **_: Any) -> Any:
    return op.Identity(x)


def _is_integer(_: Any, x: ir.Value, **__: Any) -> MatchResult:
    """Adding 0 to a float turns -0 into 0, whose reciprocal is another one."""
    found = MatchResult()
    return found if x.dtype is not None and x.dtype.is_integer() else found.fail("the sum is not one of integers", x)


_NOTHING_TO_COMPUTE = (
    *RewriteRule(lambda op, x: op.Mul(x, _exactly(1)), _identity).commute(),
    *RewriteRule(lambda op, x: op.Add(x, _exactly(0)), _identity, _is_integer).commute(),
    RewriteRule(lambda op, x: op.Sub(x, _exactly(0)), _identity),
    RewriteRule(lambda op, x: op.Div(x, _exactly(1)), _identity),
)


def _is_never(context: Any, condition: ir.Value, x: ir.Value, **_: Any) -> MatchResult:
    """A mask of an attention that hides no row."""
    found, result = MatchResult(), context.output_values[0].shape
    mask = condition.const_value
    if mask is None or mask.numpy().any():
        return found.fail("the condition holds somewhere, or is not known", condition)
    return found if x.shape is not None and x.shape == result else found.fail("it broadcasts", x)


_NOTHING_TO_CHOOSE = RewriteRule(lambda op, condition, other, x: op.Where(condition, other, x), _identity, _is_never)

EXACT_RULES = RewriteRuleSet(
    [
        *_NOTHING_TO_COMPUTE,
        _NOTHING_TO_CHOOSE,
        rules.cast_constant_of_shape_rule,
        rules.cast_constant_of_shape_without_value_rule,
        rules.collapse_slice_rule,
        rules.collapse_slice2_rule,
        rules.materialize_reshape_shape_rule,
        rules.successive_relu_rule,
        rules.no_op_cast_rule,
        rules.no_op_expand_rule,
        rules.flatten_to_reshape_rule,
        rules.reshape_reshape_rule,
        rules.no_op_transpose_rule,
        rules.transpose_transpose_rule,
        rules.unsqueeze_unsqueeze_rule,
        rules.squeeze_reshape_1d_rule,
        rules.no_op_dynamic_scatter_nd_rule,
        rules.normalize_pad_format_conv_rule,
        rules.fuse_pad_into_conv_rule,
        rules.fuse_batchnorm_into_conv_rule,
        rules.fuse_batchnorm_into_conv_transpose_rule,
        rules.fuse_batchnorm_into_gemm_rule,
        rules.remove_optional_bias_from_conv_rule,
        rules.remove_optional_bias_from_conv_transpose_rule,
        rules.remove_optional_bias_from_gemm_rule,
    ]
)
"""In onnxscript's order: shorter patterns take what longer ones would."""


def _makes_less(node: ir.Node) -> bool | None:
    """Folded whatever the size: which rows of a mask hide all."""
    source = node.inputs[0] if node.inputs else None
    of_mask = node.op_type in ("Cast", "Not") and source is not None and source.dtype == ir.DataType.BOOL
    return True if of_mask or node.op_type == "ReduceMax" else None


class Simplify(ir.passes.InPlacePass):
    """What onnxscript's ``optimize`` does, with :data:`EXACT_RULES` for its rules.

    Precondition: as torch's exporter wrote it, not optimized.
    Postconditions: constants are initializers, equal ones and equal computations are there once, and no node is left
    whose result nobody reads. The graph computes what it did, but for the rounding of what was folded.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Always reports a change."""
        common.InlinePass()(model)
        for _ in range(_ROUNDS):
            folded = fold_constants(model, onnx_shape_inference=True, should_fold=_makes_less)
            rewritten = RewritePass(EXACT_RULES)(model)
            unused = common.RemoveUnusedNodesPass()(model)
            if not (folded.modified or rewritten.modified or unused.modified):
                break
        ir.passes.Sequential(
            common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
            common.RemoveUnusedOpsetsPass(),
            common.RemoveUnusedNodesPass(),
            common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
            common.LiftSubgraphInitializersToMainGraphPass(),
            common.DeduplicateInitializersPass(),
            common.CommonSubexpressionEliminationPass(),
            common.OutputFixPass(),
            common.NameFixPass(),
        )(model)
        return ir.passes.PassResult(model, modified=True)
