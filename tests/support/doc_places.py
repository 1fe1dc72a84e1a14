"""What the pages take for granted: the files that readers have of their own, and what an earlier page made."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import onnx_graphs
from onnx_graphs import FLOAT, constant, node, value
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]

_DIGITS = ("build/digits", "build/images", "build/train")
GIVEN: dict[str, tuple[str, ...]] = {
    "how-to/benchmark.md": _DIGITS[::2],
    "how-to/diff.md": _DIGITS[::2],
    "how-to/layer-drifts.md": (*_DIGITS, "build/digits.safetensors"),
    "how-to/predict.md": _DIGITS[:2],
    "how-to/ray.md": _DIGITS[:2],
    "how-to/serve.md": _DIGITS[:2],
    "how-to/triton.md": _DIGITS[:1],
    "how-to/tune.md": _DIGITS[:1],
    "how-to/onnxruntime.md": _DIGITS[:1],
    "how-to/openvino.md": (*_DIGITS[:2], "build/digits.safetensors"),
    "how-to/trtexec.md": ("vendor.onnx", "images", "pre.json"),
    "reference/data.md": _DIGITS[:2],
    "reference/preprocessing.md": ("build/digits.safetensors", "build/digits.json"),
    "reference/report.md": ("build/digits", "build/digits.safetensors"),
    "explanation/precision.md": _DIGITS[:1],
}
"""By page, below docs/, what its folder holds besides a copy of ``examples/``."""

_LAY_OUT = "python examples/digits.py"
COMMANDS: dict[str, str] = {
    "build/images": _LAY_OUT,
    "build/train": _LAY_OUT,
    "build/digits.safetensors": _LAY_OUT,
    "build/digits.json": _LAY_OUT,
    "build/digits": f"""{_LAY_OUT}
        s2mlp-deploy export s2mlpv2_nano --checkpoint build/digits.safetensors --output build/digits
        s2mlp-deploy parity s2mlpv2_nano build/digits --data build/images --samples 200""",
}
"""What commands of ``docs/get-started.md`` make."""


def _folder_of_images(folder: Path) -> None:
    """64 small pictures in a folder for each class of CIFAR-10: coloured blots, told apart by no network."""
    random = np.random.default_rng(0)
    for index in range(64):
        coarse = random.integers(0, 256, (5, 5, 3), np.uint8)
        picture = Image.fromarray(coarse).resize((32, 32), Image.Resampling.BICUBIC)
        place = folder / CLASSES[index % len(CLASSES)] / f"{index:03}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        picture.save(place)


def _description(file: Path) -> None:
    file.write_text('{"size": [224, 224], "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}\n')


def _vendors_network(file: Path) -> None:
    """A small classifier of images of 224 x 224, with names as torch's exporter gives them."""
    random = np.random.default_rng(0)
    shapes = {"stem": (64, 3, 32, 32), "fc": (64, 64), "head": (64, 10)}
    weights = [constant(name, random.normal(0, 0.05, shape).astype(np.float32)) for name, shape in shapes.items()]
    nodes = [
        node("Conv", ["image", "stem"], ["c"], "/stem/Conv", strides=[32, 32]),
        node("Reshape", ["c", "sizes"], ["r"], "/Reshape"),
        node("Transpose", ["r"], ["t"], "/Transpose", perm=[0, 2, 1]),
        node("MatMul", ["t", "fc"], ["a"], "/fc/MatMul"),
        node("Relu", ["a"], ["b"], "/act/Relu"),
        node("ReduceMean", ["b", "axes"], ["m"], "/ReduceMean", keepdims=0),
        node("MatMul", ["m", "head"], ["scores"], "/head/MatMul"),
    ]
    inputs, outputs = [value("image", FLOAT, ["batch", 3, 224, 224])], [value("scores", FLOAT, ["batch", 10])]
    constants = [*weights, constant("sizes", [0, 64, 49]), constant("axes", [1])]
    onnx_graphs.save(onnx_graphs.model(nodes, inputs, outputs, constants), file)


MADE: dict[str, Callable[[Path], None]] = {
    "images": _folder_of_images,
    "pre.json": _description,
    "vendor.onnx": _vendors_network,
}
"""Files and folders, by what writes them."""


READ_ONLY = ("build/images", "build/train")
"""Thousands of files that no command writes to: linked, not copied."""


class Workshop:
    """Makes what pages take for granted, each thing once, in a folder of its own."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self._folder, self._env = folder, env
        lay_out(folder)

    def give(self, names: Iterable[str], place: Path) -> None:
        """Copies things into a page's folder."""
        for name in names:
            thing, there = self._made(name), place / name
            there.parent.mkdir(parents=True, exist_ok=True)
            if name in READ_ONLY:
                there.symlink_to(thing)
            elif thing.is_dir():
                shutil.copytree(thing, there)
            else:
                shutil.copy(thing, there)
                if thing.suffix == ".safetensors" and thing.with_suffix(".json").exists():
                    shutil.copy(thing.with_suffix(".json"), there.with_suffix(".json"))

    def _made(self, name: str) -> Path:
        thing = self._folder / name
        if not thing.exists():
            thing.parent.mkdir(parents=True, exist_ok=True)
            if name in MADE:
                MADE[name](thing)
            else:
                done = subprocess.run(
                    ["bash", "-e", "-c", COMMANDS[name]],
                    cwd=self._folder,
                    env=self._env,
                    capture_output=True,
                    text=True,
                )
                assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
        return thing


def lay_out(folder: Path) -> Path:
    """A folder like the checkout, for commands that write: copies of what is small, links to what is only read."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("build", "__pycache__"))
    for name in ("s2mlp_deploy", "tests", "docs", "benchmarks", "README.md", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    return folder
