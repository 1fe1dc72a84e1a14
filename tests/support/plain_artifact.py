"""An artifact of a small perceptron that needs no torch: what processes that quantize or build it begin with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_graphs
from onnx_graphs import FLOAT, constant, node, value
from tiny_artifact import make_manifest

from s2mlp_deploy.artifact import ArtifactWriter, Manifest, TensorInfo

TOKENS, INPUTS, HIDDEN, CLASSES = 5, 8, 16, 4


def perceptron(seed: int = 0) -> onnx.ModelProto:
    """Two MatMuls with a Relu between, then the mean over tokens."""
    random = np.random.default_rng(seed)
    weights = [random.standard_normal(shape).astype(np.float32) for shape in ((INPUTS, HIDDEN), (HIDDEN, CLASSES))]
    made = onnx_graphs.model(
        [
            node("MatMul", ["input", "w1"], ["a"], "fc1/MatMul"),
            node("Relu", ["a"], ["b"], "act/Relu"),
            node("MatMul", ["b", "w2"], ["c"], "fc2/MatMul"),
            node("ReduceMean", ["c", "axes"], ["logits"], "pool/ReduceMean", keepdims=0),
        ],
        [value("input", FLOAT, ["batch", TOKENS, INPUTS])],
        [value("logits", FLOAT, ["batch", CLASSES])],
        [constant("w1", weights[0]), constant("w2", weights[1]), constant("axes", [1])],
    )
    return onnx.shape_inference.infer_shapes(made)


def write_plain(directory: Path, seed: int = 0, *, force: bool = False, beside: bool = False) -> Manifest:
    """Writes the artifact of a perceptron with seeded weights, which may lie beside the graph."""
    manifest = make_manifest(
        name=f"perceptron-{seed}",
        classes=tuple("abcd"),
        inputs=(TensorInfo("input", "float32", ("batch", TOKENS, INPUTS)),),
        outputs=(TensorInfo("logits", "float32", ("batch", CLASSES)),),
    )
    made = onnx_graphs.describe(perceptron(seed), **onnx_graphs.metadata_of(manifest, "fp32"))
    with ArtifactWriter(directory, force=force) as writer:
        path, facts = writer.staging / "model.fp32.onnx", {"model.fp32.onnx": ("fp32", 4)}
        if beside:
            data = f"{path.name}.data"
            onnx.save(made, path, save_as_external_data=True, location=data, size_threshold=100)
            facts[data] = ("fp32", 0)
        else:
            onnx_graphs.save(made, path)
        return writer.commit(manifest, facts)


def write_data(path: Path, seed: int = 0, samples: int = 16) -> Path:
    """Samples of the perceptron's input, as ``.npy``."""
    np.save(path, np.random.default_rng(seed).standard_normal((samples, TOKENS, INPUTS)).astype(np.float32))
    return path
