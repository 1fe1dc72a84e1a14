"""What is inside a parsed network, and whether that is the required precision. Real parser, no GPU."""

from __future__ import annotations

import nano_artifact
import numpy as np
import onnx_graphs as og
import pytest

pytest.importorskip("tensorrt_rtx")
pytest.importorskip("onnx_ir")
import tensorrt_rtx as trt

from s2mlp_deploy.engines.tensorrt.graph import read_onnx
from s2mlp_deploy.engines.tensorrt.library import logger_of
from s2mlp_deploy.engines.tensorrt.network import contents_of
from s2mlp_deploy.engines.tensorrt.precision_check import check_precision, required_precision, violations
from s2mlp_deploy.engines.tensorrt.quantized import examine
from s2mlp_deploy.errors import CheckFailedError, InputError


def noise(count=1, size=8):
    rng = np.random.default_rng(0)
    return lambda: [{"input": rng.standard_normal((2, size)).astype(np.float32)} for _ in range(count)]


def parsed(path):
    logger = logger_of(trt)
    network = trt.Builder(logger).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, logger).parse_from_file(str(path))
    return contents_of(network)


@pytest.fixture
def make(tmp_path):
    """Saves a graph with a description; returns the file and what the parser makes of it."""

    def save(made, **metadata):
        path = og.save(og.describe(made, **metadata), tmp_path / "graph.onnx")
        return read_onnx(path), parsed(path)

    return save


@pytest.mark.parametrize(("dtype", "precision"), [(og.FLOAT, "fp32"), (og.HALF, "fp16")])
def test_a_gemm_computes_in_the_type_of_its_inputs(make, dtype, precision):
    file, contents = make(og.perceptron(dtype), precision=precision)
    assert [(gemm.name, gemm.precision) for gemm in contents.matrix_ops] == [
        ("fc1/MatMul", precision),
        ("fc2/MatMul", precision),
    ]
    check_precision(file, file.precision, contents)


def half_with_an_island():
    made = og.perceptron(og.HALF)
    del made.graph.node[2], made.graph.initializer[1]
    made.graph.initializer.append(og.constant("w2", np.eye(8), np.float32))
    made.graph.node.extend(
        [
            og.node("Cast", ["b"], ["c"], "fc2/Cast", to=og.FLOAT),
            og.node("MatMul", ["c", "w2"], ["d"], "fc2/MatMul"),
            og.node("Cast", ["d"], ["output"], "fc2/Cast_1", to=og.HALF),
        ]
    )
    return made


def test_an_fp16_file_that_leaves_a_gemm_in_fp32_is_caught_and_the_layer_named(make):
    file, contents = make(half_with_an_island(), precision="fp16")
    with pytest.raises(
        CheckFailedError,
        match=r"fp16 is required, and 1 of 2 GEMMs and.*\n +fc2/MatMul: fp32",
    ) as caught:
        check_precision(file, file.precision, contents)
    assert caught.value.exit_code == 1
    with pytest.raises(CheckFailedError, match="in bf16: export and quantize make fp32, fp16, int8 and fp8"):
        check_precision(file, "bf16", contents)


@pytest.mark.parametrize(("layer", "exempted"), [("fc2", True), ("fc2/MatMul", True), ("fc", False), ("fc1", False)])
def test_an_exception_of_the_manifest_exempts_a_node_or_a_module(make, layer, exempted):
    exceptions = [{"layer": layer, "precision": "fp32", "reason": "overflow"}]
    file, contents = make(half_with_an_island(), precision="fp16", precision_exceptions=exceptions)
    assert (violations(file, "fp16", contents) == ()) == exempted


@pytest.mark.parametrize("exceptions", [None, []])
def test_exceptions_that_say_nothing_exempt_nothing(make, exceptions):
    file, contents = make(half_with_an_island(), precision="fp16", precision_exceptions=exceptions or [])
    assert len(violations(file, "fp16", contents)) == 1


@pytest.fixture
def quantized(tmp_path):
    """The perceptron quantized by ONNX Runtime's own tool."""

    def make(precision="int8", base=og.FLOAT):
        path = og.save(og.perceptron(base), tmp_path / "plain.onnx")
        return og.to_quantized(path, tmp_path / "quantized.onnx", noise(), precision)

    return make


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_quantized_gemms_are_seen_through_the_dequantizing_layers(quantized, precision):
    path = quantized(precision)
    file, contents = read_onnx(path), parsed(path)
    assert {gemm.precision for gemm in contents.matrix_ops} == {precision}
    assert file.precision == precision
    check_precision(file, precision, contents)


def test_an_int8_file_whose_gemm_reads_no_int8_is_caught(quantized):
    import onnx

    path = quantized()
    made = onnx.load(path)
    # The second GEMM reads its activation past the Q/DQ pair.
    gemm = next(item for item in made.graph.node if item.name.startswith("fc2"))
    gemm.input[0] = "b"
    og.save(made, path)
    file, contents = read_onnx(path), parsed(path)
    assert [gemm.name for gemm in violations(file, "int8", contents)] == [gemm.name]
    with pytest.raises(CheckFailedError, match=gemm.name):
        check_precision(file, file.precision, contents)


