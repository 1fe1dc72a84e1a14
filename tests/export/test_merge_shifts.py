"""Equal shifts of one tensor are computed once, and the first one's origin is told."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from one_shift import runner, shift_node

from s2mlp_deploy.export.forms import FORMS
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.export.passes.merge_shifts import MergeEqualShifts
from s2mlp_deploy.export.shift_node import DOMAIN, origin_of
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
