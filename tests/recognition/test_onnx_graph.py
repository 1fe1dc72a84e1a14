"""ONNX graphs as recognition reads them: what moves, and how, is what ONNX Runtime makes of the operators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_sources import DYNAMO, TORCHSCRIPT, adopted, graph_of, parsed, written

from s2mlp_deploy.api.adopting import runtime
from s2mlp_deploy.recognition.index_maps import IndexMaps
from s2mlp_deploy.recognition.regions import Region, find_regions
from s2mlp_deploy.recognition.search import recognise

HEAD = '<ir_version: 10, opset_import: ["": 20]> net (float[2,4,6,3] x) => (float[A,B,C,D] y) '


def graph(body: str, constants: str = "", head: str = HEAD) -> str:
    return (
        f"{head}<{constants}> {{ a = Relu(x) {body} y = Identity(b) }}"
        if constants
        else head + (f"{{ a = Relu(x) {body} y = Identity(b) }}")
    )


ROLL = graph(
    "u = Slice(a, l, e, ax) v = Slice(a, z, l, ax) b = Concat <axis = 2> (u, v)",
    "int64[1] z = {0}, int64[1] l = {-2}, int64[1] e = {99}, int64[1] ax = {2}",
)
MOVEMENTS = {
    "flip": graph(
        "b = Slice(a, s, e, ax, st)",
        "int64[1] s = {-1}, int64[1] e = {-99}, int64[1] ax = {2}, int64[1] st = {-1}",
    ),
    "roll": ROLL,
    "split": graph("u, v = Split <axis = 1> (a, n) b = Concat <axis = 1> (v, u)", "int64[2] n = {1, 3}"),
    "gather": graph("b = Gather <axis = 2> (a, n)", "int64[4] n = {5, 0, -1, 2}"),
    "gather elements": graph("b = GatherElements <axis = 3> (a, n)", "int64[2,1,2,2] n = {2,1, 0,0, 1,2, 2,0}"),
    "gather positions": graph("g = GatherND(a, n) b = Unsqueeze(g, z)", "int64[2,2] n = {1,3, 0,2}, int64[1] z = {0}"),
    "scatter": graph(
        "u = Slice(a, z, o, z) b = ScatterND(a, n, u)", "int64[1,1] n = {1}, int64[1] z = {0}, int64[1] o = {1}"
    ),
    "scatter elements": graph(
        "u = Slice(a, z, o, ax) b = ScatterElements <axis = 2> (a, n, u)",
        "int64[2,4,1,1] n = {1,2,3,4,5,0,1,2}, int64[2] z = {0,0}, int64[2] o = {1,1}, int64[2] ax = {2,3}",
    ),
    "zeros around": graph("b = Pad(a, n)", "int64[8] n = {0,0,1,0, 0,0,2,0}"),
    "border around": graph('b = Pad <mode = "edge"> (a, n)', "int64[8] n = {0,0,1,0, 0,0,2,1}"),
    "cropped": graph("b = Pad(a, n)", "int64[8] n = {0,0,-1,0, 0,0,1,0}"),
    "repeated": graph("b = Tile(a, n)", "int64[4] n = {1,1,2,1}"),
    "broadcast": graph(
        "u = Slice(a, z, o, ax) b = Expand(u, n)",
        "int64[1] z = {0}, int64[1] o = {1}, int64[1] ax = {2}, int64[4] n = {2,4,3,3}",
    ),
    "masked": graph(
        "v = Gather <axis = 3> (a, n) b = Where(m, v, a)", "int64[3] n = {2,0,1}, bool[1,4,1,1] m = {1,0,0,1}"
    ),
    "zeros beside": graph("b = Concat <axis = 2> (a, o)", f"float[2,4,1,3] o = {{{','.join('0' * 24)}}}"),
    "channels to space": graph("b = DepthToSpace <blocksize = 2> (a)"),
    "one-hot transposed convolution": graph(
        "b = ConvTranspose <group = 2, pads = [1,0,1,0], dilations = [1,1]> (a, k)",
        "float[4,2,3,1] k = {1,0,0, 0,0,0, 0,0,0, 0,0,1, 0,1,0, 0,0,0, 0,0,0, 1,0,0}",
    ),
    "one-hot convolution": graph(
        "b = Conv <group = 4, pads = [1,0,1,0]> (a, k)",
        "float[4,1,3,1] k = {1,0,0, 0,0,1, 0,1,0, 1,0,0}",
    ),
}


@pytest.mark.parametrize("text", MOVEMENTS.values(), ids=MOVEMENTS)
def test_the_map_of_a_movement_is_what_the_runtime_moves(text: str) -> None:
    found = graph_of(text)
    (region,) = [Region(found, members) for members in find_regions(found) if len(members) > 1]
    maps = IndexMaps(region, found.at({}), budget=1 << 20)
    (last,) = region.exits()
    x = np.random.default_rng(1).uniform(1, 2, (2, 4, 6, 3)).astype(np.float32)
    # Relu leaves positive numbers as they are; number 0 is a constant zero.
    numbered = np.concatenate([[0.0], x.ravel()]).astype(np.float32)
    first = 1 if region.entries[0].name == "a" else None
    assert first == 1
    (moved,) = runtime(_loaded(text))({"x": x}).values()
    result = maps.of(last)
    assert result is not None
    np.testing.assert_array_equal(numbered[result.numpy()], moved)


def _loaded(text: str) -> Any:
    import onnx_ir as ir

    return ir.from_proto(parsed(text))


OTHERS = {
    "sums": graph(
        'u = Slice(a, z, o, z) b = ScatterND <reduction = "add"> (a, n, u)',
        "int64[1,1] n = {1}, int64[1] z = {0}, int64[1] o = {1}",
    ),
    "a border of ones": graph("b = Pad(a, n, f)", "int64[8] n = {0,0,1,0, 0,0,2,0}, float f = {1}"),
    "a learned kernel": graph(
        "b = Conv <group = 4, pads = [1,0,1,0]> (a, k)", "float[4,1,3,1] k = {1,0,0, 0,0,1, 0,0.5,0, 1,0,0}"
    ),
    "an index of the input": graph(
        "v, i = TopK <axis = 2> (a, n) b = GatherElements <axis = 2> (a, i)", "int64[1] n = {6}"
    ),
    "numbers by chance": graph(
        "r = RandomUniform <shape = [6]> () v, i = TopK <axis = 0> (r, n) b = Gather <axis = 2> (a, i)",
        "int64[1] n = {6}",
    ),
}


@pytest.mark.parametrize("text", OTHERS.values(), ids=OTHERS)
def test_what_computes_is_no_movement(text: str) -> None:
    found = graph_of(text)
    kinds = {value.producer().op_type for value in found.nodes if found.is_movement(value)}  # type: ignore[union-attr]
    assert kinds <= {"Identity", "Slice"}


def test_rows_turned_round_are_one_shift() -> None:
    (shift,) = recognise(graph_of(ROLL)).shifts
    assert shift.spec.border == "circular"
    assert shift.spec.axes == (2,)


def test_a_table_of_places_is_one_shift_at_every_batch() -> None:
    (shift,) = recognise(graph_of(DYNAMO.replace("float[N,6,5,4]", "float[2,6,5,4]"))).shifts
    assert [(group.channels, group.offsets) for group in shift.spec.groups] == [(2, (1,)), (2, (0,))]
    assert shift.spec.border == "keep"
    assert shift.idiom == "slice assignment"


def test_a_table_counts_the_images_of_another_tensor_of_that_batch(tmp_path: Path) -> None:
    view = """counted = Shape(x) one_size = Gather(counted, first) sizes = Unsqueeze(one_size, zero)
        target = Concat <axis = 0> (sizes, rest) v = Reshape(x, target) w = Sigmoid(v) a = Relu(w)"""
    text = TORCHSCRIPT.replace("a = Relu(x)", view).replace("shape = Shape(a)", "shape = Shape(v)")
    text = text.replace("int64[1] zero", "int64[3] rest = {6, 5, 4}, int64[1] zero")
    found = adopted(written(tmp_path / "net.onnx", text))
    assert not [miss.reason for miss in found.near_misses]
    assert [shift.origin.sizes > 1 for shift in found.shifts] == [True]


# Rows move down by one; how many rows there are is free, and where they end is computed from it in the given way.
FREE = """
    <ir_version: 10, opset_import: ["": 20]> net (float[2,H,3,4] x) => (float[A,B,C,D] y)
    <int64[1] z = {{0}}, int64[1] o = {{1}}, int64[1] m = {{-1}}, int64[1] k = {{5}}, int64[1] e = {{99999999999}}>
    {{ a = Relu(x) s = Shape <start = 1, end = 2> (a) {end} f = Slice(a, z, o, o) u = Slice(a, z, n, o)
      b = Concat <axis = 1> (f, u) y = Sigmoid(b) }}
"""


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ("n = Sub(s, o)", None),
        ("n = Identity(m)", None),
        ("w = Div(s, k) t = Mul(w, k) n = Sub(t, o)", "a Div of sizes"),
        ("t = Sub(s, o) n = Min(t, k)", "a Min of sizes"),
    ],
)
def test_a_rule_that_may_change_at_another_size_is_left_alone(end: str, reason: str | None) -> None:
    found = recognise(graph_of(FREE.format(end=end), H=10))
    if reason is None:
        (shift,) = found.shifts
        assert shift.sizes > 2
    else:
        assert not found.shifts
        assert reason in found.near_misses[0].reason


def test_a_slice_that_cuts_a_free_size_far_from_its_ends_is_compared_there() -> None:
    text = FREE.format(end="n = Identity(q)").replace("int64[1] k", "int64[1] q = {7}, int64[1] k")
    found = recognise(graph_of(text, H=8))
    # Right at 8 rows, and of more rows it takes away all that follow.
    assert not found.shifts
