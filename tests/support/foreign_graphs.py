"""Small graphs as other exporters write them: without types, without names, with operators of every kind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx_graphs import FLOAT, HALF, INT64, constant, model, node, value

DOUBLE, BFLOAT16, STRING, BOOL = TensorProto.DOUBLE, TensorProto.BFLOAT16, TensorProto.STRING, TensorProto.BOOL
_RANDOM = np.random.default_rng(0)


def _weights(*shape: int) -> np.ndarray:
    return _RANDOM.standard_normal(shape).astype(np.float32)


X = value("x", FLOAT, ["n", 4, 8])
Y = value("y", FLOAT, ["n", 4, 8])
W = constant("w", _weights(8, 8))
FC = node("MatMul", ["x", "w"], ["y"])


def _graph(
    nodes: Sequence[onnx.NodeProto],
    constants: Sequence[onnx.TensorProto] = (W,),
    inputs: Sequence[onnx.ValueInfoProto] = (X,),
    outputs: Sequence[onnx.ValueInfoProto] = (Y,),
    **options: object,
) -> onnx.ModelProto:
    return model(nodes, inputs, outputs, constants, **options)  # type: ignore[arg-type]


def _behind(*nodes: onnx.NodeProto, constants: Sequence[onnx.TensorProto] = (), **options: object) -> onnx.ModelProto:
    """A MatMul whose result h goes through the nodes to y."""
    return _graph([node("MatMul", ["x", "w"], ["h"]), *nodes], (W, *constants), **options)  # type: ignore[arg-type]


def _unnamed() -> onnx.ModelProto:
    made = _behind(node("Relu", ["h"], ["r"]), node("MatMul", ["r", "w"], ["y"]))
    for item in made.graph.node:
        item.name = ""
    return made


def _same_names() -> onnx.ModelProto:
    made = _behind(node("Relu", ["h"], ["r"]), node("MatMul", ["r", "w"], ["y"]))
    for item in made.graph.node:
        item.name = "same"
    return made


def _branch(condition: str = "c") -> onnx.NodeProto:
    inner = helper.make_graph([node("MatMul", ["h", "w"], ["z"])], "inner", [], [value("z", FLOAT, None)])  # type: ignore[arg-type]
    return node("If", [condition], ["y"], then_branch=inner, else_branch=inner)


def _function() -> onnx.ModelProto:
    made = _graph([node("Twice", ["x", "w"], ["y"], domain="mine")], domains=["mine"])
    body = [node("MatMul", ["a", "b"], ["c"]), node("MatMul", ["c", "b"], ["d"])]
    imports = [helper.make_opsetid("", 20)]
    made.functions.append(helper.make_function("mine", "Twice", ["a", "b"], ["d"], body, imports))
    return made


def _lstm() -> onnx.ModelProto:
    parts = (constant("lw", _weights(1, 16, 8)), constant("lr", _weights(1, 16, 4)))
    return _graph(
        [FC, node("LSTM", ["y", "lw", "lr"], ["s", "", ""], hidden_size=4)],
        (W, *parts),
        outputs=[value("s", FLOAT, ["n", 1, 4, 4])],
    )


def _convolution(rank: int, **options: int) -> onnx.ModelProto:
    weights = constant("k", _weights(16, 16, *[3] * rank))
    shape = ["n", 16, *[5] * rank]
    return _graph(
        [node("Conv", ["x", "k"], ["y"], pads=[1] * 2 * rank, **options)],
        [weights],
        [value("x", FLOAT, shape)],
        [value("y", FLOAT, ["n", 16, *[None] * rank])],
    )


GRAPHS = {
    "no types": lambda: _behind(node("Relu", ["h"], ["y"])),
    "no names": _unnamed,
    "equal names": _same_names,
    "one weight twice": lambda: _behind(node("MatMul", ["h", "w"], ["y"])),
    "weights in a Constant": lambda: _graph([node("Constant", [], ["w"], value=W), FC], ()),
    "weights as inputs": lambda: _graph([FC], inputs=[X, value("w", FLOAT, [8, 8])]),
    "unused weights": lambda: _graph([FC], (W, constant("unused", _weights(3)))),
    "transposed Gemm": lambda: _graph(
        [node("Gemm", ["x", "w", "b"], ["y"], transA=1, transB=1, alpha=0.5)],
        (W, constant("b", _weights(8))),
        [value("x", FLOAT, [8, "n"])],
        [value("y", FLOAT, ["n", 8])],
    ),
    "weights on the left": lambda: _graph([node("MatMul", ["v", "x"], ["y"])], (constant("v", _weights(4, 4)),)),
    "batched weights": lambda: _graph([FC], (constant("w", _weights(1, 8, 8)),)),
    "Einsum": lambda: _graph([node("Einsum", ["x", "w"], ["y"], equation="btc,cd->btd")]),
    "two activations": lambda: _behind(
        node("Transpose", ["h"], ["t"], perm=[0, 2, 1]),
        node("MatMul", ["h", "t"], ["s"]),
        outputs=[value("s", FLOAT, None)],
    ),
    "Conv 1d": lambda: _convolution(1),
    "Conv 3d": lambda: _convolution(3),
    "dilated Conv": lambda: _convolution(2, group=1),
    "ConvTranspose": lambda: _graph(
        [node("ConvTranspose", ["x", "k"], ["y"])],
        [constant("k", _weights(4, 4, 3))],
        outputs=[value("y", FLOAT, ["n", 4, None])],
    ),
    "LSTM": _lstm,
    "If": lambda: _behind(node("Constant", [], ["c"], value=constant("", np.bool_(True))), _branch()),
    "a function": _function,
    "Clip without limits": lambda: _behind(node("Clip", ["h", "", ""], ["y"])),
    "Clip": lambda: _behind(node("Clip", ["h", "lo", ""], ["y"]), constants=[constant("lo", np.float32(-1))]),
    "Dropout with a mask": lambda: _behind(node("Dropout", ["h"], ["y", "mask"])),
    "BatchNormalization": lambda: _behind(
        node("BatchNormalization", ["h", "s", "s", "s", "v"], ["y"]),
        constants=[constant("s", _weights(4)), constant("v", np.ones(4, np.float32))],
    ),
    "TopK": lambda: _behind(
        node("TopK", ["h", "k"], ["y", "i"]),
        constants=[constant("k", [3])],
        outputs=[value("y", FLOAT, None), value("i", INT64, None)],
    ),
    "double": lambda: _graph(
        [FC],
        [constant("w", _weights(8, 8).astype(np.float64))],
        [value("x", DOUBLE, ["n", 4, 8])],
        [value("y", DOUBLE, ["n", 4, 8])],
    ),
    "double inside": lambda: _behind(
        node("Cast", ["h"], ["d"], to=DOUBLE),
        node("MatMul", ["d", "u"], ["e"]),
        node("Cast", ["e"], ["y"], to=FLOAT),
        constants=[constant("u", _weights(8, 8).astype(np.float64))],
    ),
    "half inside": lambda: _behind(node("Cast", ["h"], ["d"], to=HALF), node("Cast", ["d"], ["y"], to=FLOAT)),
    "bfloat16 inside": lambda: _behind(node("Cast", ["h"], ["d"], to=BFLOAT16), node("Cast", ["d"], ["y"], to=FLOAT)),
    "strings inside": lambda: _behind(node("Cast", ["h"], ["d"], to=STRING), node("Cast", ["d"], ["y"], to=FLOAT)),
    "string output": lambda: _behind(node("Cast", ["h"], ["t"], to=STRING), outputs=[value("t", STRING, ["n", 4, 8])]),
    "integer output": lambda: _behind(node("ArgMax", ["h"], ["t"], axis=-1), outputs=[value("t", INT64, None)]),
    "boolean output": lambda: _behind(node("Greater", ["h", "x"], ["t"]), outputs=[value("t", BOOL, None)]),
    "integers only": lambda: _graph(
        [node("Add", ["x", "x"], ["y"])], (), [value("x", INT64, ["n", 4])], [value("y", INT64, ["n", 4])]
    ),
    "an input as output": lambda: _graph([FC], outputs=[Y, value("x", FLOAT, ["n", 4, 8])]),
    "a weight as output": lambda: _graph([FC], outputs=[Y, value("w", FLOAT, [8, 8])]),
    "no free axis": lambda: _graph([FC], inputs=[value("x", FLOAT, [1, 4, 8])], outputs=[value("y", FLOAT, [1, 4, 8])]),
    "no shapes": lambda: _graph([FC], inputs=[value("x", FLOAT, None)], outputs=[value("y", FLOAT, None)]),
    "a scalar output": lambda: _behind(node("ReduceMean", ["h"], ["y"], keepdims=0), outputs=[value("y", FLOAT, [])]),
    "quantized already": lambda: _behind(
        node("QuantizeLinear", ["h", "sc", "z"], ["q"]),
        node("DequantizeLinear", ["q", "sc", "z"], ["y"]),
        constants=[constant("sc", np.float32(0.1)), constant("z", np.int8(0))],
    ),
    "old opset": lambda: _behind(node("Relu", ["h"], ["y"]), opset=11),
    "nothing to quantize": lambda: _graph([node("Relu", ["x"], ["y"])], ()),
    "shape arithmetic": lambda: _behind(
        node("Shape", ["h"], ["s"]), node("ConstantOfShape", ["s"], ["z"]), node("Add", ["h", "z"], ["y"])
    ),
    "Resize without a region": lambda: _graph(
        [node("Resize", ["x", "", "sc"], ["r"]), node("MatMul", ["r", "w"], ["y"])],
        (W, constant("sc", np.float32([1, 1, 1]))),
    ),
    "NaN weights": lambda: _graph([FC], (constant("w", np.full((8, 8), np.nan, np.float32)),)),
    "zero weights": lambda: _graph([FC], (constant("w", np.zeros((8, 8), np.float32)),)),
}
