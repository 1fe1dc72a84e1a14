"""Constants that float16 cannot hold, in true float16 arithmetic: zeros, constants and small numbers."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import pytest

pytest.importorskip("torch")
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper
from small_nets import hand_made, statistics
from torch import Tensor, nn

from s2mlp_deploy.capture.program import capture
from s2mlp_deploy.export.canonical import to_canonical
from s2mlp_deploy.precision.epsilons import of_small_constants
from s2mlp_deploy.precision.half import to_half
from s2mlp_deploy.precision.rounding import round_like_half

GUARDS: dict[str, Callable[[Tensor], Tensor]] = {
    "normalize": lambda x: F.normalize(x, dim=1),
    "quotient of a norm": lambda x: x / (x.norm(dim=1, keepdim=True) + 1e-9),
    "quotient of a sum": lambda x: x / (1e-8 + x.abs().sum(1, keepdim=True)),
    "norm over channels": lambda x: (x - x.mean(1, keepdim=True)) * torch.rsqrt(x.var(1, keepdim=True) + 1e-12),
    "rms": lambda x: x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-10) * 3.0,
    "root of a power": lambda x: x * (x.square().sum(1, keepdim=True) + 1e-12) ** -0.5,
    "logarithm": lambda x: torch.log(x.abs() + 1e-10),
    "entropy": lambda x: x.abs() * torch.log2(x.abs() + 1e-12),
    "distance": lambda x: torch.sqrt(x.square() + 1e-14),
    "bounded below": lambda x: x / x.abs().clamp(min=1e-12),
    "chosen": lambda x: x / torch.where(x == 0, 3e-10, x),
    "expanded": lambda x: x / torch.maximum(x.abs(), torch.full_like(x, 2e-11)),
    "both scaled": lambda x: (x * 1e-9) / (x.abs() * 1e-9 + 1e-9),
    "above a threshold": lambda x: (x > 1e-9).to(x.dtype),
}


class Guards(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(function(x) for function in GUARDS.values())


@functools.cache
def guards() -> ir.Model:
    return to_canonical(capture(Guards().eval(), (torch.randn(2, 4, 3),)))


def inputs() -> np.ndarray:
    """Zeros, a constant, small numbers among zeros, and noise."""
    noise = np.random.default_rng(1).normal(size=(4, 3))
    rows = [np.zeros((4, 3)), np.full((4, 3), 0.5), np.tile([[2.0**-12], [0], [-(2.0**-11)], [0]], 3), noise]
    return np.asarray(rows, np.float16).astype(np.float32)


@pytest.mark.parametrize("arithmetic", ["reference", "rounded"])
def test_what_they_guard_is_as_in_float32(arithmetic: str) -> None:
    model = guards()
    half = to_half(model, statistics(model, {model.graph.inputs[0].name: inputs()}, histograms=False).magnitudes).model
    feeds = {str(half.graph.inputs[0].name): inputs()}
    if arithmetic == "rounded":
        half = round_like_half(half)
    results = onnx.reference.ReferenceEvaluator(ir.to_proto(half)).run(None, feeds)
    for (name, function), found in zip(GUARDS.items(), results, strict=True):
        expected = function(torch.from_numpy(inputs())).numpy()
        np.testing.assert_allclose(found, expected, rtol=4e-3, atol=1e-3, err_msg=name)


def chain(*nodes: onnx.NodeProto, **constants: np.ndarray) -> ir.Model:
    return hand_made(list(nodes), {"x": [2, 4]}, {"z": None}, constants)


def kept(model: ir.Model) -> list[str]:
    return [node.op_type for node in of_small_constants(model.graph)]


def test_what_float16_holds_stays_in_float16() -> None:
    for number in (1e-3, 2.0**-14, 2.0**-24, 0.0, -np.inf):
        assert kept(chain(helper.make_node("Add", ["x", "c"], ["z"]), c=np.float32(number))) == []
    assert kept(chain(helper.make_node("Add", ["x", "c"], ["z"]), c=np.float32(1e-6))) == ["Add"]


def test_a_bias_with_small_numbers_is_no_epsilon() -> None:
    bias = np.float32([0.5, 1e-9, -1e-12, 0])
    assert kept(chain(helper.make_node("Add", ["x", "c"], ["z"]), c=bias)) == []
    assert kept(chain(helper.make_node("Add", ["x", "c"], ["z"]), c=bias * 1e-7)) == ["Add"]


def test_ends_at_the_quotient() -> None:
    nodes = [
        helper.make_node("Add", ["x", "c"], ["a"]),
        helper.make_node("Sqrt", ["a"], ["b"]),
        helper.make_node("Transpose", ["b"], ["t"], perm=[0, 1]),
        helper.make_node("Mul", ["t", "two"], ["d"]),
        helper.make_node("Div", ["x", "d"], ["e"]),
        helper.make_node("Relu", ["e"], ["f"]),
        helper.make_node("Mul", ["f", "two"], ["z"]),
    ]
    model = chain(*nodes, c=np.float32(1e-12), two=np.float32(2))
    assert kept(model) == ["Add", "Sqrt", "Transpose", "Mul", "Div"]
    assert "1e-12" in next(iter(of_small_constants(model.graph).values()))


def test_a_constant_of_a_shape_counts() -> None:
    filled = helper.make_tensor("value", TensorProto.FLOAT, [1], [1e-9])
    model = chain(
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("ConstantOfShape", ["s"], ["a"], value=filled),
        helper.make_node("Max", ["x", "a"], ["b"]),
        helper.make_node("Div", ["x", "b"], ["z"]),
    )
    assert kept(model) == ["ConstantOfShape", "Max", "Div"]


def test_a_variance_of_a_normalization_counts_alone() -> None:
    ones = np.ones(4, np.float32)
    model = chain(
        helper.make_node("BatchNormalization", ["x", "s", "b", "m", "v"], ["z"], epsilon=1e-12),
        **{"s": ones, "b": ones, "m": ones, "v": np.float32([1, 1e-9, 2, 3])},
    )
    assert kept(model) == ["BatchNormalization"]


def test_tiny_weights_keep_their_digits() -> None:
    weights = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32) * 1e-6
    assert kept(chain(helper.make_node("MatMul", ["x", "w"], ["z"]), w=weights)) == ["MatMul"]
