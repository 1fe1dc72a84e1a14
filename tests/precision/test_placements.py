"""Every file is valid, runs, is close to float32, and has the shape its runtime wants."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import onnx_ir as ir
import pytest

pytest.importorskip("torch")
from small_nets import FORMS, LAYOUTS, graph, images, kinds, run, statistics

from s2mlp_deploy import api
from s2mlp_deploy.export.write import save_model
from s2mlp_deploy.precision.derive import derive
from s2mlp_deploy.precision.options import FILES_OF, check_opset, file_precisions
from s2mlp_deploy.precision.placements import PLACEMENTS
from s2mlp_deploy.precision.quantizable import select_ops

PRECISIONS = ("fp16", *PLACEMENTS)
FREE = ("batch", "height", "width")


@functools.cache
def seen(family, form, layout, dynamic):
    return statistics(graph(family, form, layout, dynamic=dynamic))


@functools.cache
def derived(precision, family="v2", form="slice-concat", layout="channels-last", dynamic=("batch",), keep=frozenset()):
    model = graph(family, form, layout, dynamic=dynamic)
    return derive(model, precision, seen(family, form, layout, dynamic), method="minmax", keep=keep)


def sqnr(expected, found) -> float:
    noise = np.square(found.astype(np.float64) - expected).sum()
    return float(10 * np.log10(np.square(expected, dtype=np.float64).sum() / noise))


def is_valid(model: ir.Model) -> None:
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


LEAST_SQNR = {"fp16": 50, "int8": 22, "int8-trt": 22, "fp8-trt": 14}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("family", ["v1", "v2"])
@pytest.mark.parametrize("form", FORMS)
def test_every_file_is_valid_runs_and_is_close(family, form, layout, precision):
    model = graph(family, form, layout)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    found = derived(precision, family, form, layout)
    is_valid(found.model)
    expected, result = (run(m, images(16, 7))[0] for m in (model, found.model))
    assert result.dtype == np.float32
    assert sqnr(expected, result) > LEAST_SQNR[precision]
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before, "the float32 graph was changed"
    names = [[value.name for value in side] for side in (found.model.graph.inputs, found.model.graph.outputs)]
    assert names == [["input"], ["logits"]]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", ["v1", "v2"])
def test_free_heights_and_widths_work_too(family, precision):
    model = graph(family, dynamic=FREE)
    found = derived(precision, family, dynamic=FREE)
    is_valid(found.model)
    for size in ((16, 16), (24, 12), (8, 40)):
        expected, result = (run(m, images(3, 7, size))[0] for m in (model, found.model))
        assert sqnr(expected, result) > LEAST_SQNR[precision] - 3, size


def optimized(model: ir.Model, path) -> onnx.GraphProto:
    import onnxruntime

    save_model(model, path / "model.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path / "model.onnx"), options, providers=["CPUExecutionProvider"])
    return onnx.load(path / "optimized.onnx").graph


@pytest.mark.parametrize("dynamic", [("batch",), FREE])
@pytest.mark.parametrize("family", ["v1", "v2"])
def test_onnxruntime_runs_every_layer_as_an_integer_gemm_with_a_float_result(tmp_path, family, dynamic):
    found = optimized(derived("int8", family, dynamic=dynamic).model, tmp_path)
    ops = select_ops(graph(family, dynamic=dynamic)).ops
    layers = [op for op in ops if op.node.op_type != "Conv"]
    gemms = [node for node in found.node if node.op_type == "QGemm"]
    assert len(gemms) == len(layers) > 0
    for node in gemms:
        # Without the last two inputs, the result's scale and zero-point, it is float.
        assert [name for name in node.input if name][7:] == [], node.name
    weights = {tensor.name: list(tensor.dims) for tensor in found.initializer}
    shapes = [list(op.weight.shape) for op in layers]
    assert not [
        node
        for node in found.node
        if node.op_type in ("MatMul", "Gemm", "FusedMatMul", "FusedGemm")
        and any(weights.get(name) in shapes for name in node.input)
    ]


def test_onnxruntime_runs_every_convolution_on_integers(tmp_path):
    found = optimized(derived("int8", "v2", layout="channels-first").model, tmp_path)
    ops = select_ops(graph("v2", layout="channels-first")).ops
    assert sum(node.op_type == "QLinearConv" for node in found.node) == len(ops)
    assert not any(node.op_type in ("Conv", "FusedConv", "NhwcFusedConv") for node in found.node)


def test_a_token_sum_becomes_a_product_only_where_the_number_of_tokens_is_fixed():
    fixed, free = (derived("int8", dynamic=dynamic).model for dynamic in (("batch",), FREE))
    assert kinds(derived("fp16").model, "ReduceSum")
    assert not kinds(fixed, "ReduceSum")
    assert kinds(free, "ReduceSum")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("precision", ["int8-trt", "fp8-trt"])
def test_tensorrts_file_is_symmetric_and_quantizes_the_inputs_of_products_only(form, layout, precision):
    found = derived(precision, "v1", form, layout)
    dtype = PLACEMENTS[precision].scheme.weight_dtype()
    ops = {op.node.name for op in select_ops(graph("v1", form, layout), dtype=dtype).ops}
    for node in kinds(found.model, "QuantizeLinear", "DequantizeLinear"):
        zero = node.inputs[2].const_value.numpy()
        assert zero.dtype != np.int32
        assert not zero.astype(np.float32).any()
        assert node.inputs[1].dtype in (ir.DataType.FLOAT16, ir.DataType.FLOAT)
    assert not any(value.dtype == ir.DataType.INT32 for value in found.model.graph.initializers.values())
    for node in kinds(found.model, "DequantizeLinear"):
        for reader, index in node.outputs[0].uses():
            # A grouped convolution that shifts is the one exception; its own Q is behind it.
            one_hot = reader.op_type == "Conv" and reader.name not in ops
            assert (reader.name in ops and index < 2) or one_hot, (node.name, reader.name)
    quantized = {
        node.name
        for node in found.model.graph
        if node.name in ops
        and all(v.producer() and v.producer().op_type == "DequantizeLinear" for v in node.inputs[:2])
    }
    assert quantized == ops


@pytest.mark.parametrize("precision", ["fp16", "int8-trt", "fp8-trt"])
@pytest.mark.parametrize("family", ["v1", "v2"])
def test_everything_else_is_float16(family, precision):
    found = derived(precision, family)
    islands = {item.layer for item in found.exceptions if item.precision == "fp32"}
    for node in found.model.graph:
        if node.name in islands or node.op_type == "Cast" or node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        assert all(v.dtype != ir.DataType.FLOAT for v in (*node.inputs, *node.outputs) if v is not None), node.name


def test_kept_layers_stay_in_float_and_are_told():
    layer = select_ops(graph("v2")).ops[2].layer
    for precision, higher in (("int8", "fp32"), ("int8-trt", "fp16"), ("fp8-trt", "fp16")):
        found = derived(precision, keep=frozenset({layer}))
        told = {item.layer: item for item in found.exceptions}
        assert told[layer].precision == higher
        assert told[layer].reason == "kept by the accuracy budget"
        assert told[layer].file == found.file == f"model.{precision}.onnx"
        (gemm,) = [n for n in found.model.graph if (n.name or "").startswith(f"{layer}/") and n.op_type == "Gemm"]
        assert not any((v.producer() and v.producer().op_type == "DequantizeLinear") for v in gemm.inputs)
        assert told["head"].reason == "one row per image"
        is_valid(found.model)


def test_a_graph_derived_twice_is_the_same_to_the_byte():
    for precision in PRECISIONS:
        once, again = (
            derive(graph("v2"), precision, seen("v2", "slice-concat", "channels-last", ("batch",)), method="entropy")
            for _ in range(2)
        )
        first, second = (ir.to_proto(m.model).SerializeToString(deterministic=True) for m in (once, again))
        assert first == second


def test_precisions_on_the_command_line_are_files():
    from s2mlp_deploy.errors import InputError

    assert file_precisions(["fp8", "int8", "fp16", "fp32", "int8"]) == ("fp16", "int8", "int8-trt", "fp8-trt")
    assert file_precisions(["fp32"]) == ()
    with pytest.raises(InputError) as caught:
        file_precisions(["int4"])
    assert all(name in str(caught.value) for name in ("int4", *FILES_OF))
    check_opset(("fp16", "int8"), 18)
    check_opset(PRECISIONS, 19)
    for precision in ("int8-trt", "fp8-trt"):
        with pytest.raises(InputError, match="opset 18"):
            check_opset((precision,), 18)


# TensorRT-RTX


def engine(model: ir.Model, path, target: str):
    pytest.importorskip("tensorrt_rtx")
    path.mkdir(exist_ok=True)
    save_model(model, path / "model.onnx")
    info = model.graph.inputs[0]
    shapes = {info.name: (2, *(size for size in info.shape if isinstance(size, int)))}
    return api.build(path / "model.onnx", targets=[target], max_shapes=[shapes])


@pytest.mark.parametrize("precision", ["fp16", "int8-trt", "fp8-trt"])
@pytest.mark.parametrize(
    ("family", "form", "layout"),
    [
        ("v1", "slice-concat", "channels-last"),
        ("v1", "grouped-conv", "channels-last"),
        ("v1", "grouped-conv", "channels-first"),
        ("v1", "pad-slice", "channels-first"),
        ("v1", "gather", "channels-last"),
        ("v2", "slice-concat", "channels-last"),
        ("v2", "grouped-conv", "channels-first"),
    ],
)
def test_tensorrt_parses_and_builds(tmp_path, family, form, layout, precision):
    record = engine(derived(precision, family, form, layout).model, tmp_path, "sm89")
    assert record.bytes > 0
    assert record.layer_dtypes["half"] > 0
    quantized = {"fp16": None, "int8-trt": "int8", "fp8-trt": "fp8"}[precision]
    if quantized:
        assert record.layer_dtypes[quantized] >= len(select_ops(graph(family, form, layout)).ops)
    else:
        assert set(record.layer_dtypes) <= {"half", "float", "int64", "int32", "bool"}


def test_tensorrt_refuses_the_file_for_onnxruntime(tmp_path):
    from s2mlp_deploy.errors import BuildError

    with pytest.raises(BuildError):
        engine(derived("int8").model, tmp_path, "sm89")


@pytest.mark.parametrize("target", ["sm120", "sm86"])
def test_fp8_is_for_newer_gpus(tmp_path, target):
    from s2mlp_deploy.errors import BuildError

    model = derived("fp8-trt").model
    if target == "sm120":
        assert engine(model, tmp_path, target).bytes > 0
    else:
        with pytest.raises(BuildError):
            engine(model, tmp_path, target)
