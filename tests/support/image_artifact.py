"""An artifact of a model of images with three outputs, that needs no torch; its scores are the last of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_graphs
from onnx_graphs import FLOAT, constant, node, value
from proven import prove
from tiny_artifact import make_manifest

from s2mlp_deploy.artifact import ArtifactWriter, Manifest, TensorInfo
from s2mlp_deploy.preprocess import Preprocessing

SIZE, COLOURS, CLASSES = 8, 3, ("red", "green", "blue", "dark")
OUTPUTS = ("features", "means", "logits")
PREPROCESSING = Preprocessing(size=(SIZE, SIZE), mean=(0.0,) * 3, std=(1.0,) * 3, interpolation="bilinear")
# The brightest colour is the class; "dark" wins where all are below a quarter.
_WEIGHTS = np.hstack([np.eye(COLOURS) * 40, np.zeros((COLOURS, 1))]).astype(np.float32)
_BIAS = np.float32([0, 0, 0, 10])


def write_image_artifact(
    directory: Path,
    *,
    outputs: tuple[str, ...] = OUTPUTS,
    batch: int | str = "batch",
    classes: tuple[str, ...] | None = CLASSES,
    bias: np.ndarray = _BIAS,
    beside: bool = False,
    proven: bool = True,
    **changes,
) -> Manifest:
    """Writes it; ``total`` is a further output, of the whole batch, and ``pair`` one of two columns.

    The largest weights may lie beside the graph. Unless it is not ``proven``, parity of the file holds.
    """
    infos = {
        "features": (batch, COLOURS, SIZE, SIZE),
        "means": (batch, COLOURS),
        "logits": (batch, len(CLASSES)),
        "pair": (batch, 2),
        "total": (1, COLOURS),
    }
    made = onnx_graphs.model(
        [
            node("Relu", ["image"], ["features"], "relu"),
            node("ReduceMean", ["features", "places"], ["means"], "pool", keepdims=0),
            node("MatMul", ["means", "w"], ["scores"], "fc"),
            node("Add", ["scores", "b"], ["logits"], "bias"),
            node("Slice", ["means", "zero", "two", "one"], ["pair"], "cut"),
            node("ReduceMean", ["means", "zero"], ["total"], "all", keepdims=1),
        ],
        [value("image", FLOAT, [batch, COLOURS, SIZE, SIZE])],
        [value(name, FLOAT, infos[name]) for name in outputs],
        [
            constant("w", _WEIGHTS),
            constant("b", bias),
            constant("places", [2, 3]),
            constant("zero", [0]),
            constant("two", [2]),
            constant("one", [1]),
        ],
    )
    values = {
        "name": "colours",
        "preprocessing": PREPROCESSING.to_dict(),
        "classes": classes,
        "inputs": (TensorInfo("image", "float32", (batch, COLOURS, SIZE, SIZE)),),
        "outputs": tuple(TensorInfo(name, "float32", infos[name]) for name in outputs),
    }
    manifest = make_manifest(**(values | changes))
    onnx_graphs.describe(made, **onnx_graphs.metadata_of(manifest, "fp32"))
    with ArtifactWriter(directory) as writer:
        path, facts = writer.staging / "model.fp32.onnx", {"model.fp32.onnx": ("fp32", 6)}
        if beside:
            data = f"{path.name}.data"
            onnx.save(made, path, save_as_external_data=True, location=data, size_threshold=70)
            facts[data] = ("fp32", 0)
        else:
            onnx_graphs.save(made, path)
        manifest = writer.commit(manifest, facts)
    if proven:
        prove(directory)
    return manifest


def picture(colour: str) -> np.ndarray:
    """uint8 [12, 10, 3] of one colour; ``dark`` is nearly black."""
    pixels = np.full((12, 10, 3), 20, np.uint8)
    if colour != "dark":
        pixels[..., CLASSES.index(colour)] = 240
    return pixels
