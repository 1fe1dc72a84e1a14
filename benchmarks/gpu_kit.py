"""What ``gpu.py`` takes to a machine that may have nothing but numpy and torch: files, references, an engine.

    python benchmarks/gpu_kit.py KIT --shared ../shared

It exports each network in every form and without its shifts, in float32, float16 and int8, and says what a CPU makes of
the first images with each file. Weights of equal bytes are kept once, in one file beside the graphs: forms share them.
With ``--shared`` (a checkpoint, and CIFAR-10 as JPEG) it also holds test images with the scores of float32 and of the
simulation of float16; where TensorRT-RTX is installed, an engine built for sm80 as well.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch
from onnx import numpy_helper
from onnx.external_data_helper import set_external_data
from torch.utils._python_dispatch import TorchDispatchMode

from s2mlp_deploy import api
from s2mlp_deploy.data.dataset import open_data
from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine
from s2mlp_deploy.export.forms import FORMS
from s2mlp_deploy.models.registry import configure, get_model
from s2mlp_deploy.precision.accuracy import engine_of

sys.path.insert(0, str(Path(__file__).resolve().parent))

from gpu_bench import NONE, REFERENCED, images

NO_SHIFT = {"s2mlp": {"directions": "none"}, "s2mlpv2": {"shift1": "none", "shift2": "none"}}
PRECISIONS = ("fp32", "fp16", "int8", "int8-trt")
CHECKPOINT, ARCHIVE = "checkpoints/s2mlpv2_nano_cifar10.safetensors", "data/cifar10_jpeg.tar.xz"
TRAINED = "s2mlpv2_nano"
SMALLEST, PAGE = 1024, 4096
"""Bytes of weights that are worth sharing, and where they begin in the file: runtimes map it into memory."""


def shifted_elements(module: Any, example: Any) -> int:
    """How many elements the shifts of a network write, for this input."""

    class Count(TorchDispatchMode):
        total = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            if function.namespace == "s2mlp":
                Count.total += result.numel()
            return result

    with torch.no_grad(), Count():
        module(example)
    return Count.total


class SharedWeights:
    """One file of weights for many graphs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offsets: dict[str, int] = {}
        path.write_bytes(b"")

    def add(self, graph: Path, target: Path) -> None:
        """Copies a graph, its weights into the shared file."""
        model = onnx.load(graph)
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor)
            if values.nbytes < SMALLEST:
                continue
            data = numpy_helper.from_array(values).raw_data
            key = hashlib.sha256(data).hexdigest()
            if key not in self._offsets:
                with self.path.open("ab") as stream:
                    stream.write(bytes(-stream.tell() % PAGE))
                    self._offsets[key] = stream.tell()
                    stream.write(data)
            tensor.raw_data = data
            set_external_data(tensor, self.path.name, self._offsets[key], len(data))
            for field in ("raw_data", "float_data", "int32_data", "int64_data"):
                tensor.ClearField(field)
        onnx.save(model, target)


