"""An engine of a graph that is in memory. Needs onnx, which the engines of files do not."""

from __future__ import annotations

import onnx_ir as ir

from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine
from s2mlp_deploy.files import output_error, scratch_directory


def open_graph(model: ir.Model, *, threads: int = 0) -> OnnxRuntimeEngine:
    """ONNX Runtime's engine of a graph, by way of a file: it may be too large for one protobuf message in memory.

    Args:
        model: The graph.
        threads: Of ONNX Runtime; 0 lets it choose.

    Raises:
        BuildError: ONNX Runtime cannot load it.
        OutputError: There is no room for the file.
    """
    with scratch_directory() as directory:
        path = directory / "model.onnx"
        try:
            ir.save(model, path, external_data="model.data")
        except OSError as error:
            raise output_error(directory.parent, error) from error
        return OnnxRuntimeEngine(path, threads=threads)
