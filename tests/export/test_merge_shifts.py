"""Equal shifts of one tensor are computed once, and the first one's origin is told."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from one_shift import runner, shift_node
from torch import Tensor, nn

from s2mlp_deploy.capture.program import capture
from s2mlp_deploy.export.canonical import to_canonical
from s2mlp_deploy.export.forms import FORMS
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.export.passes.merge_shifts import MergeEqualShifts
from s2mlp_deploy.export.rewrite import rewrite_shifts
from s2mlp_deploy.export.shift_node import DOMAIN, origin_of
from s2mlp_deploy.shift.op import shift
from s2mlp_deploy.shift.spec import ShiftSpec

DOWN = ShiftSpec.equal_groups(4, [(1, 0)], axes=(2, 3), channel_axis=1)
UP = ShiftSpec.equal_groups(4, [(-1, 0)], axes=(2, 3), channel_axis=1)
SHAPE = (1, 4, 3, 3)


def model_of(*chains: tuple[ShiftSpec, ...], same_output: bool = False) -> ir.Model:
    """Each chain shifts the input again and again with a Relu between; the outputs are added, or all given out."""
    x = ir.Value(name="input", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(SHAPE))
    nodes: list[ir.Node] = []
    ends = []
    for index, chain in enumerate(chains):
        last = x
        for step, spec in enumerate(chain):
            nodes.append(shift_node(last, spec, f"m{index}.{step}/Shift", f"s{index}{step}"))
            y = ir.Value(name=f"r{index}{step}", type=x.type, shape=ir.Shape(SHAPE))
            nodes.append(ir.Node("", "Relu", [nodes[-1].outputs[0]], outputs=[y], name=f"relu{index}{step}"))
            last = y
        ends.append(last)
    if same_output:
        outputs = ends
    else:
        y = ir.Value(name="output", type=x.type, shape=ir.Shape(SHAPE))
        nodes.append(ir.Node("", "Sum", ends, outputs=[y], name="sum"))
        outputs = [y]
    graph = ir.Graph([x], outputs, nodes=nodes, opset_imports={"": 20, DOMAIN: 1}, name="g")
    return ir.Model(graph, ir_version=10)


def shifts(model: ir.Model) -> list[str]:
    return [origin_of(node).module for node in model.graph if node.domain == DOMAIN]


@pytest.mark.parametrize(
    ("chains", "left"),
    [
        (((DOWN,), (DOWN,)), ["m0.0"]),
        (((DOWN,), (UP,), (DOWN,), (UP,)), ["m0.0", "m1.0"]),
        (((DOWN, UP), (DOWN, UP)), ["m0.0", "m0.1"]),
        (((DOWN, UP), (DOWN, DOWN)), ["m0.0", "m0.1", "m1.1"]),
        (((DOWN,), (UP,)), ["m0.0", "m1.0"]),
    ],
)
def test_the_first_of_equal_shifts_stays_with_its_origin(
    chains: tuple[tuple[ShiftSpec, ...], ...], left: list[str]
) -> None:
    model = model_of(*chains)
    before = runner(lower_shifts(model, FORMS["gather"])[0])
    result = MergeEqualShifts()(model)
    assert result.modified == (len(left) < sum(map(len, chains)))
    assert shifts(model) == left
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    lowered, records = lower_shifts(model, FORMS["gather"])
    assert [record.origin.module for record in records] == left
    np.testing.assert_array_equal(runner(lowered)(x), before(x))
    assert not MergeEqualShifts()(model).modified


def test_two_outputs_that_are_one_shift_keep_their_names() -> None:
    model = model_of((DOWN,), (DOWN,), same_output=True)
    MergeEqualShifts()(model)
    assert shifts(model) == ["m0.0"]
    assert [value.name for value in model.graph.outputs] == ["r00", "r10"]


def test_an_origin_in_other_words_is_the_same_origin() -> None:
    model = model_of((DOWN,), (DOWN,))
    first = next(node for node in model.graph if node.domain == DOMAIN)
    first.attributes["origin"] = ir.AttrString("origin", '{"module": "mine"}')
    assert MergeEqualShifts()(model).modified
    assert shifts(model) == ["mine"]


class Told(nn.Module):
    """Calls the operator itself, with a text for the origin."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def forward(self, x: Tensor) -> Tensor:
        told = torch.ops.s2mlp.shift(x, *DOWN.op_args(), self.text)
        return told * 2 + shift(x, DOWN)


@pytest.mark.parametrize(("text", "module"), [('{"module": "mine"}', "mine"), ("not json", ""), ("[1]", "")])
def test_callers_origin_is_canonical_or_the_calls_own_place(text: str, module: str) -> None:
    captured = capture(Told(text), [torch.rand(2, 4, 3, 3)])
    told, own = rewrite_shifts(captured.program).shifts
    assert told.origin.module == module
    assert bool(told.origin.line) == (module == "")
    assert own.origin.line
    lowered, records = lower_shifts(to_canonical(captured), FORMS["gather"])
    assert [record.origin.module for record in records] == [module]
    x = torch.rand(2, 4, 3, 3)
    np.testing.assert_allclose(runner(lowered)(x.numpy()), Told(text)(x).numpy(), rtol=1e-6)
