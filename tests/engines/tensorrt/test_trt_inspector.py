"""What an inspector says of a built engine, in the layouts that NVIDIA documents for 10.x and 11.x."""

from __future__ import annotations

import json

import onnx_graphs as og
import pytest

pytest.importorskip("onnx_ir")
from s2mlp_deploy.engines.tensorrt.graph import read_onnx
from s2mlp_deploy.engines.tensorrt.inspector import contents_of_engine, inspected, onnx_names, type_of
from s2mlp_deploy.engines.tensorrt.precision_check import check_engine
from s2mlp_deploy.errors import CheckFailedError
from s2mlp_deploy.evidence.build import Contents, MatrixOp


def tensor(text: str, **more) -> dict:
    return {"Name": "x", "Dimensions": [1, 8], "Format/Datatype": text} | more


HALF = tensor("Row major linear FP16 format")


@pytest.mark.parametrize(
    ("text", "precision"),
    [
        ("Row major linear FP16 format", "fp16"),
        ("Half", "fp16"),
        ("Float", "fp32"),
        ("Row major linear FP32", "fp32"),
        ("BFloat16", "bf16"),
        ("Row major linear BF16 format", "bf16"),
        ("Thirty-two wide channel vectorized row major Int8 format.", "int8"),
        ("FP8", "fp8"),
        ("FP8E4M3", "fp8"),
        ("FP4E2M1", "fp4"),
        ("Int4", "int4"),
        ("UInt8", "other"),
        ("Int64", "other"),
        ("Bool", "other"),
        ("Row major linear format (kLINEAR) Half", "fp16"),
        ("N/A due to dynamic shapes", "unknown"),
        ("", "unknown"),
    ],
)
def test_types_are_read_in_both_spellings(text, precision):
    assert type_of(text) == precision


def test_layers_of_10_are_read():
    layers = [
        {"Name": "fc1/MatMul + fc1/Add", "LayerType": "gemm", "Inputs": [HALF], "Outputs": [HALF]},
        {
            "Name": "fc2/MatMul",
            "LayerType": "CaskGemmMatrixMultiply",
            "Inputs": [tensor("Float")],
            "Outputs": [HALF],
        },
        {"Name": "Reformatting CopyNode", "LayerType": "Reformat", "Inputs": [HALF], "Outputs": [HALF]},
    ]
    found = contents_of_engine({"Layers": layers, "Bindings": ["x", "y"]})
    assert (found.source, found.layers, found.reformats) == ("engine", 3, 1)
    assert found.matrix_ops == (MatrixOp("fc1/MatMul + fc1/Add", "fp16"), MatrixOp("fc2/MatMul", "fp32"))
    assert found.formats == {"Row major linear FP16 format": 3}
    assert found.dtypes == {"fp16": 3}
    assert found.unclear == ()


def test_layers_of_11_are_read_with_the_nodes_that_were_fused():
    layers = [
        {
            "Name": "__myl_FcAdd_myl0_3",
            "LayerType": "gemm",
            "Inputs": [{"Name": "x", "Format": "Row major linear format (kLINEAR)", "DataType": "Int8"}],
            "Outputs": [{"Name": "y", "Format": "Row major linear format (kLINEAR)", "DataType": "BFloat16"}],
            "Metadata": "[ONNX Layer: fc1/MatMul]\x1f[ONNX Layer: fc1/Add]\x1e[ONNX Layer: fc1/Add]",
        },
        {"Name": "__myl_MulFcGelu_myl0_4", "LayerType": "kgen", "Inputs": [HALF], "Outputs": [HALF]},
        {"Name": "__myl_AddMul_myl0_5", "LayerType": "kgen", "Inputs": [HALF], "Outputs": [HALF]},
    ]
    found = contents_of_engine({"Layers": layers, "I/O Tensors": [{"Name": "x", "DataType": "Half"}]})
    assert found.matrix_ops == (
        MatrixOp("fc1/MatMul + fc1/Add", "int8"),
        MatrixOp("__myl_MulFcGelu_myl0_4", "fp16"),
    )
    assert found.dtypes == {"bf16": 1, "fp16": 2}
    (line,) = found.unclear
    assert "without the names of their nodes: __myl_MulFcGelu_myl0_4" in line