def test_a_shift_written_as_a_convolution_is_no_gemm_that_must_be_quantized(make):
    kernel = np.zeros((8, 1, 3, 3), np.float32)
    kernel[:, 0, 1, 1] = 1
    made = og.model(
        [og.node("Conv", ["input", "k"], ["output"], "mixer.shift/Shift/Conv", group=8, pads=[1, 1, 1, 1])],
        [og.value("input", og.FLOAT, [1, 8, 4, 4])],
        [og.value("output", og.FLOAT, [1, 8, 4, 4])],
        [og.constant("k", kernel)],
    )
    file, contents = make(made, precision="int8", shifts=[{"origin": {"module": "mixer.shift"}}])
    assert len(contents.matrix_ops) == 1
    assert violations(file, "int8", contents) == ()
    # In an fp16 file it must be fp16 like everything else.
    assert len(violations(file, "fp16", contents)) == 1


def test_what_the_user_asks_must_be_in_the_file(make, quantized):
    plain, _ = make(og.perceptron())
    assert required_precision(plain, None) is None
    assert required_precision(make(og.perceptron(), precision="fp16")[0], None) == "fp16"
    assert required_precision(plain, "fp32") == "fp32"
    with pytest.raises(InputError, match=r"int8 was asked for, and the file has no Q/DQ"):
        required_precision(plain, "int8")
    with pytest.raises(InputError, match="no precision 'int9'"):
        required_precision(plain, "int9")
    known = read_onnx(quantized())
    assert required_precision(known, "int8-trt") == "int8"
    with pytest.raises(InputError, match="fp16 was asked for, and the metadata of the file says int8"):
        required_precision(known, "fp16")


# Why int8 may be slower than fp16


def test_a_well_placed_int8_graph_over_fp32_is_told_to_go_over_fp16(quantized):
    found = examine(read_onnx(quantized()))
    assert (found.matrix_ops, found.quantized, found.unread, found.not_quantized) == (2, 2, (), ())
    assert found.around == ("float32",)
    assert found.quantize == 2
    (advice,) = found.advice
    assert "fp32" in advice
    assert "fp16 graph" in advice


@pytest.mark.parametrize(("layer", "islands"), [("sum", ()), ("other", ("act/to_fp32",))])
def test_an_island_is_told_of_unless_it_is_an_exception(make, layer, islands):
    half, scale = og.constant("h", 1, np.float16), og.constant("s", 0.1, np.float16)
    made = og.model(
        [
            og.node("QuantizeLinear", ["x", "s", "z"], ["q"], "Q"),
            og.node("DequantizeLinear", ["q", "s", "z"], ["dq"], "DQ"),
            og.node("Mul", ["dq", "h"], ["m"], "act/Mul"),
            og.node("Cast", ["m"], ["wide"], "act/to_fp32", to=og.FLOAT),
            og.node("Softmax", ["wide"], ["p"], "sum/Softmax"),
            og.node("Cast", ["p"], ["y"], "act/to_fp16", to=og.HALF),
        ],
        [og.value("x", og.HALF, ("batch", 4))],
        [og.value("y", og.HALF, ("batch", 4))],
        [half, scale, og.constant("z", 0, np.int8)],
    )
    exception = {"layer": layer, "precision": "fp32", "reason": "range", "file": "model.int8-trt.onnx"}
    file, _ = make(made, precision_exceptions=[exception])
    found = examine(file)
    assert found.islands == islands
    assert any("islands" in line for line in found.advice) == bool(islands)


def test_q_dq_that_feeds_no_gemm_and_gemms_without_it_are_named(make):
    scale, zero = og.constant("s", 0.1, np.float32), og.constant("z", 0, np.int8)
    made = og.perceptron()
    made.graph.initializer.extend([scale, zero])
    made.graph.node[1].input[0] = "a_dq"
    made.graph.node.insert(1, og.node("QuantizeLinear", ["a", "s", "z"], ["a_q"], "act/Q"))
    made.graph.node.insert(2, og.node("DequantizeLinear", ["a_q", "s", "z"], ["a_dq"], "act/DQ"))
    file, _ = make(made)
    found = examine(file)
    assert found.unread == ("act/DQ",)
    assert found.not_quantized == ("fc1/MatMul", "fc2/MatMul")
    assert any("act/DQ" in line and "feed no GEMM or convolution" in line for line in found.advice)
    assert any("2 of 2 GEMMs and convolutions are not quantized" in line for line in found.advice)


def test_a_graph_without_q_dq_has_nothing_to_explain(make):
    assert examine(make(og.perceptron())[0]) is None


def test_islands_of_fp32_in_a_quantized_fp16_graph_are_named(make):
    made = half_with_an_island()
    scale, zero = og.constant("s", 0.1, np.float16), og.constant("z", 0, np.int8)
    made.graph.initializer.extend([scale, zero])
    made.graph.node[0].input[0] = "x_dq"
    made.graph.node.insert(0, og.node("QuantizeLinear", ["input", "s", "z"], ["x_q"], "fc1/Q"))
    made.graph.node.insert(1, og.node("DequantizeLinear", ["x_q", "s", "z"], ["x_dq"], "fc1/DQ"))
    file, _ = make(made)
    found = examine(file)
    assert found.around == ("float16",)
    assert found.islands == ("fc2/Cast",)
    assert any("fp32 islands (fc2/Cast)" in line for line in found.advice)


def test_the_digit_network_is_what_its_metadata_says():
    path = nano_artifact.read_only() / "model.fp32.onnx"
    file, contents = read_onnx(path), parsed(path)
    assert file.precision == "fp32"
    assert {gemm.precision for gemm in contents.matrix_ops} == {"fp32"}
    assert len(contents.matrix_ops) == sum(node.op_type in ("MatMul", "Gemm", "Conv") for node in file.nodes)
