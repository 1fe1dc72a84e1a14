"""Networks at the edge of what passes and rewriting are for: what is exported computes what the module does."""

from __future__ import annotations

import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2mlp_deploy.export.analysis import analyze
from s2mlp_deploy.export.canonical import to_canonical
from s2mlp_deploy.export.forms import FORMS
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.export.passes.fold_known_sizes import FoldKnownSizes
from s2mlp_deploy.parity.joined import with_whole_results

MAX_ERROR = 1e-5


def exported(module: nn.Module, x: Tensor, dynamic: tuple[str, ...] = ()) -> ir.Model:
    canonical = to_canonical(analyze(module.eval(), (x,), dynamic=dynamic).captured)
    return lower_shifts(canonical, FORMS["slice-concat"])[0]


def run(model: ir.Model, x: Tensor) -> list[Tensor]:
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(array) for array in session.run(None, {session.get_inputs()[0].name: x.numpy()})]


def assert_equal(module: nn.Module, model: ir.Model, x: Tensor) -> None:
    wanted = module(x)
    for found, each in zip(run(model, x), wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
        torch.testing.assert_close(found, each, rtol=1e-5, atol=MAX_ERROR)


class EveryOther(nn.Module):
    """Samples in pairs; of an odd number the last has none beside it."""

    def forward(self, x: Tensor) -> Tensor:
        a, b = x[0::2], x[1::2]
        y = torch.zeros(a.shape[0], x.shape[1], 16, dtype=x.dtype)
        y[:, :, :8] = a
        y[: b.shape[0], :, 8:] = b
        return y


def test_steps_that_fit_even_sizes_alone_are_no_movement():
    module, x = EveryOther(), torch.randn(4, 4, 8)
    model = exported(module, x, ("batch",))
    for batch in (1, 2, 3, 4, 5, 7):
        assert_equal(module, model, torch.randn(batch, 4, 8))


class Weighted(nn.Module):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(*shape) / 10)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = (x @ self.weight).chunk(3, -1)
        return a * b + c


@pytest.mark.parametrize(
    ("weight", "shape"), [((3, 192, 192), (3, 5, 192)), ((16,), (2, 192, 16)), ((192, 192), (3, 5, 192))]
)
def test_products_that_are_split_with_weights_of_any_rank(weight, shape):
    module, x = Weighted(*weight), torch.randn(*shape)
    assert_equal(module, exported(module, x), x)


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        p = x + x.sin()
        for _ in range(30):
            p = p + p
        return (p * 2.0**-30 + x).sum(1)


class Twice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        p = x + x.sin()
        return (p + p).sum((1,))


@pytest.mark.parametrize("module", [Doubled(), Twice()], ids=["thirty times", "once"])
def test_sums_of_a_tensor_and_itself(module):
    x = torch.randn(2, 192, 64)
    assert_equal(module, exported(module, x), x)


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(16, 32) / 4)
        self.bias = nn.Parameter(torch.randn(32))

    def forward(self, x: Tensor) -> Tensor:
        y = x @ self.weight
        given = (y, self.bias, torch.cat([x, x], -1))
        return torch.cond(x.sum() > 0, lambda y, b, q: y + b, lambda y, b, q: q * 1.0, given)


def test_a_bias_that_a_branch_adds_stays_there():
    module, x = Branches(), torch.randn(2, 4, 16)
    model = exported(module, x)
    assert_equal(module, model, x.abs())
    assert_equal(module, model, -x.abs())


class Parts(nn.Module):
    """The parts of a layer are outputs, or are looked at each in its own way; two layers stand in one module."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.fc = kind, nn.Linear(32, 192)
        self.other = nn.Parameter(torch.randn(192, 32) / 6)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        a, b, c = self.fc(x).chunk(3, -1)
        if self.kind == "outputs":
            return a, b, c
        if self.kind == "views":
            return a.reshape(-1, 16, 16, 4).sum(1), b.reshape(-1, 16, 4, 16).sum(1), c
        return tuple(F.linear(x, self.other).chunk(3, -1)) + tuple(F.linear(x, self.fc.weight).chunk(3, -1)) + (a, b, c)


@pytest.mark.parametrize("kind", ["outputs", "views", "two layers"])
def test_parts_that_are_joined_to_be_compared_stay_what_they_are(kind):
    module, x = Parts(kind), torch.randn(2, 16, 32)
    model = exported(module, x)
    assert any("part0of3" in name for name in model.graph.initializers)
    whole = with_whole_results(model)
    assert whole is not model
    assert [value.name for value in whole.graph.outputs] == [value.name for value in model.graph.outputs]
    assert_equal(module, whole, x)


def test_a_list_of_sizes_that_is_shorter_than_its_tensor():
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1, 1, 1]))
    sizes = ir.Value(name="s", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([1]))
    sizes.const_value = ir.tensor([4], name="s")
    expand = ir.Node("", "Expand", [x, sizes])
    graph = ir.Graph([x], expand.outputs, nodes=[expand], initializers=[sizes], opset_imports={"": 20}, name="g")
    FoldKnownSizes()(ir.Model(graph, ir_version=10))
    assert expand.outputs[0].shape == ir.Shape([1, 1, 4])
