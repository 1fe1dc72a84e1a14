"""The rules of the dry run, each with a graph that breaks it and one that does not; the parser itself is the judge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_graphs as og
import pytest

pytest.importorskip("onnx_ir")
from s2mlp_deploy.engines.tensorrt.flavours import flavour
from s2mlp_deploy.engines.tensorrt.graph import read_onnx
from s2mlp_deploy.engines.tensorrt.preflight import find, preflight, refuse
from s2mlp_deploy.errors import BuildError, InputError

X, Y = og.value("x", og.FLOAT, [2, 4]), og.value("y", og.FLOAT, [2, 4])
ANY = og.value("y", og.FLOAT, [None, None])
SCALE = og.constant("s", 0.1, np.float32)
INDEX = og.constant("i", [[0]], np.int64)
ROW = og.value("u", og.FLOAT, [1, 4])


def pair(zero, **settings):
    nodes = [
        og.node("QuantizeLinear", ["x", "s", "z"], ["q"], "the_Q"),
        og.node("DequantizeLinear", ["q", "s", "z"], ["y"], "the_DQ"),
    ]
    return og.model(nodes, [X], [Y], [SCALE, zero], **settings)


def fp8_gemm():
    nodes = [
        og.node("QuantizeLinear", ["x", "s", "z"], ["q"], "the_Q"),
        og.node("DequantizeLinear", ["q", "s", "z"], ["a"], "the_DQ"),
        og.node("DequantizeLinear", ["w", "s", "z"], ["b"], "the_DQ_of_w"),
        og.node("MatMul", ["a", "b"], ["y"]),
    ]
    return og.model(nodes, [X], [Y], [SCALE, og.fp8_constant("z", [], 0.0), og.fp8_constant("w", [4, 4], 1.0)])


def one(op, inputs, constants=(), outputs=(ANY,), extra=(), **attributes):
    opset = attributes.pop("opset", 20)
    names = [item.name for item in outputs]
    given = [X, *extra]
    return og.model([og.node(op, inputs, names, **attributes)], given, list(outputs), list(constants), opset=opset)


AXES = og.value("axes", og.INT64, [1])
CASES = {
    "symmetric int8": (pair(og.constant("z", 0, np.int8)), None),
    "symmetric uint8": (pair(og.constant("z", 0, np.uint8)), None),
    "asymmetric uint8": (pair(og.constant("z", 128, np.uint8)), "zero-point"),
    "asymmetric int8": (pair(og.constant("z", 3, np.int8)), "zero-point"),
    "int16": (pair(og.constant("z", 0, np.int16), opset=21), "type"),
    "fp8": (fp8_gemm(), None),
    "int32 bias": (
        og.model(
            [og.node("DequantizeLinear", ["b", "s"], ["c"], "the_DQ"), og.node("Add", ["x", "c"], ["y"])],
            [X],
            [Y],
            [SCALE, og.constant("b", np.arange(4), np.int32)],
        ),
        "quantized-type",
    ),
    "same types": (one("Add", ["x", "x"], outputs=[Y]), None),
    "mixed types": (one("Add", ["x", "h"], extra=[og.value("h", og.HALF, [2, 4])], outputs=[Y]), "mixed-types"),
    "scatter": (one("ScatterND", ["x", "i", "u"], [INDEX], [Y], [ROW]), None),
    "scatter that adds": (one("ScatterND", ["x", "i", "u"], [INDEX], [Y], [ROW], reduction="add"), "scatter"),
    "scatter elements that adds": (
        one("ScatterElements", ["x", "i", "u"], [og.constant("i", [[0] * 4], np.int64)], [Y], [ROW], reduction="add"),
        "scatter",
    ),
    "reduction": (one("ReduceSum", ["x", "a"], [og.constant("a", [1], np.int64)]), None),
    "reduction along computed axes": (one("ReduceSum", ["x", "axes"], extra=[AXES]), "constant-axes"),
    "maximum along computed axes": (one("ReduceMax", ["x", "axes"], extra=[AXES]), "constant-axes"),
    "squeeze of computed axes": (one("Squeeze", ["x", "axes"], extra=[AXES]), "constant-axes"),
    "edge pad": (one("Pad", ["x", "p"], [og.constant("p", [0, 1, 0, 1], np.int64)], mode="edge"), None),
    "integer product": (
        og.model(
            [og.node("MatMulInteger", ["x", "w"], ["y"])],
            [og.value("x", og.INT8, [2, 4])],
            [og.value("y", og.INT32, [2, 4])],
            [og.constant("w", np.eye(4), np.int8)],
        ),
        "operator",
    ),
    "deformable convolution": (
        og.model(
            [og.node("DeformConv", ["x", "w", "o"], ["y"])],
            [og.value("x", og.FLOAT, [1, 3, 8, 8]), og.value("o", og.FLOAT, [1, 18, 6, 6])],
            [og.value("y", og.FLOAT, [None] * 4)],
            [og.constant("w", np.ones((4, 3, 3, 3)), np.float32)],
        ),
        "operator",
    ),
    "gelu": (one("Gelu", ["x"], outputs=[Y]), None),
    "bitwise": (
        og.model(
            [og.node("BitwiseNot", ["x"], ["y"])],
            [og.value("x", og.INT32, [2])],
            [og.value("y", og.INT32, [2])],
        ),
        "operator",
    ),
    "custom operator": (
        og.model([og.node("Foo", ["x"], ["y"], domain="my.domain")], [X], [Y], domains=["my.domain"]),
        "operator",
    ),
    "complex": (
        og.model(
            [og.node("Identity", ["x"], ["y"])],
            [og.value("x", og.TensorProto.COMPLEX64, [2])],
            [og.value("y", og.TensorProto.COMPLEX64, [2])],
        ),
        "type",
    ),
}


@pytest.fixture
def read(tmp_path):
    return lambda made: read_onnx(og.save(made, tmp_path / "graph.onnx"))


@pytest.mark.parametrize("name", CASES)
def test_a_rule_speaks_exactly_where_it_must(read, name):
    made, rule = CASES[name]
    found = find(read(made), flavour("tensorrt-rtx"), ("sm89",))
    assert [finding.rule for finding in found] == ([rule] if rule else [])
    for finding in found:
        assert finding.fix
        if rule != "type":
            assert all(node.startswith("the_") for node in finding.nodes)
            assert finding.nodes


@pytest.mark.parametrize("name", CASES)
def test_the_parser_of_tensorrt_rtx_agrees(name):
    trt = pytest.importorskip("tensorrt_rtx")
    from s2mlp_deploy.engines.tensorrt.library import logger_of

    made, rule = CASES[name]
    logger = logger_of(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parsed = trt.OnnxParser(network, logger).parse(made.SerializeToString())
    assert parsed == (rule is None)


def test_fp8_is_refused_below_sm89_as_the_builder_does(read):
    file = read(fp8_gemm())
    (found,) = find(file, flavour("tensorrt-rtx"), ("sm86", "sm89"))
    assert found.rule == "fp8"
    assert "sm86 has no fp8 arithmetic" in found.problem
    assert find(file, flavour("tensorrt-rtx"), ("sm89", "sm120")) == ()


@pytest.mark.parametrize("target", ["sm75", "sm80"])
@pytest.mark.parametrize("dtype", [og.FLOAT, og.HALF])
def test_turing_gets_no_fp32_gemm_and_the_builder_agrees(read, monkeypatch, tmp_path, target, dtype):
    pytest.importorskip("tensorrt_rtx")
    from s2mlp_deploy import api
    from s2mlp_deploy.engines.tensorrt import plan

    file = read(og.perceptron(dtype))
    found = find(file, flavour("tensorrt-rtx"), (target,))
    fails = (target, dtype) == ("sm75", og.FLOAT)
    assert [finding.rule for finding in found] == (["fp32-gemm"] if fails else [])
    monkeypatch.setattr(plan, "find", lambda *_: ())
    shape = {"input": (1, 8)}
    if fails:
        with pytest.raises(BuildError, match="FP32 GEMM is not supported"):
            api.build(file.path, targets=[target], min_shapes=shape)
    else:
        assert api.build(file.path, targets=[target], min_shapes=shape).bytes


@pytest.mark.parametrize(
    ("engine", "version", "case", "fails"),
    [
        ("tensorrt", "10.16", "deformable convolution", False),
        ("tensorrt", "10.0", "deformable convolution", True),
        ("tensorrt", "11", "deformable convolution", False),
        ("tensorrt", "10.16", "scatter elements that adds", False),
        ("tensorrt", "10.16", "scatter that adds", True),
        ("tensorrt", "11.4", "integer product", True),
    ],
)
def test_flavours_and_versions_differ(read, engine, version, case, fails):
    assert bool(find(read(CASES[case][0]), flavour(engine, version), ())) == fails


@pytest.mark.parametrize(("version", "fails"), [("10.2", True), ("10.3", False)])
def test_computed_axes_of_slice_came_with_a_version(read, version, fails):
    ends = [og.constant("a", [0], np.int64), og.constant("b", [1], np.int64)]
    made = one("Slice", ["x", "a", "b", "axes"], ends, extra=[AXES])
    assert bool(find(read(made), flavour("tensorrt", version), ())) == fails


def test_an_opset_newer_than_the_flavour_knows_is_refused(read):
    file = read(og.model([og.node("Relu", ["x"], ["y"])], [X], [Y], opset=20))
    for name in ("tensorrt", "tensorrt-rtx"):
        assert find(file, replace(flavour(name), max_opset=20), ()) == ()
        (found,) = find(file, replace(flavour(name), max_opset=19), ())
        assert "opset 20 is newer than 19" in found.problem
        assert "--opset 19" in found.fix
        assert flavour(name).max_opset >= 24


def test_equal_problems_stand_together_with_the_source_line_of_the_shift(read):
    nodes = [og.node("ScatterND", ["x", "i", "u"], ["a"], "net.shift1/Shift/ScatterND", reduction="add")]
    nodes += [og.node("ScatterND", ["a", "i", "u"], ["y"], "net.shift1/Shift/ScatterND_1", reduction="add")]
    made = og.model(
        nodes, [X, ROW], [Y], [INDEX], metadata={"shifts": [{"origin": {"module": "net.shift1", "line": "net.py:12"}}]}
    )
    file = read(made)
    (found,) = find(file, flavour("tensorrt-rtx"), ("sm89",))
    assert len(found.nodes) == 2
    assert found.lines == ("net.py:12",)
    assert found.modules == ("net.shift1/Shift",)
    with pytest.raises(BuildError, match=r"net\.shift1/Shift/ScatterND, .*net\.py:12"):
        refuse(file, (found,), flavour("tensorrt-rtx"))


def test_what_could_not_be_checked_is_a_finding_and_never_passes(read):
    """Behind an operator that nobody knows the types are unknown, and most rules are about types."""
    nodes = [
        og.node("Frobnicate", ["x"], ["a"], "odd", domain="mine"),
        og.node("Add", ["a", "x"], ["b"], "sum"),
        og.node("Relu", ["x"], ["y"], "fine"),
    ]
    made = og.model(nodes, [X], [Y], domains=["mine"])
    for target in ("tensorrt-rtx", "tensorrt"):
        report = preflight(read(made), flavour(target), ("sm89",) if target == "tensorrt-rtx" else ())
        assert not report.passed
        (finding,) = [item for item in report.findings if item.rule == "types"]
        assert "odd" in finding.nodes
        assert "fine" not in finding.nodes
        assert "not checked" in finding.problem
    assert preflight(read(one("Add", ["x", "x"])), flavour("tensorrt-rtx"), ("sm89",)).passed


def test_a_foreign_dynamic_input_is_a_finding_and_bad_shapes_are_bad_input(read):
    file = read(og.perceptron())
    report = preflight(file, flavour("tensorrt-rtx"), ("sm89",))
    assert [finding.rule for finding in report.findings] == ["shapes"]
    assert "axis 0 (batch) of the input input" in report.findings[0].problem
    shape = {"input": (4, 8)}
    assert preflight(file, flavour("tensorrt-rtx"), ("sm89",), [shape]).passed
    with pytest.raises(InputError, match="does not fit"):
        preflight(file, flavour("tensorrt-rtx"), ("sm89",), [{"input": (4, 9)}])
