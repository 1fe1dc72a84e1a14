"""Graphs of other exporters through quantize: files that load, or words."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from foreign_graphs import GRAPHS
from onnxruntime import InferenceSession
from tiny_artifact import make_manifest

from s2mlp_deploy import api
from s2mlp_deploy.artifact import ArtifactWriter, TensorInfo, verify_file
from s2mlp_deploy.errors import InputError


def infos(values) -> tuple[TensorInfo, ...]:
    found = []
    for item in values:
        kind = item.type.tensor_type
        shape = tuple(dim.dim_param or dim.dim_value or "?" for dim in kind.shape.dim)
        found.append(TensorInfo(item.name, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name, shape))
    return tuple(found)


@pytest.mark.parametrize("precision", ["fp16", "int8", "fp8"])
@pytest.mark.parametrize("kind", GRAPHS)
def test_a_foreign_graph_becomes_files_or_words(tmp_path, kind, precision):
    made = GRAPHS[kind]()
    constants = {tensor.name for tensor in made.graph.initializer}
    inputs = infos(item for item in made.graph.input if item.name not in constants)
    manifest = make_manifest(classes=None, inputs=inputs, outputs=infos(made.graph.output))
    directory = tmp_path / "artifact"
    with ArtifactWriter(directory) as writer:
        (writer.staging / "model.fp32.onnx").write_bytes(made.SerializeToString())
        writer.commit(manifest, {"model.fp32.onnx": ("fp32", len(made.graph.node))})
    random = np.random.default_rng(0)
    shape = [size if isinstance(size, int) else 8 for size in inputs[0].shape[1:]] or [4, 8]
    np.save(tmp_path / "data.npy", random.standard_normal((16, *shape)).astype(np.float32))
    refusal = None
    try:
        written = api.quantize(directory, api.PrecisionOptions(precisions=[precision], data=tmp_path / "data.npy"))
    except InputError as error:
        refusal = error
    if refusal is not None:
        assert refusal.problem
        assert refusal.fix
        return
    for record in written.manifest.files:
        InferenceSession(verify_file(directory, record))
