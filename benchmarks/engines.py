"""Builds engines of models in every form and precision: seconds, memory, sizes, layers, and whether bytes repeat.

    python benchmarks/engines.py s2mlpv2_nano s2mlpv2_small_7 --output benchmarks/engines.md
    python benchmarks/engines.py --artifacts build/nano build/small --output benchmarks/engines.md

Models of the zoo are exported in every form and precision; of an artifact, every ONNX file is built as it is. Each
build runs in a process of its own, twice. No GPU is used: the engines hold no tuned kernels yet, so this says what
building costs and nothing about speed.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from s2mlp_deploy import api
from s2mlp_deploy.artifact import Manifest, read_manifest
from s2mlp_deploy.calibration.observe import Observer, Statistics
from s2mlp_deploy.errors import S2MLPDeployError
from s2mlp_deploy.export.forms import FORMS
from s2mlp_deploy.precision.derive import derive
from s2mlp_deploy.precision.quantizable import observed_values, select_ops

COLUMNS = (
    *("model", "form", "file", "ONNX MB", "weights by type, MB", "engine MB", "layers", "GEMMs"),
    *("build s", "CPU s", "peak MB", "same bytes"),
)
TF32_COLUMNS = (
    *("model", "form", "file", "flags without", "flags with --tf32"),
    *("bytes without", "bytes with", "same bytes"),
)
# VmHWM, not ru_maxrss: the latter begins with what the parent had. What importing costs is taken off.
CHILD = """
import json, sys, time
from s2mlp_deploy import api
from s2mlp_deploy.engines.tensorrt import library
from s2mlp_deploy.engines.tensorrt.flavours import flavour
library.load(flavour(sys.argv[2]))
import onnx_ir
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM"))
before, start = peak(), time.process_time()
options = api.BuildOptions(tf32=sys.argv[4] == "tf32")
record = api.build(
    sys.argv[1], engine=sys.argv[2], targets=sys.argv[5:], output=sys.argv[3], options=options, force=True
)
gemms = {}
for gemm in record.contents.matrix_ops:
    gemms[gemm.precision] = gemms.get(gemm.precision, 0) + 1
print(json.dumps({"seconds": record.seconds, "bytes": record.bytes, "sha256": record.engine_sha256,
                  "layers": record.layers, "gemms": gemms, "flags": record.builder_flags, "peak": peak() - before,
                  "cpu": time.process_time() - start}))
"""


def build(file: Path, engine: str, targets: list[str], *, tf32: bool = False) -> dict[str, Any]:
    """What one build in a process of its own measures."""
    with tempfile.TemporaryDirectory() as folder:
        output = str(Path(folder) / "model.engine")
        arguments = [sys.executable, "-c", CHILD, str(file), engine, output, "tf32" if tf32 else "", *targets]
        done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1]}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def row(model: str, form: str, file: Path, engine: str, targets: list[str]) -> tuple[str, ...]:
    """One row of the table: two builds of one file."""
    # There is no fp8 before compute capability 8.9.
    targets = [target for target in targets if "fp8" not in file.name or int(target.removeprefix("sm")) >= 89]
    first, second = build(file, engine, targets), build(file, engine, targets)
    held = api.inspect_file(file)
    head = (model, form, file.name, f"{held.bytes / 1e6:.1f}", _megabytes(held.weights))
    if "failed" in first:
        return (*head, f"fails: {first['failed']}", *[""] * (len(COLUMNS) - len(head) - 1))
    return (
        *head,
        f"{first['bytes'] / 1e6:.1f}",
        f"{first['layers']}",
        ", ".join(f"{count} {name}" for name, count in first["gemms"].items()),
        f"{min(first['seconds'], second['seconds']):.1f}",
        f"{min(first['cpu'], second['cpu']):.1f}",
        f"{max(first['peak'], second['peak']):.0f}",
        "yes" if first["sha256"] == second.get("sha256") else "no",
    )


def tf32_row(model: str, form: str, file: Path, engine: str, targets: list[str]) -> tuple[str, ...]:
    """One row of the other table: a file with TF32 and without."""
    without, with_it = build(file, engine, targets), build(file, engine, targets, tf32=True)
    flags = [", ".join(made.get("flags", ())) or "none" for made in (without, with_it)]
    same = "yes" if without.get("sha256") == with_it.get("sha256") else "no"
    return (model, form, file.name, *flags, f"{without['bytes']}", f"{with_it['bytes']}", same)


def _megabytes(weights: Mapping[str, int]) -> str:
    return ", ".join(f"{count / 1e6:.2f} {name}" for name, count in weights.items() if count > 5000)


def other_precisions(folder: Path, manifest: Manifest, precisions: list[str]) -> Iterator[Path]:
    """The artifact's graph in other precisions, calibrated on noise: builds do not depend on the ranges."""
    import onnx_ir as ir

    from s2mlp_deploy.export.write import file_metadata, save_model

    model = ir.load(folder / "model.fp32.onnx")
    values = observed_values(select_ops(model))
    info = manifest.inputs[0]
    shape = (4, *(size for size in info.shape if isinstance(size, int)))
    noise = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    statistics = Observer(model, values).update(Statistics(), {info.name: noise})
    for precision in precisions:
        derived = derive(model, precision, statistics, method="minmax")
        described = replace(manifest, precision_exceptions=derived.exceptions)
        derived.model.metadata_props.clear()
        derived.model.metadata_props.update(file_metadata(described, precision))
        save_model(derived.model, folder / derived.file)
        yield folder / derived.file


