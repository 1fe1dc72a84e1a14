"""The files of ``peers.py``: ours in both layouts and precisions, and what other tools make of the same networks."""

from __future__ import annotations

import collections
import json
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from forms import NO_SHIFT, stock_export
from inplace import inplace_shifts

from s2mlp_deploy import api
from s2mlp_deploy.calibration.observe import Observer, Statistics
from s2mlp_deploy.choices import ShiftFormName
from s2mlp_deploy.export import faster
from s2mlp_deploy.export.write import file_metadata, save_model
from s2mlp_deploy.graph.loading import load_graph
from s2mlp_deploy.models.registry import get_model
from s2mlp_deploy.precision.derive import derive
from s2mlp_deploy.precision.quantizable import observed_values, select_ops

OPSET = 20
SAMPLES = 8
MIXERS = {
    "s2mlpv2_small_7": {"dim": 512, "depth": 15, "tokens": 256, "channels": 2048},
    "s2mlp_deep": {"dim": 544, "depth": 20, "tokens": 272, "channels": 2176},
}
"""Of that family's own proportions, with the multiply-accumulates of the network that it stands beside."""
EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "mlp_mixer.py"

# Run by the peers' own Python, which need not have what this package needs.
SLIM = "import sys, onnxslim; onnxslim.slim(sys.argv[1], sys.argv[2])"
NNCF = """
import sys, nncf, numpy as np, openvino as ov
model = ov.Core().read_model(sys.argv[1])
samples = [sample[None] for sample in np.load(sys.argv[3])]
quantized = nncf.quantize(model, nncf.Dataset(samples), subset_size=len(samples))
ov.save_model(quantized, sys.argv[2], compress_to_fp16=False)
"""


def prepare(model: str, root: Path, python: str | None) -> None:
    """Writes every file that is not there yet; what cannot be made is told and left out of the measurement.

    Args:
        model: Of the zoo.
        root: Where to.
        python: One that has onnxslim and nncf; None leaves out what they make.
    """
    root.mkdir(parents=True, exist_ok=True)
    images = root / "images.npy"
    if not images.is_file():
        np.save(images, np.random.default_rng(1).standard_normal((SAMPLES, 3, 224, 224), dtype=np.float32))
    makers: dict[str, Callable[[Path], object]] = {
        layout: lambda path, layout=layout: ours(model, path, images, layout)
        for layout in ("channels-last", "channels-first")
    }
    makers["plain"] = lambda path: without_passes(model, path)
    makers["grouped-conv"] = lambda path: ours(model, path, images, "channels-first", "grouped-conv")
    for layout in ("channels-last", "channels-first"):
        makers[f"no-shift-{layout}"] = lambda path, layout=layout: api.export(
            model, path, overrides={"layout": layout} | NO_SHIFT[get_model(model).config.family]
        )
    makers["mixer"] = lambda path: api.export(f"{EXAMPLE}:make", path, overrides=MIXERS[model])
    plain = root / "no-shift-channels-last" / "model.fp32.onnx"
    makers["products.json"] = lambda path: path.write_text(json.dumps(products(plain)))
    makers["stock.onnx"] = lambda path: stock_export(model, path, OPSET)
    makers["converted.xml"] = lambda path: convert(model, path)
    if python is not None:
        for source, target in (("stock.onnx", "stock.slim.onnx"), ("channels-last/model.fp32.onnx", "ours.slim.onnx")):
            makers[target] = lambda path, source=source: run(python, SLIM, root / source, path)
        for layout in ("channels-last", "channels-first"):
            file = root / layout / "model.fp32.onnx"
            makers[f"nncf-{layout}.xml"] = lambda path, file=file: run(python, NNCF, file, path, images)
    for name, make in makers.items():
        path = root / name
        if path.exists():
            continue
        print(f"making {path}", flush=True)
        try:
            make(path)
        except Exception as error:  # Of any peer: the others go on.
            print(f"    it cannot be made: {type(error).__name__}: {error}"[:500], flush=True)


def without_passes(model: str, folder: Path) -> None:
    """What an export wrote before there were passes, with every shift as Slice and Concat."""
    passes, faster.FASTER = faster.FASTER, ()
    try:
        captured = api.capture(api.load(model, overrides={"layout": "channels-last"}))
    finally:
        faster.FASTER = passes
    api.export(captured, folder, shift_form="slice-concat")


def ours(model: str, folder: Path, images: Path, layout: str, form: ShiftFormName = "auto") -> None:
    """float32, both int8, and int8 with weights of 7 bits, which OpenVINO computes exactly without VNNI too."""
    captured = api.capture(api.load(model, overrides={"layout": layout}))
    manifest = api.export(captured, folder, shift_form=form).manifest
    graph = load_graph(folder / "model.fp32.onnx").model
    values = observed_values(select_ops(graph))
    statistics = Observer(graph, values, threads=1).update(Statistics(), {manifest.inputs[0].name: np.load(images)})
    for name, precision, reduced in (
        ("int8", "int8", False),
        ("int8-7bit", "int8", True),
        ("int8-trt", "int8-trt", False),
    ):
        derived = derive(graph, precision, statistics, method="percentile", reduce_range=reduced)
        derived.model.metadata_props.clear()
        derived.model.metadata_props.update(file_metadata(manifest, precision))
        save_model(derived.model, folder / f"model.{name}.onnx")


def convert(model: str, path: Path) -> None:
    """OpenVINO's own conversion of in-place code."""
    import torch

    from s2mlp_deploy.engines.openvino import library

    openvino = library.load()
    with inplace_shifts(), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        module = api.load(model, overrides={"layout": "channels-last"}).module.eval()
        converted = openvino.convert_model(module, example_input=torch.zeros(1, 3, 224, 224))
        openvino.save_model(converted, path, compress_to_fp16=False)


def run(python: str, program: str, *arguments: Path) -> None:
    done = subprocess.run([python, "-c", program, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no word"])[-1])


def products(file: Path) -> list[tuple[tuple[int, int, int], int]]:
    """Rows, inner size and columns of products and convolutions with constant weights at batch 1, and how often."""
    import onnx

    model = onnx.load(file)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in onnx.shape_inference.infer_shapes(model, data_prop=True).graph.value_info
    }
    shapes |= {
        value.name: [1, *(d.dim_value for d in value.type.tensor_type.shape.dim[1:])] for value in model.graph.output
    }
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    found: collections.Counter[tuple[int, int, int]] = collections.Counter()
    for node in model.graph.node:
        if node.op_type not in ("MatMul", "Gemm", "Conv") or node.input[1] not in weights:
            continue
        size, result = weights[node.input[1]], shapes[node.output[0]]
        if node.op_type == "Conv":
            found[int(np.prod(result[2:])), int(np.prod(size[1:])), size[0]] += 1
        else:
            columns = result[-1]
            found[int(np.prod(result[:-1])), int(np.prod(size)) // columns, columns] += 1
    return sorted(found.items())
