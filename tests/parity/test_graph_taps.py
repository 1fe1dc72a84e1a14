"""A file as the reference: its layers are matched with another file's by module path, or by the names of values."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from small_nets import graph, images

from s2mlp_deploy.evidence.layers import LayerParity
from s2mlp_deploy.graph.operators import array_of
from s2mlp_deploy.parity.exits import scope_of
from s2mlp_deploy.parity.graph_taps import TappedGraph
from s2mlp_deploy.parity.grids import Grid, grid_of, input_grids
from s2mlp_deploy.parity.layers import Layers, compare_layers

BLOCK = "stages.0.blocks.0"


def layers_of(reference: ir.Model, candidate: ir.Model, **options: object) -> Layers:
    program = TappedGraph(reference, threads=1)
    batches = [(images(3), None)]
    return compare_layers(program, program, {"file": candidate}, batches, splits=True, **options)["file"]


def worst(found: Layers) -> LayerParity:
    return max((layer for layer in found.layers if layer.own is not None), key=lambda layer: layer.own.max_rel)


def scaled(model: ir.Model, name: str, factor: float) -> ir.Model:
    model = model.clone()
    value = model.graph.initializers[name]
    value.const_value = ir.tensor((array_of(value) * factor).astype(np.float32), name=name)
    return model


@pytest.mark.parametrize("family", ["v1", "v2"])
def test_two_forms_of_one_network_are_compared_by_module(family: str) -> None:
    reference, candidate = graph(family, "slice-concat"), graph(family, "pad-slice")
    found = layers_of(reference, candidate)
    assert worst(found).own.max_rel < 1e-5
    assert found.unmatched == ()
    paths = [layer.path for layer in found.layers]
    assert {f"{BLOCK}.mlp.fc1", f"{BLOCK}.mlp.fc2", "head", "logits"} <= set(paths)
    assert any("shift" in path for path in paths)
    assert (f"{BLOCK}.mixer.attention" in paths) == (family == "v2")
    divided = layers_of(reference, candidate, memory=5000)
    assert divided.parts > 1
    assert [layer.path for layer in divided.layers] == paths
    assert worst(divided).own.max_rel < 1e-5


def test_a_wrong_layer_is_the_only_one_that_is_wrong_of_its_own() -> None:
    candidate = scaled(graph("v2", "pad-slice"), f"{BLOCK}.mlp.fc1.weight_t", 1.5)
    found = layers_of(graph("v2"), candidate)
    wrong = [layer.path for layer in found.layers if layer.own is not None and layer.own.max_rel > 1e-4]
    assert wrong == [f"{BLOCK}.mlp.fc1"]
    # From the reference's own value everything behind it departs too.
    assert sum(layer.metrics.max_rel > 1e-4 for layer in found.layers) > 4


def test_graphs_without_module_names_are_compared_by_the_names_of_values() -> None:
    def plain(model: ir.Model) -> ir.Model:
        model = model.clone()
        for number, node in enumerate(model.graph):
            node.name = f"node_{number}"
        return model

    name = f"{BLOCK}.mlp.fc1.weight_t"
    reference, candidate = plain(graph("v2")), plain(scaled(graph("v2"), name, 1.5))
    (reader,) = {node for node, _ in candidate.graph.initializers[name].uses()}
    found = layers_of(reference, candidate)
    wrong = [layer.path for layer in found.layers if layer.own is not None and layer.own.max_rel > 1e-4]
    assert wrong == [reader.outputs[0].name]
    assert len(found.layers) > 20


def test_what_enters_a_tap_is_the_nearest_tap_that_counts() -> None:
    program = TappedGraph(graph("v2"), threads=1)
    taps = {tap.path: tap for tap in program.taps}
    assert program.entering(taps[f"{BLOCK}.mlp.fc2"]) == (f"{BLOCK}.mlp.fc1",)
    assert program.entering(taps[f"{BLOCK}.mlp.fc2"], {f"{BLOCK}.norm2"}) == (f"{BLOCK}.norm2",)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a.b/MatMul", "a.b"),
        ("a.b/Shift_1/Slice", "a.b"),
        ("/blocks/blocks.0/fc/MatMul", "blocks.0.fc"),
        ("node_linear_3", ""),
        ("/Add", ""),
    ],
)
def test_the_module_of_a_node_is_read_off_its_name(name: str, path: str) -> None:
    assert scope_of(ir.Node("", "Relu", [None], name=name)) == path


def test_a_grid_rounds_and_clips_as_quantization_does() -> None:
    grid = Grid(0.5, 1, 0, 7)
    np.testing.assert_array_equal(
        grid.nearest(np.float32([-9, -0.5, 0.1, 0.3, 9, np.inf, np.nan])),
        np.float32([-0.5, -0.5, 0, 0.5, 3, 3, np.nan]),
    )


def test_grids_are_read_off_the_scales_of_a_graph() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 19]>
        g (float[2] x, float[2] u) => (float[2] y)
        <float s = {0.5}, uint8 z = {3}> {
          q = QuantizeLinear(x, s, z)
          d = DequantizeLinear(q, s, z)
          y = Add(d, u)
        }"""
    )
    from s2mlp_deploy.parity.exits import GraphTap

    expected = Grid(0.5, 3, 0, 255)
    assert input_grids(model.graph) == {"x": expected}
    assert grid_of(model.graph, GraphTap("d")) == expected
    assert grid_of(model.graph, GraphTap("q", "s", "z")) == expected
    assert grid_of(model.graph, GraphTap("y")) is None
