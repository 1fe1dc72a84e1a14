"""Networks of the zoo small enough to be quantized in a second, captured once per test run."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper

from s2mlp_deploy.calibration.observe import Observer, Statistics
from s2mlp_deploy.precision.quantizable import observed_values, select_ops

FORMS = ("slice-concat", "pad-slice", "gather", "row-gather", "grouped-conv")
LAYOUTS = ("channels-last", "channels-first")
SMALL = {"dims": (24,), "depths": (1,), "patches": (4,), "image_size": (16, 16), "classes": 5}


@functools.cache
def captured(family: str, layout: str = "channels-last", border: str = "keep", dynamic: tuple[str, ...] = ("batch",)):
    import torch

    from s2mlp_deploy import api

    name = {"v1": "s2mlp_deep", "v2": "s2mlpv2_nano"}[family]
    source = api.load(name, overrides=SMALL | {"layout": layout, "border": border}, seed=3)
    # As they are initialised biases are 0 and norms 1, and the exporter leaves such out.
    with torch.no_grad():
        generator = torch.Generator().manual_seed(4)
        for _, parameter in sorted(source.module.named_parameters()):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return api.capture(source, dynamic=dynamic)


@functools.cache
def graph(
    family: str = "v2",
    form: str = "slice-concat",
    layout: str = "channels-last",
    border: str = "keep",
    dynamic: tuple[str, ...] = ("batch",),
) -> ir.Model:
    """A float32 graph with 3x16x16 images, 4x4 tokens, 24 channels, one block, 5 classes. Not to be changed."""
    from s2mlp_deploy.export.forms import find_form
    from s2mlp_deploy.export.lower import lower_shifts

    return lower_shifts(captured(family, layout, border, dynamic).canonical, find_form(form))[0]


def images(count: int = 8, seed: int = 0, size: tuple[int, int] = (16, 16)) -> dict[str, np.ndarray]:
    """Normal noise, float32 [count, 3, height, width], as the input."""
    return {"input": np.random.default_rng(seed).standard_normal((count, 3, *size)).astype(np.float32)}


def statistics(model: ir.Model, *batches: Mapping[str, np.ndarray], histograms: bool = True) -> Statistics:
    """Statistics of a graph over batches; default noise."""
    values = observed_values(select_ops(model)) if histograms else ()
    observer, seen = Observer(model, values, threads=1), Statistics()
    for feeds in batches or (images(8, 0), images(8, 1)):
        seen = observer.update(seen, feeds)
    return seen


def hand_made(nodes, inputs, outputs, constants: Mapping[str, np.ndarray] | None = None, opset: int = 20) -> ir.Model:
    """A graph written by hand, with every type and shape inferred.

    Args:
        nodes: What ``helper.make_node`` returned; unnamed ones are numbered.
        inputs: float32 inputs: name and shape.
        outputs: float32 outputs: name and shape.
        constants: Initializers.
        opset: Of the graph.
    """
    import onnx
    from onnx import numpy_helper

    for index, node in enumerate(nodes):
        node.name = node.name or f"layer{index}/{node.op_type}"
    infos = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in given.items()]
        for given in (inputs, outputs)
    ]
    weights = [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()]
    proto = helper.make_model(
        helper.make_graph(nodes, "hand made", *infos, weights),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=10,
    )
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True))


def run(model: ir.Model, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of a graph by ONNX Runtime with all optimizations off, so that every node is computed as written."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    return session.run(None, dict(feeds))


def kinds(model: ir.Model, *op_types: str) -> list[ir.Node]:
    """The nodes of these operators, in graph order."""
    return [node for node in model.graph if node.op_type in op_types]