def files(
    models: list[str], artifacts: list[Path], forms: list[str], precisions: list[str]
) -> Iterator[tuple[str, str, Path]]:
    """Model, form and ONNX file of everything to build; exported files are gone after they were used."""
    for model in models:
        captured = api.capture(api.load(model))
        for form in forms:
            with tempfile.TemporaryDirectory() as folder:
                manifest = api.export(captured, folder, shift_form=form).manifest
                yield model, form, Path(folder) / "model.fp32.onnx"
                for path in other_precisions(Path(folder), manifest, precisions):
                    yield model, form, path
    for directory in artifacts:
        manifest = read_manifest(directory)
        used = ", ".join(sorted({shift.form for shift in manifest.shifts})) or "no shift"
        for record in manifest.files:
            if record.path.endswith(".onnx"):
                yield manifest.source.reference, used, directory / record.path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--artifacts", nargs="*", type=Path, default=[])
    parser.add_argument("--forms", nargs="+", default=list(FORMS))
    parser.add_argument("--precisions", nargs="*", default=["fp16", "int8-trt", "fp8-trt"], help="beside fp32")
    parser.add_argument("--engine", default="tensorrt-rtx")
    parser.add_argument("--targets", nargs="+", default=["sm86", "sm89", "sm120"])
    parser.add_argument("--output", type=Path, help="a Markdown file to write the table to")
    parser.add_argument("--tf32", action="store_true", help="build each file with TF32 and without, instead")
    args = parser.parse_args()
    columns, make = (TF32_COLUMNS, tf32_row) if args.tf32 else (COLUMNS, row)
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    print("\n".join(lines), flush=True)
    try:
        for model, form, file in files(args.models, args.artifacts, args.forms, args.precisions):
            lines.append(f"| {' | '.join(make(model, form, file, args.engine, args.targets))} |")
            print(lines[-1], flush=True)
    except S2MLPDeployError as error:
        sys.exit(f"error: {error}")
    if args.output is not None:
        from s2mlp_deploy.engines.tensorrt.flavours import flavour
        from s2mlp_deploy.engines.tensorrt.library import version_here

        version = version_here(flavour(args.engine))
        args.output.write_text(
            f"# Engines\n\nBuilt without a GPU by {args.engine} {version} for {', '.join(args.targets)}. `build s` "
            "(wall) and `CPU s` are the\nfaster of two builds, `peak MB` the larger beyond the imports; `same bytes` "
            "compares the two engines. MB are 10^6 bytes.\nWall time holds whatever else the machine did: compare CPU "
            "seconds.\n\n"
            f"    {shlex.join(['python', *sys.argv])}\n\n" + "\n".join(lines) + "\n"
        )


if __name__ == "__main__":
    main()
