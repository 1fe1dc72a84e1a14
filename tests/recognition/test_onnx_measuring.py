"""Shapes and indices of a graph, at sizes at which the network itself is not run."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx_sources import DYNAMO, TORCHSCRIPT, parsed

from s2mlp_deploy.api.adopting import runtime
from s2mlp_deploy.recognition.onnx_measuring import Measuring


def image(batch: int) -> dict[str, Any]:
    return {"x": np.ones((batch, 6, 5, 4), np.float32)}


@pytest.mark.parametrize(
    ("text", "table", "shape", "moved"),
    [(DYNAMO, "places", (5, 1), "moved"), (TORCHSCRIPT, "table", (3, 5, 5, 2, 4), "upper")],
    ids=["dynamo", "torchscript"],
)
@pytest.mark.parametrize("inferred", [True, False])
def test_nothing_is_run_but_what_is_computed_from_sizes(monkeypatch, text, table, shape, moved, inferred):
    parts = []

    def spy(model: ir.Model) -> Any:
        parts.append({node.op_type for node in model.graph})
        return runtime(model)

    measuring = Measuring(ir.from_proto(parsed(text)), spy, [moved, "b"], [table], image(2))
    if not inferred:  # Then the network is.
        monkeypatch.setattr(measuring, "_inferred", lambda _: {})
    shapes, values = measuring.at(image(3))
    assert shapes["b"] == (3, 6, 5, 4)
    assert values[table].shape == shape
    assert values[table].max() == 5
    assert ("Relu" in parts[-1]) == (not inferred)
    assert shapes[moved] == {"moved": (5, 3, 5, 4), "upper": (3, 5, 5, 2)}[moved]


def test_a_shape_that_the_input_decides_is_run():
    text = """<ir_version: 10, opset_import: ["": 20]> net (float[N,4] x) => (int64[2,K] y) { y = NonZero(x) }"""
    measuring = Measuring(ir.from_proto(parsed(text)), runtime, ["y"], [], {"x": np.eye(2, 4, dtype=np.float32)})
    assert measuring.at({"x": np.eye(3, 4, dtype=np.float32)}) == ({"y": (2, 3)}, {})