class Kit:
    """A kit that is being made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.weights = SharedWeights(folder / "weights.bin")
        self.references: dict[str, np.ndarray] = {}
        packages = {"torch": torch.__version__, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
        self.contents: dict[str, Any] = {"made_with": packages, "files": [], "engines": []}

    def add(self, model: str, form: str, captured: Any, source: Any, overrides: dict[str, Any]) -> Path:
        """One network in one form and all precisions; returns the artifact, which lies in the kit until it is saved."""
        shape = tuple(source.example_inputs[0].shape[1:])
        precision = api.PrecisionOptions(["fp16", "int8"], data=list(images(shape, 16)), eval_samples=REFERENCED)
        folder = self.folder / f"{model}.{form.replace(' ', '-')}"
        options = {} if form == NONE else {"shift_form": form}
        result = api.export(captured, folder, precision=precision, **options)
        counts = {
            "macs": configure(get_model(model).config, overrides).macs(),
            "shifted": shifted_elements(source.module, source.example_inputs[0][:1]),
        }
        for name in PRECISIONS:
            path = f"{folder.name}.{name}.onnx"
            self.weights.add(result.file(name), self.folder / path)
            session = onnxruntime.InferenceSession(str(self.folder / path), providers=["CPUExecutionProvider"])
            taken = session.get_inputs()[0].name
            self.references[path] = session.run(None, {taken: images(shape, REFERENCED)})[0]
            told = {"model": model, "form": form, "precision": name, "path": path, "input": taken, "shape": shape}
            self.contents["files"].append({**told, "overrides": overrides, **counts})
        return folder

    def add_engine(self, file: Path, target: str) -> None:
        """An engine of TensorRT-RTX for a GPU that need not be here, with its sidecar."""
        record = api.build(file, engine="tensorrt-rtx", targets=[target])
        for path in (file.parent / record.engine, file.parent / f"{record.engine}.json"):
            shutil.copy(path, self.folder / path.name)
        told = {"path": record.engine, "flavour": record.flavour, "targets": [target]}
        self.contents["engines"].append(told)

    def add_accuracy(self, shared: Path, count: int) -> None:
        """Test images with the scores of float32 and of simulated float16, and the weights for torch."""
        source = api.load(TRAINED, checkpoint=shared / CHECKPOINT)
        assert source.preprocessing is not None
        mean, std = (np.asarray(values, np.float32) for values in (source.preprocessing.mean, source.preprocessing.std))
        with tempfile.TemporaryDirectory() as folder:
            result = api.export(source, Path(folder) / "artifact", precision=api.PrecisionOptions(["fp16"]))
            exact = OnnxRuntimeEngine(result.file("fp32"))
            rounded = engine_of(ir.load(result.file("fp16")), rounded=True)
            kept: dict[str, list[np.ndarray]] = {name: [] for name in ("pixels", "labels", "fp32", "simulated")}
            data = open_data(
                shared / ARCHIVE / "test",
                inputs=exact.inputs,
                preprocessing=source.preprocessing,
                samples=count,
                batch=50,
            )
            for feeds, labels in data:
                given = next(iter(feeds.values()))
                # A quarter of the bytes; what both sides make of them is the same float32.
                pixels = np.rint((given * std[:, None, None] + mean[:, None, None]) * 255).astype(np.uint8)
                again = (pixels.astype(np.float32) / 255 - mean[:, None, None]) / std[:, None, None]
                assert np.abs(again - given).max() < 1e-5
                kept["pixels"].append(pixels)
                kept["labels"].append(np.asarray(labels))
                kept["fp32"].append(next(iter(exact.run({exact.inputs[0].name: again}).values())))
                kept["simulated"].append(next(iter(rounded.run({rounded.inputs[0].name: again}).values())))
            shutil.copy(result.file("fp16"), self.folder / "accuracy.fp16.onnx")
        arrays = {name: np.concatenate(parts) for name, parts in kept.items()}
        np.savez_compressed(self.folder / "accuracy.npz", **arrays, mean=mean, std=std)
        state = {name: value.numpy() for name, value in source.module.state_dict().items()}
        np.savez(self.folder / "accuracy_weights.npz", **state)
        self.contents["accuracy"] = {"model": TRAINED, "images": len(arrays["labels"])}

    def save(self) -> None:
        """Writes what it holds; ``kit.json`` last, so that a kit that was not finished is none."""
        np.savez(self.folder / "references.npz", **self.references)
        (self.folder / "kit.json").write_text(json.dumps(self.contents, indent=1))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kit", type=Path, help="a directory to make")
    parser.add_argument("--models", nargs="+", default=["s2mlpv2_nano", "s2mlpv2_small_7"])
    parser.add_argument("--forms", nargs="+", choices=list(FORMS), default=list(FORMS))
    parser.add_argument("--shared", type=Path, help=f"a directory with {CHECKPOINT} and {ARCHIVE}")
    parser.add_argument("--images", type=int, default=10_000, help="of CIFAR-10's test set")
    args = parser.parse_args(arguments)
    if args.kit.exists():
        print(f"error: {args.kit} exists already; name another directory", file=sys.stderr)
        return 2
    args.kit.mkdir(parents=True)
    kit = Kit(args.kit)
    for model in args.models:
        changes = NO_SHIFT[get_model(model).config.family]
        for forms, overrides in (((NONE,), changes), (args.forms, {})):
            source = api.load(model, overrides=overrides)
            captured = api.capture(source)
            for form in forms:
                print(f"{model}, {form} ...", file=sys.stderr, flush=True)
                artifact = kit.add(model, form, captured, source, overrides)
                if form != NONE and not kit.contents["engines"]:
                    try:
                        kit.add_engine(artifact / "model.fp16.onnx", "sm80")
                    except api.S2MLPDeployError as error:
                        print(f"no engine for sm80: {error.problem}", file=sys.stderr)
                shutil.rmtree(artifact)
    if args.shared is not None:
        print(f"{args.images} images ...", file=sys.stderr, flush=True)
        kit.add_accuracy(args.shared, args.images)
    kit.save()
    print(f"{args.kit}: {sum(path.stat().st_size for path in args.kit.iterdir()) / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
