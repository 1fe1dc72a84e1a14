"""Makes the artifact of a release, which every later one must open: ``python tests/released/make_artifact.py``.

It is a tiny network with random weights, its files in float32 and int8, evidence of every kind, the tensors of a
comparison of layers, an image and what is predicted for it. Run it once, when the version of the release is set; what
an earlier release made is never made again.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import typer
from PIL import Image

from s2mlp_deploy import __version__, api
from s2mlp_deploy.artifact import EVIDENCE
from s2mlp_deploy.cli.main import app
from s2mlp_deploy.evidence.engine_layers import EngineLayers
from s2mlp_deploy.evidence.store import KINDS, encode, read_evidence

HERE = Path(__file__).resolve().parent
NETWORK = {"dims": (8,), "depths": (1,), "patches": (2,), "image_size": (8, 8), "classes": 3}
DESCRIPTION = {
    "architecture": "s2mlpv2_nano",
    "size": [8, 8],
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "interpolation": "bilinear",
    "classes": ["red", "green", "blue"],
}
LAYERS = 12
LARGEST = 300_000
"""Bytes of all of it: it stays in the repository for good."""


def write_images(folder: Path) -> Path:
    """32 pictures, 8 x 8, of noise on one of three colours; a folder for each."""
    random = np.random.default_rng(0)
    for number in range(32):
        colour = number % 3
        pixels = random.integers(0, 100, (8, 8, 3), dtype=np.uint8)
        pixels[..., colour] += 120
        home = folder / DESCRIPTION["classes"][colour]
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(home / f"{number:02}.png")
    return folder


def commands() -> dict[str, list[str]]:
    """The options of every command of the command line."""
    found = typer.main.get_command(app).commands
    return {name: sorted(option for part in found[name].params for option in part.opts) for name in found}


def make(output: Path, scratch: Path) -> None:
    """Makes it.

    Args:
        output: The folder of the release.
        scratch: A folder for what does not stay.
    """
    artifact, layers = output / "artifact", output / "layers"
    images = write_images(scratch / "images")
    description = scratch / "preprocess.json"
    description.write_text(json.dumps(DESCRIPTION))
    captured = api.capture(api.load("s2mlpv2_nano", overrides=NETWORK, preprocess=description))
    precision = api.PrecisionOptions(precisions=("int8",), data=images, samples=32, threads=1)
    api.export(captured, artifact, precision=precision)
    files = sorted(artifact.glob("*.onnx"))
    api.parity(captured, files, data=images)
    api.parity_per_layer(captured, [artifact / "model.fp32.onnx"], data=images, samples=1, save=layers)
    api.bench([artifact], options=api.BenchOptions(launches=1, rounds=2, quantiles=False))
    api.tune(artifact, api.TuneOptions(minutes=0.4, threads=1))
    engine = api.build(artifact, engine="tensorrt-rtx", targets=("sm89",))
    # The engine itself is of one version of its library: what stays is the record of it.
    (artifact / engine.engine).unlink()
    for path in artifact.glob("*.engine*"):
        path.unlink()
    # The layers of this small engine take as much as all the rest: the first of them say what a layer is.
    for saved in read_evidence(artifact).of(EngineLayers):
        first = dataclasses.replace(saved.record, layers=saved.record.layers[:LAYERS])
        (artifact / EVIDENCE / saved.name).write_bytes(encode(first))
    for name in ("report.html", "calibration.npz"):
        (artifact / name).unlink(missing_ok=True)
    shutil.copy(images / "green" / "01.png", output / "image.png")
    (item,) = api.predict(artifact, output / "image.png", precision="fp32", top=3)
    versions = {kind.name: kind.version for kind in KINDS}
    expected = {
        "prediction": dict(zip(item.classes, item.probabilities, strict=True)),
        "schemas": {"manifest": api.read_manifest(artifact).schema_version} | versions,
        "commands": commands(),
        "api": list(api.__all__),
    }
    (output / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    found = read_evidence(artifact)
    if lacking := {kind.record for kind in KINDS} - {type(saved.record) for saved in found.saved}:
        raise SystemExit(f"no evidence of {lacking}")


def main() -> None:
    """Makes the folder of this version, which must not exist."""
    output = HERE / __version__
    if output.exists():
        raise SystemExit(f"{output} exists: what a release made is never made again")
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CACHE_HOME"] = scratch
        staged = Path(scratch) / "release"
        staged.mkdir()
        make(staged, Path(scratch))
        size = sum(path.stat().st_size for path in staged.rglob("*") if path.is_file())
        if size > LARGEST:
            for path in sorted(staged.rglob("*")):
                print(f"{path.stat().st_size:10,} {path.relative_to(staged)}")
            raise SystemExit(f"{size:,} bytes are more than {LARGEST:,}")
        shutil.copytree(staged, output, ignore=shutil.ignore_patterns(".*"))
    print(f"{output}: {size:,} bytes")


if __name__ == "__main__":
    main()
