"""Small ONNX graphs written by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

MakeGraph = Callable[..., Path]


@pytest.fixture
def make_graph(tmp_path: Path) -> MakeGraph:
    """Writes a graph of one operator from ``input`` to ``output`` and returns its path."""
    onnx = pytest.importorskip("onnx")

    def make(
        shape: Sequence[int | str],
        *,
        op: str = "Relu",
        domain: str = "",
        name: str = "graph.onnx",
        dtype: int = onnx.TensorProto.FLOAT,
        directory: Path = tmp_path,
    ) -> Path:
        helper = onnx.helper
        imports = [helper.make_opsetid("", 20)] + ([helper.make_opsetid(domain, 1)] if domain else [])
        graph = helper.make_graph(
            [helper.make_node(op, ["input"], ["output"], name="the_node", domain=domain)],
            "graph",
            [helper.make_tensor_value_info("input", dtype, shape)],
            [helper.make_tensor_value_info("output", dtype, shape)],
        )
        model = helper.make_model(graph, opset_imports=imports, ir_version=10)
        model.metadata_props.add(key="who", value="a test")
        path = directory / name
        path.write_bytes(model.SerializeToString())
        return path

    return make
