"""A graph read by module: whose nodes and weights are whose, and what each module computes in."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from s2mlp_deploy.artifact import NETWORK
from s2mlp_deploy.graph.modules import SCOPES, modules_of, name_nodes_after_scopes

TEXT = """
<ir_version: 9, opset_import: ["" : 20]>
g (float[1,4] x) => (float[1,4] y)
{
  ["x/QuantizeLinear"] q = QuantizeLinear(x, scale, zero)
  ["x/DequantizeLinear"] a = DequantizeLinear(q, scale, zero)
  ["blocks.0.fc1/MatMul"] b = MatMul(a, fc1_w)
  ["blocks.0.fc1/Add"] c = Add(b, shared)
  ["fused"] d = Relu(c)
  ["blocks.0.fc1/Add.out/QuantizeLinear"] e = QuantizeLinear(d, scale, zero)
  ["blocks.0.fc2/DequantizeLinear"] f = DequantizeLinear(e, scale, zero)
  w = DequantizeLinear(fc2_w, scale, zero)
  ["blocks.0.fc2/Transpose"] g = Transpose(f)
  ["/blocks.0/fc2/MatMul"] h = MatMul(g, w)
  ["blocks.1/Add"] i = Add(h, shared)
  ["/Cast"] j = Cast<to=10>(i)
  ["/Mul"] k = Mul(j, half)
  ["y/Cast"] y = Cast<to=1>(k)
}
"""


WEIGHTS = {"fc1_w": (4, 4), "fc2_w": (4, 4), "scale": (), "zero": (), "half": (4,), "shared": (4,)}
NODE_TYPES = dict.fromkeys("qe", ir.DataType.INT8) | dict.fromkeys("jk", ir.DataType.FLOAT16)
TYPES = {"fc2_w": np.int8, "zero": np.int8, "half": np.float16}


@pytest.fixture(scope="module")
def graph() -> ir.Graph:
    tensors = [ir.tensor(np.zeros(shape, TYPES.get(name, np.float32)), name=name) for name, shape in WEIGHTS.items()]
    model = ir.from_onnx_text(TEXT, initializers=tensors)
    for node in model.graph:
        for value in node.outputs:
            value.dtype = NODE_TYPES.get(str(value.name), ir.DataType.FLOAT)
    return model.graph


def test_nodes_belong_to_the_module_that_their_names_tell_or_that_their_readers_share(graph: ir.Graph):
    found = {path: [node.op_type for node in module.nodes] for path, module in modules_of(graph).items()}
    assert found == {
        # What converts the input is no module of the input's name.
        "blocks.0.fc1": ["QuantizeLinear", "DequantizeLinear", "MatMul", "Add", "Relu", "QuantizeLinear"],
        "blocks.0.fc2": ["DequantizeLinear", "DequantizeLinear", "Transpose", "MatMul"],
        "blocks.1": ["Add"],
        NETWORK: ["Cast", "Mul", "Cast"],
        "blocks.0": [],
        "blocks": [],
    }
    assert sum(map(len, found.values())) == 14


def test_weights_count_once_and_shared_ones_for_what_their_readers_share(graph: ir.Graph):
    modules = modules_of(graph)
    assert modules["blocks.0.fc1"].weight_bytes == {"fp32": 64}
    assert modules["blocks.0.fc2"].weight_bytes == {"int8": 16}
    # The scale and the zero point are read in blocks.0 alone, the shared bias in both blocks.
    assert modules["blocks.0"].weight_bytes == {"fp32": 4, "int8": 1}
    assert modules["blocks"].weight_bytes == {"fp32": 16}
    assert modules[NETWORK].weight_bytes == {"fp16": 8}
    total = sum(sum(module.weight_bytes.values()) for module in modules.values())
    assert total == sum(v.const_value.nbytes for v in graph.initializers.values() if v.const_value is not None)


def test_a_module_computes_in_what_its_gemms_do(graph: ir.Graph):
    modules = modules_of(graph)
    # fc1's weights are floats: its input's rounding changes nothing about that.
    assert modules["blocks.0.fc1"].computes == {"fp32": 1}
    assert modules["blocks.0.fc2"].computes == {"int8": 1}
    assert modules["blocks.1"].computes == {"fp32": 1}
    assert modules[NETWORK].computes == {"fp16": 2, "fp32": 1}
    assert modules["blocks.0.fc1"].operators["QuantizeLinear"] == 2


def test_scopes_of_torchs_exporter_tell_what_names_do_not(graph: ir.Graph):
    model = ir.from_onnx_text('<ir_version: 9, opset_import: ["": 20]> g (float[1] x) => (float[1] y) { y = Relu(x) }')
    (node,) = model.graph
    for scopes, path in (
        ("['', 'a.b', 'relu']", "a.b"),
        ("['', 'relu']", NETWORK),
        ("['relu']", ""),
        ("__import__('os')", ""),
        ("{", ""),
    ):
        node.metadata_props["pkg.torch.onnx.name_scopes"] = scopes
        assert list(modules_of(model.graph)) == [path]


def test_nodes_of_torchs_exporter_are_named_after_the_modules_that_it_noted():
    text = """
    <ir_version: 9, opset_import: ["" : 20]>
    g (float[1,4] x) => (float[1,4] y)
    { ["node_linear"] a = Relu(x) ["node_split"] b = Neg(a) ["node_shift"] c = Abs(b) ["node_add"] y = Add(c, x) }
    """
    graph = ir.from_onnx_text(text).graph
    before = [str(node.name) for node in graph]
    name_nodes_after_scopes(graph)
    assert [node.name for node in graph] == before  # Nothing is noted.
    for node, path in zip(graph, ("fc", None, "mixer.shifts.0", ""), strict=True):
        if path is not None:
            node.metadata_props[SCOPES] = repr(["", *([path] if path else []), "operation"])
    name_nodes_after_scopes(graph)
    assert [node.name for node in graph] == ["fc/Relu_0", "mixer.shifts.0/Neg_1", "mixer.shifts.0/Abs_2", "node_add"]
    assert [str(node.outputs[0].name) for node in graph] == ["a", "b", "c", "y"]
