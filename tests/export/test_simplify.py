"""Constants are kept to the last bit, and what is simplified computes the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from s2mlp_deploy.capture.program import capture
from s2mlp_deploy.export.canonical import to_canonical

LEVELS = (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
SMALL = (1e-8, 1e-9, 1e-12, -1e-9, 1e-38, 1e-44)
NEAR_ONE = (1 + 1e-7, 1 + 6e-6, 1 - 6e-8)


class Applied(nn.Module):
    """A function of one tensor, with as many outputs as it returns."""

    def __init__(self, function: Callable[[Tensor], Tensor | tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.function(x)


def exported(function: Callable[[Tensor], Tensor | tuple[Tensor, ...]], x: Tensor) -> ir.Model:
    return to_canonical(capture(Applied(function).eval(), (x,), dynamic=()))


def results(
    model: ir.Model, x: Tensor, level: ort.GraphOptimizationLevel = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x.numpy()})


def assert_same(
    function: Callable[[Tensor], Tensor | tuple[Tensor, ...]], x: Tensor, names: list[str] | None = None
) -> None:
    """The export computes what torch does, whatever ONNX Runtime optimizes."""
    model, expected = exported(function, x), function(x)
    outputs = expected if isinstance(expected, tuple) else (expected,)
    for level in LEVELS:
        for index, (found, wanted) in enumerate(zip(results(model, x, level), outputs, strict=True)):
            np.testing.assert_allclose(
                found, wanted.numpy(), rtol=2e-6, atol=0, err_msg=names[index] if names else str(level)
            )


class TestConstants:
    def test_small_ones_guard_divisors_from_zero(self) -> None:
        x = torch.zeros(2, 3)
        x[1] = torch.tensor([1e-9, -2e-8, 3e-4])

        def normalized(x: Tensor) -> tuple[Tensor, ...]:
            return tuple(x / (x.abs().sum(1, keepdim=True) + c) for c in SMALL)

        assert_same(normalized, x, [f"+ {c}" for c in SMALL])
        assert not np.isnan(results(exported(normalized, x), x)[0]).any()

    def test_survive_under_every_operator(self) -> None:
        operators: dict[str, Callable[[Tensor, float], Tensor]] = {
            "1 / (x + c)": lambda x, c: 1 / (x + c),
            "1 / (c + x)": lambda x, c: 1 / (c + x),
            "1 / (x - c)": lambda x, c: 1 / (x - c),
            "1 / (c - x)": lambda x, c: 1 / (c - x),
            "x * c": lambda x, c: x * c,
            "c * x": lambda x, c: c * x,
            "x / c": lambda x, c: x / c,
            "|x| ** c": lambda x, c: x.abs() ** c,
            "c ** |x|": lambda x, c: abs(c) ** x.abs(),
            "1 / clamp(x, min=c)": lambda x, c: 1 / x.clamp(min=c),
            "clamp(x, max=c)": lambda x, c: x.clamp(max=c),
            "1 / where(x == 0, c, x)": lambda x, c: 1 / torch.where(x == 0, c, x),
            "x == c": lambda x, c: (x == c).to(x.dtype),
            "x > c": lambda x, c: (x > c).to(x.dtype),
            "maximum(x, [c])": lambda x, c: torch.maximum(x, torch.tensor([c])),
            "1 / (x + [c])": lambda x, c: 1 / (x + torch.tensor([c])),
            "rsqrt(x * x + c)": lambda x, c: torch.rsqrt(x * x + abs(c)),
            "log(|x| + c)": lambda x, c: torch.log(x.abs() + abs(c)),
        }
        generator = np.random.default_rng(7)
        drawn = [float(sign * 10.0**e) for sign, e in zip((1, -1) * 4, generator.uniform(-40, -4, 8), strict=True)]
        near = [1 + float(10.0**e) for e in generator.uniform(-7, -4, 4)]
        # As float32 holds them: torch raises to the power of a double.
        pool = [float(np.float32(c)) for c in (*SMALL, *NEAR_ONE, *drawn, *near, 0.0, 1.0)]
        cases = [(name, c) for name in operators for c in generator.choice(pool, 8, replace=False).tolist()]
        values = [0.0, 1.0, -1.0, 0.5, -3.7, *SMALL, *NEAR_ONE, *drawn]
        assert_same(
            lambda x: tuple(operators[name](x, c) for name, c in cases),
            torch.tensor(values),
            [f"{name} with c = {c}" for name, c in cases],
        )

    def test_exact_ones_and_zeros_of_no_effect_go(self) -> None:
        def nothing(x: Tensor) -> Tensor:
            return torch.relu(((x * 1.0) / 1.0 - 0.0) * 1)

        model = exported(nothing, torch.zeros(3))
        assert Counter(node.op_type for node in model.graph) == {"Relu": 1}

    def test_a_zero_that_takes_a_sign_away_stays(self) -> None:
        assert_same(lambda x: 1 / (x + 0.0), torch.tensor([-0.0, 0.0, 2.0]))


class TestRules:
    """What onnxscript's optimizer gets wrong, each with the numbers at which it does."""

    @pytest.mark.parametrize(
        "function",
        [
            lambda x: x.clamp(0.0, 1.0).clamp(2.0, 3.0),
            lambda x: torch.relu(x.clamp(max=-1.0)),
            lambda x: torch.relu(x.clamp(-2.0, -0.5)),
            lambda x: torch.minimum(torch.maximum(x, torch.full((1, 1), 0.25)), torch.full((1, 1), 0.75)),
        ],
    )
    def test_bounds_of_bounds(self, function: Callable[[Tensor], Tensor]) -> None:
        assert_same(function, torch.tensor([-3.0, -0.75, 0.0, 0.3, 0.9, 5.0]))

    def test_products_between_reshapes(self) -> None:
        y = torch.arange(4.0).reshape(2, 2)
        assert_same(
            lambda x: (x.reshape(2, 2) @ (x + y.reshape(4, 1, 1)).reshape(2, 2)).reshape(4, 1, 1),
            torch.arange(1.0, 5.0).reshape(4, 1, 1),
        )

    def test_adding_at_every_index(self) -> None:
        def added(x: Tensor) -> Tensor:
            return torch.index_put(x, (torch.arange(3),), torch.ones(3, 2), accumulate=True)

        assert_same(added, torch.arange(6.0).reshape(3, 2))

    def test_batch_norm_is_folded_into_the_convolution(self) -> None:
        torch.manual_seed(0)
        conv, norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.uniform_()
        norm.running_var.uniform_(0.5, 2)
        module, x = nn.Sequential(conv, norm).eval(), torch.randn(1, 3, 4, 4)
        model = to_canonical(capture(module, (x,), dynamic=()))
        assert [node.op_type for node in model.graph] == ["Conv"]
        with torch.no_grad():
            np.testing.assert_allclose(results(model, x)[0], module(x).numpy(), rtol=1e-5, atol=1e-6)
