"""An engine of a graph that is in memory. Needs onnx, which the engines of files do not."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from s2mlp_deploy.choices import GRAPH_ENGINE
from s2mlp_deploy.engines.base import FileEngine
from s2mlp_deploy.engines.registry import open_graph_file
from s2mlp_deploy.files import output_error, scratch_directory


def open_graph(model: ir.Model, *, engine: str = GRAPH_ENGINE, threads: int = 0, **options: Any) -> FileEngine:
    """An engine of a graph, by way of a file: it may be too large for one protobuf message in memory.

    Args:
        model: The graph.
        engine: A name of :data:`~s2mlp_deploy.engines.registry.OF_GRAPHS`.
        threads: On a CPU; 0 lets the engine choose.
        options: What only this engine takes.

    Raises:
        BuildError: The engine cannot load it.
        OutputError: There is no room for the file.
    """
    with scratch_directory() as directory:
        path = directory / "model.onnx"
        try:
            ir.save(model, path, external_data="model.data")
        except OSError as error:
            raise output_error(directory.parent, error) from error
        return open_graph_file(path, engine, threads=threads, **options)
