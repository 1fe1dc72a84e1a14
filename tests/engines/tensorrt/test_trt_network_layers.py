"""The layers of engines that were built without their GPU: those of the parsed network, and told to be these."""

from __future__ import annotations

import json
from types import SimpleNamespace

import onnx_graphs as og
import pytest

from s2mlp_deploy import api
from s2mlp_deploy.engines.sidecar import layers_of
from s2mlp_deploy.engines.tensorrt import network as networks
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.evidence.engine_layers import EngineLayers

FLOAT, HALF = og.FLOAT, og.HALF


def built(graph, dtype, name):
    pytest.importorskip("tensorrt_rtx")
    path = og.save(
        og.perceptron(dtype, metadata={"precision": "fp16" if dtype == HALF else "fp32", "name": "x"}),
        graph.with_name(name),
    )
    return graph.with_name(api.build(path, targets=["sm89"]).engine)


def test_a_build_without_a_gpu_tells_the_layers_that_went_into_it(graph):
    engine = built(graph, FLOAT, "model.fp32.onnx")
    found = api.inspect_engine(engine).layers
    assert found is not None
    assert (found.source, found.schema) == ("network", "")
    assert [(layer.op, layer.module) for layer in found.layers if layer.matrix] == [
        ("MatMul", "fc1"),
        ("MatMul", "fc2"),
    ]
    assert {layer.weights for layer in found.layers if layer.matrix} == {"fp32"}
    assert "CONSTANT" not in {layer.kind for layer in found.layers}
    assert found.bindings == ("input", "output")
    assert all(layer.nodes for layer in found.layers if layer.matrix)


def test_two_such_engines_are_compared_and_never_with_a_built_one(graph, tmp_path):
    wide, narrow = built(graph, FLOAT, "model.fp32.onnx"), built(graph, HALF, "model.fp16.onnx")
    found = api.diff_layers(wide, narrow)
    assert found.differs
    assert (found.before.source, found.after.source) == ("network", "network")
    assert next(pair for pair in found.modules if pair.name == "fc1").after.dtypes == {"fp16": 1}
    assert not api.diff_layers(wide, wide).differs
    other = tmp_path / "built.json"
    document = json.loads(layers_of(wide).read_text())
    del document["Source"]
    other.write_text(json.dumps(document))
    with pytest.raises(InputError, match="parsed network"):
        api.diff_layers(other, wide)


def tensor(name: str, dtype: str, shape: tuple[int, ...] = (4, 8)) -> SimpleNamespace:
    return SimpleNamespace(name=name, dtype=f"DataType.{dtype}", shape=shape)


def layer(name: str, kind: str, inputs: list, outputs: list) -> SimpleNamespace:
    return SimpleNamespace(
        name=name,
        type=f"LayerType.{kind}",
        num_inputs=len(inputs),
        num_outputs=len(outputs),
        get_input=inputs.__getitem__,
        get_output=outputs.__getitem__,
        metadata="",
    )


def network(*layers: SimpleNamespace) -> SimpleNamespace:
    tensors = [tensor("image", "HALF")], [tensor("logits", "HALF")]
    return SimpleNamespace(
        num_layers=len(layers),
        get_layer=layers.__getitem__,
        num_inputs=1,
        get_input=tensors[0].__getitem__,
        num_outputs=1,
        get_output=tensors[1].__getitem__,
    )


def inspected(tmp_path, *layers: SimpleNamespace) -> EngineLayers:
    path = tmp_path / "x.json"
    path.write_text(networks.layers_of(network(*layers)))
    found = api.inspect_json(path)
    assert isinstance(found, EngineLayers)
    return found


def test_weights_are_told_as_they_are_stored_and_only_what_a_network_shows_is_found(tmp_path):
    """A quantized GEMM, one with weights in fp32, a shift that may yet be fused, sizes that are computed."""
    stored, wide = tensor("w8", "INT8"), tensor("w32", "FLOAT")
    found = inspected(
        tmp_path,
        layer("w8", "CONSTANT", [], [stored]),
        layer("w32", "CONSTANT", [], [wide]),
        layer("dq", "DEQUANTIZE", [stored], [tensor("w16", "HALF")]),
        layer("cast", "CAST", [wide], [tensor("cast.out", "HALF")]),
        layer("sizes", "SHAPE", [tensor("image", "HALF")], [tensor("n", "INT64")]),
        layer("fc1/MatMul", "MATRIX_MULTIPLY", [tensor("image", "HALF"), tensor("w16", "HALF")], [tensor("a", "HALF")]),
        layer("fc2/MatMul", "MATRIX_MULTIPLY", [tensor("a", "HALF"), wide], [tensor("b", "HALF")]),
        layer("b.shift/Shift/Slice", "SLICE", [tensor("b", "HALF")], [tensor("c", "HALF")]),
        layer("norm/Elu", "ACTIVATION", [tensor("c", "FLOAT")], [tensor("logits", "FLOAT")]),
    )
    assert [item.name for item in found.layers] == [
        "dq",
        "cast",
        *("fc1/MatMul", "fc2/MatMul", "b.shift/Shift/Slice", "norm/Elu"),
    ]
    assert [item.weights for item in found.layers if item.matrix] == ["int8", "fp32"]
    assert {item.kind: item.layers for item in found.findings} == {
        "fp32 islands": ("norm/Elu",),
        "fp32 weights": ("fc2/MatMul",),
        "tiny shapes": ("fc1/MatMul", "fc2/MatMul"),
    }
