"""Small networks of all kinds of products: every precision computes them, and what int8 leaves out is listed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_graphs as og
import onnx_ir as ir
import pytest

pytest.importorskip("torch")
import torch
from small_nets import run, statistics
from small_products import PRODUCTS

from s2mlp_deploy.capture.program import capture
from s2mlp_deploy.engines.tensorrt.graph import read_onnx
from s2mlp_deploy.engines.tensorrt.precision_check import check_precision
from s2mlp_deploy.export.canonical import to_canonical
from s2mlp_deploy.precision.derive import Derived, derive
from s2mlp_deploy.precision.quantizable import select_ops

LIMITS = {"fp16": 5e-3, "int8": 0.08, "int8-trt": 0.08}
"""Largest error, as a share of the largest output."""

REASONS = {
    "attention": ["a product of two activations"] * 2,
    "attention_of_rank_3": ["a product of two activations"] * 2,
    "multihead_attention": ["a product of two activations"] * 2,
    "weight_on_the_left": ["weights on the left"],
    "weights_of_a_batch": ["weights of rank 3"],
    "weights_of_heads": ["weights of rank 3"],
    "matrix_times_vector": ["weights of rank 1"],
    "einsum_with_weights": ["Einsum is not quantized"],
    "addmm": ["another product than activations times weights plus a constant bias"],
    "gru": ["GRU is not quantized"],
    "lstm": ["LSTM is not quantized"],
    "conv_transpose": ["ConvTranspose is not quantized"],
    "computed_kernels": ["a product of two activations"],
    "depthwise": [],
}


def written(graph: Derived, path: Path) -> Path:
    """The file with what its artifact would say of it."""
    exceptions = [{"layer": e.layer, "precision": e.precision, "reason": e.reason} for e in graph.exceptions]
    made = og.describe(ir.to_proto(graph.model), precision=graph.precision, precision_exceptions=exceptions)
    onnx.checker.check_model(made, full_check=True)
    return og.save(made, path)


@pytest.mark.parametrize(
    "name", [name if name in REASONS else pytest.param(name, marks=pytest.mark.slow) for name in PRODUCTS]
)
def test_every_precision_computes_it_and_lists_what_it_leaves(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    module, x = PRODUCTS[name]()
    model = to_canonical(capture(module, (x,), dynamic=()))
    with torch.no_grad():
        expected = module(x).numpy()
    feeds = {str(model.graph.inputs[0].name): x.numpy()}
    np.testing.assert_allclose(run(model, feeds)[0], expected, rtol=1e-3, atol=1e-5)
    seen = statistics(model, feeds)
    for precision, limit in LIMITS.items():
        graph = derive(model, precision, seen, method="minmax")
        path = written(graph, tmp_path / f"model.{precision}.onnx")
        error = np.abs(run(graph.model, feeds)[0] - expected).max() / np.abs(expected).max()
        assert error < limit, precision
        if precision == "int8-trt":
            trt = pytest.importorskip("tensorrt_rtx")
            file = read_onnx(path)
            check_precision(file, file.precision, parsed(trt, path))
    if name in REASONS:
        assert list(select_ops(model).skipped.values()) == REASONS[name]


def parsed(trt, path: Path):
    from s2mlp_deploy.engines.tensorrt.library import logger_of
    from s2mlp_deploy.engines.tensorrt.network import contents_of

    logger = logger_of(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(str(path)), parser.get_error(0).desc()
    return contents_of(network)
