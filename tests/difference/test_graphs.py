"""Two graphs: nodes that were added, removed and changed, by module."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto
from onnx_graphs import FLOAT, HALF, INT64, constant, model, node, value

from s2mlp_deploy.difference.graphs import GraphDifference, compare_graphs
from s2mlp_deploy.difference.reading import Graph, read

W = constant("blocks.0.fc.weight_t", np.arange(64.0).reshape(8, 8), np.float32)
X, Y = value("x", FLOAT, ["n", 8]), value("y", FLOAT, ["n", 8])
FC = node("MatMul", ["x", "blocks.0.fc.weight_t"], ["h"], "blocks.0.fc/MatMul")
ACT = node("Relu", ["h"], ["r"], "blocks.0.act/Relu")
END = node("Neg", ["r"], ["y"], "/Neg")
BASE = [FC, ACT, END]


def graph(nodes: Sequence[onnx.NodeProto], constants: Sequence[onnx.TensorProto] = (W,), **options) -> Graph:
    inputs, outputs = options.pop("inputs", [X]), options.pop("outputs", [Y])
    made = model(nodes, inputs, outputs, constants, **options)
    return read(ir.from_proto(onnx.shape_inference.infer_shapes(made)))


def kinds(found: GraphDifference) -> list[tuple[str, str, str]]:
    return [(item.kind, item.op, item.module) for item in found.nodes]


def test_equal_graphs_differ_in_nothing() -> None:
    found = compare_graphs(graph(BASE), graph(BASE))
    assert found.nodes == found.weights == found.wiring == found.notes == ()
    assert (found.same_nodes, found.same_weights, found.renamed) == (3, 1, 0)


def test_an_inserted_pair_is_added_and_nothing_else_changes() -> None:
    scale, zero = constant("s", 0.1, np.float32), constant("z", 0, np.uint8)
    pair = [
        node("QuantizeLinear", ["h", "s", "z"], ["q"], "blocks.0.fc/QuantizeLinear"),
        node("DequantizeLinear", ["q", "s", "z"], ["d"], "blocks.0.fc/DequantizeLinear"),
    ]
    newer = graph([FC, *pair, node("Relu", ["d"], ["r"], "blocks.0.act/Relu"), END], [W, scale, zero])
    found = compare_graphs(graph(BASE), newer)
    assert kinds(found) == [
        ("added", "QuantizeLinear", "blocks.0.fc"),
        ("added", "DequantizeLinear", "blocks.0.fc"),
    ]
    back = compare_graphs(newer, graph(BASE))
    assert {item.kind for item in back.nodes} == {"removed"}
    assert len(back.nodes) == 2


def test_one_node_more_does_not_rename_those_behind_it() -> None:
    def slices(*starts: int) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        nodes = [
            node("Slice", ["x", f"a{start}", f"e{start}", "axis"], [f"p{start}"], f"m/Slice_{index}")
            for index, start in enumerate(starts)
        ]
        nodes.append(node("Concat", [f"p{start}" for start in starts], ["y"], "m/Concat", axis=1))
        made = [constant(f"a{start}", [start], np.int64) for start in starts]
        made += [constant(f"e{start}", [start + 1], np.int64) for start in starts]
        return nodes, [*made, constant("axis", [1], np.int64)]

    older, newer = slices(1, 2, 3), slices(0, 1, 2, 3)
    out = [value("y", FLOAT, ["n", None])]
    found = compare_graphs(graph(*older, outputs=out), graph(*newer, outputs=out))
    assert [(item.kind, item.op, item.name) for item in found.nodes] == [
        ("added", "Slice", "m/Slice_0"),
        ("changed", "Concat", "m/Concat"),
    ]
    assert found.renamed == 3


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (node("Elu", ["h"], ["r"], "blocks.0.act/Elu", alpha=2.0), [("alpha", "0.5", "2")]),
        # A default that is written out is no change.
        (node("Elu", ["h"], ["r"], "blocks.0.act/Elu", alpha=0.5), []),
    ],
)
def test_attributes(changed: onnx.NodeProto, told: list[tuple[str, str, str]]) -> None:
    before = node("Elu", ["h"], ["r"], "blocks.0.act/Elu", alpha=0.5)
    found = compare_graphs(graph([FC, before, END]), graph([FC, changed, END]))
    assert [(c.what, c.before, c.after) for item in found.nodes for c in item.changes] == told


def test_a_default_and_an_input_that_was_an_attribute_are_no_changes() -> None:
    def softmax(**given: int) -> Graph:
        return graph([FC, node("Softmax", ["h"], ["r"], "blocks.0.act/Softmax", **given), END])

    assert compare_graphs(softmax(), softmax(axis=-1)).nodes == ()
    assert len(compare_graphs(softmax(), softmax(axis=1)).nodes) == 1
    out = [value("y", FLOAT, [1, "n", 8])]
    old = graph([FC, node("Unsqueeze", ["h"], ["y"], "m/Unsqueeze", axes=[0])], opset=12, outputs=out)
    axes = constant("axes", [0], np.int64)
    new = graph([FC, node("Unsqueeze", ["h", "axes"], ["y"], "m/Unsqueeze")], [W, axes], outputs=out)
    assert compare_graphs(old, new).nodes == ()


def test_steps_of_one_are_a_slices_default() -> None:
    def cut(*given: str) -> Graph:
        numbers = [constant(name, [number], np.int64) for name, number in (("a", 0), ("e", 4), ("axis", 1), ("s", 1))]
        nodes = [node("Slice", ["x", "a", "e", "axis", *given], ["y"], "m/Slice")]
        return graph(nodes, numbers, outputs=[value("y", FLOAT, ["n", 4])])

    assert compare_graphs(cut("s"), cut()).nodes == ()


def test_one_node_in_anothers_place_is_a_change_where_both_compute() -> None:
    elu = node("Elu", ["h"], ["r"], "blocks.0.act/Elu")
    found = compare_graphs(graph(BASE), graph([FC, elu, END]))
    assert kinds(found) == [("changed", "Elu", "blocks.0.act")]
    assert (found.same_nodes, found.renamed) == (2, 0)
    moved = node("Transpose", ["h"], ["r"], "blocks.0.act/Transpose", perm=[0, 1])
    found = compare_graphs(graph(BASE), graph([FC, moved, END]))
    assert {item.kind for item in found.nodes} == {"added", "removed"}


def test_another_type_is_told_apart_from_another_shape_and_from_a_change() -> None:
    half = [value("x", HALF, ["n", 8])], [value("y", HALF, ["n", 8])]
    weight = constant("blocks.0.fc.weight_t", np.arange(64.0).reshape(8, 8), np.float16)
    found = compare_graphs(graph(BASE), graph(BASE, [weight], inputs=half[0], outputs=half[1]))
    assert {item.kind for item in found.nodes} == {"retyped"}
    assert [(w.kind, w.before, w.after) for w in found.weights] == [("stored", "fp32 8x8", "fp16 8x8")]
    two, four = (graph(BASE, inputs=[value("x", FLOAT, [n, 8])], outputs=[value("y", FLOAT, [n, 8])]) for n in (2, 4))
    fixed = compare_graphs(two, four)
    assert {item.kind for item in fixed.nodes} == {"reshaped"}
    assert [(c.before, c.after) for c in fixed.nodes[0].changes] == [("2x8", "4x8")]
    # A free size follows from the input's, which is told there.
    assert compare_graphs(graph(BASE), four).nodes == ()


def test_what_a_node_reads_counts() -> None:
    def minus(first: str, second: str) -> Graph:
        return graph([FC, ACT, node("Sub", [first, second], ["y"], "m/Sub")])

    (found,) = compare_graphs(minus("h", "r"), minus("r", "h")).nodes
    assert (found.kind, found.op) == ("changed", "Sub")
    assert {(c.before, c.after) for c in found.changes} == {
        ("blocks.0.fc/MatMul", "blocks.0.act/Relu"),
        ("blocks.0.act/Relu", "blocks.0.fc/MatMul"),
    }

    def plus(first: str, second: str) -> Graph:
        return graph([FC, ACT, node("Add", [first, second], ["y"], "m/Add")])

    assert compare_graphs(plus("h", "r"), plus("r", "h")).nodes == ()
    other = graph([FC, ACT, node("Neg", ["h"], ["y"], "/Neg")])
    assert [item.op for item in compare_graphs(graph(BASE), other).nodes] == ["Neg"]


def test_another_output_is_wiring() -> None:
    both = [value("r", FLOAT, ["n", 8])]
    swapped = compare_graphs(graph([FC, ACT], outputs=both), graph([FC, ACT], outputs=[value("h", FLOAT, ["n", 8])]))
    assert [(c.before, c.after) for c in swapped.wiring] == [("blocks.0.act/Relu", "blocks.0.fc/MatMul")]


def test_a_gemm_in_place_of_a_matmul_is_a_change_and_its_weight_the_same() -> None:
    turned = constant("val_3", np.arange(64.0).reshape(8, 8).T, np.float32)
    gemm = node("Gemm", ["x", "val_3"], ["h"], "blocks.0.fc/Gemm", transB=1)
    found = compare_graphs(graph(BASE), graph([gemm, ACT, END], [turned]))
    assert [(item.kind, item.op, item.changes[0].before) for item in found.nodes] == [("changed", "Gemm", "MatMul")]
    assert [(w.kind, w.unequal) for w in found.weights] == [("stored", 0)]


def test_a_file_of_the_stock_exporter_is_read_by_its_scopes() -> None:
    plain = [node("MatMul", ["x", "blocks.0.fc.weight_t"], ["h"], "node_linear"), *BASE[1:]]
    plain[0].metadata_props.append(
        onnx.StringStringEntryProto(key="pkg.torch.onnx.name_scopes", value="['', 'blocks.0', 'blocks.0.fc', 'linear']")
    )
    found = compare_graphs(graph(BASE), graph(plain))
    assert found.nodes == ()
    assert (found.same_nodes, found.renamed) == (3, 1)


def test_modules_in_a_wrapper_are_compared_without_it() -> None:
    def inside(prefix: str) -> Graph:
        names = [f"{prefix}a/Relu", f"{prefix}b.c/Neg", f"{prefix}b.d/Abs"]
        return graph(
            [
                node("Relu", ["x"], ["h"], names[0]),
                node("Neg", ["h"], ["r"], names[1]),
                node("Abs", ["r"], ["y"], names[2]),
            ]
        )

    found = compare_graphs(inside("wrapped.net."), inside(""))
    assert (found.nodes, found.same_nodes) == ((), 3)
    assert "wrapped.net" in found.notes[0]


@pytest.mark.parametrize("turned", [False, True])
def test_a_file_without_modules_borrows_those_of_the_other(turned: bool) -> None:
    names = graph([FC, ACT, node("Abs", ["r"], ["a"], "blocks.1/Abs"), node("Neg", ["a"], ["y"], "/Neg")])
    bare = [
        node("MatMul", ["x", "blocks.0.fc.weight_t"], ["h"], "n0"),
        node("Relu", ["h"], ["r"], "n1"),
        node("Ceil", ["r"], ["c"], "n2"),
        node("Abs", ["c"], ["a"], "n3"),
        node("Neg", ["a"], ["y"], "n4"),
    ]
    pair = (graph(bare), names) if turned else (names, graph(bare))
    found = compare_graphs(*pair)
    assert kinds(found) == [("removed" if turned else "added", "Ceil", "blocks.0.act")]
    assert "names no modules" in found.notes[0]


def test_nodes_in_branches_and_functions_are_compared() -> None:
    def choose(op: str) -> Graph:
        branches = {
            f"{name}_branch": onnx.helper.make_graph(
                [node(kind, ["x"], [f"{name}_y"], f"m.{name}/{kind}")], name, [], [value(f"{name}_y", FLOAT, ["n", 8])]
            )
            for name, kind in (("then", "Relu"), ("else", op))
        }
        pick = constant("pick", True, np.bool_)
        return graph([node("If", ["pick"], ["y"], "m/If", **branches)], [pick])

    assert compare_graphs(choose("Abs"), choose("Abs")).nodes == ()
    assert kinds(compare_graphs(choose("Abs"), choose("Neg"))) == [("changed", "Neg", "m.else")]


def test_constants_of_nodes_are_constants() -> None:
    """Old exporters write Constant nodes, new ones initializers."""
    shape = constant("shape", [-1, 8], np.int64)
    older = graph(
        [
            node("Constant", [], ["s"], "c", value=shape),
            FC,
            node("Reshape", ["h", "s"], ["r"], "m/Reshape"),
            END,
        ]
    )
    newer = graph([FC, node("Reshape", ["h", "shape"], ["r"], "m/Reshape"), END], [W, shape])
    assert compare_graphs(older, newer).nodes == ()


def test_strings_and_integers_of_every_kind_are_read() -> None:
    text = onnx.helper.make_tensor("t", TensorProto.STRING, [1], [b"a"])
    long = constant("long", np.arange(100), np.int64)
    made = graph(
        [FC, ACT, END, node("Constant", [], ["unused"], "c", value=text), node("Abs", ["long"], ["l"], "m/Abs")],
        [W, long],
        outputs=[Y, value("l", INT64, [100])],
    )
    assert compare_graphs(made, made).nodes == ()