def test_names_that_follow_each_other_without_a_separator_are_told_apart():
    assert onnx_names({"Metadata": "[ONNX Layer: a][ONNX Layer: b[0]]"}) == ("a", "b[0]")
    assert onnx_names({"Name": "a + b"}) == ("a", "b")
    assert onnx_names({"Name": "a", "Metadata": ""}) == ("a",)
    assert onnx_names({"Name": "__myl_Fc_0"}) == ()
    assert onnx_names({"Name": "entry^bb^signal^1_myl4_0"}) == ()
    assert onnx_names({"Name": "b/MatMul+a/MatMul_myl0_2"}) == ("b/MatMul", "a/MatMul")
    assert onnx_names({"Name": "PWN(PWN(a/Sigmoid), a/Mul)"}) == ("a/Sigmoid", "a/Mul")
    assert onnx_names({"Name": "PWN(PWN(PWN(a/Neg), a/Exp), PWN(a/Add))"}) == ("a/Neg", "a/Exp", "a/Add")
    assert onnx_names({"Name": "(Unnamed Layer* 3) [Shuffle]"}) == ("(Unnamed Layer* 3) [Shuffle]",)


def test_what_is_not_known_is_told_and_no_reason_to_stop():
    layers = ["by name alone", {"Name": "fc", "LayerType": "gemm", "Inputs": [tensor("Quux")], "Outputs": [None, 3]}]
    found = contents_of_engine({"layerInfo": layers})
    assert found.layers == 2
    assert found.matrix_ops == (MatrixOp("fc", "unknown"),)
    assert "1 of 2 layers are given by name alone" in found.unclear[0]
    assert "'Quux'" in found.unclear[1]
    assert contents_of_engine([{"Name": 3, "Inputs": {}, "Outputs": None, "Metadata": 4}]).layers == 1


@pytest.mark.parametrize("text", ["", "{", "[" * 5000, "3", "{}", '{"Layers": {}}', '{"Layers": [1'])
def test_a_text_that_cannot_be_read_is_a_warning(text, caplog):
    assert inspected(text) is None
    assert "cannot be read" in caplog.text


@pytest.fixture
def file(tmp_path):
    metadata = {"precision": "fp16", "precision_exceptions": [{"layer": "fc3", "precision": "fp32"}]}
    return read_onnx(og.save(og.perceptron(og.HALF, metadata=metadata), tmp_path / "graph.onnx"))


def contents(*ops: tuple[str, str], unclear: tuple[str, ...] = ()) -> Contents:
    return Contents("engine", 3, {}, {}, matrix_ops=tuple(MatrixOp(*op) for op in ops), unclear=unclear)


def test_a_gemm_that_stands_alone_in_fp32_fails_the_build(file):
    with pytest.raises(CheckFailedError, match="fc1/MatMul: fp32") as caught:
        check_engine(file, "fp16", contents(("fc1/MatMul", "fp32"), ("fc2/MatMul", "other"), ("fc3/MatMul", "fp32")))
    assert "fc3" not in str(caught.value)


def test_gemms_that_became_one_fail_the_build_like_each_of_them(file):
    """As the compiler inside of TensorRT 10 names them."""
    layer = {"Name": "fc1/MatMul+fc2/MatMul_myl0_7", "LayerType": "gemm", "Inputs": [tensor("Float")]}
    with pytest.raises(CheckFailedError, match=r"fc1/MatMul \+ fc2/MatMul: fp32"):
        check_engine(file, "fp16", contents_of_engine([layer]))


@pytest.mark.parametrize("name", ["fc1/MatMul + fc1/Cast", "__myl_FcCast_myl0_1"])
def test_fp32_in_a_fused_layer_is_a_warning(file, caplog, name):
    check_engine(file, "fp16", contents((name, "fp32"), ("fc2/MatMul", "unknown"), unclear=("types 'Quux'",)))
    assert name in caplog.text
    assert "types 'Quux'" in caplog.text


def test_an_engine_of_dynamic_shapes_that_tells_no_types_is_no_failure(file):
    layers = [{"Name": "fc1/MatMul", "LayerType": "gemm", "Inputs": [tensor("N/A due to dynamic shapes")]}]
    found = inspected(json.dumps({"Layers": layers}))
    assert found is not None
    check_engine(file, "fp16", found)
