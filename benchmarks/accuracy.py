"""What precision costs and buys: accuracy on CIFAR-10, latency on ONNX Runtime's CPU provider, calibration itself.

    python benchmarks/accuracy.py table ../shared
    python benchmarks/accuracy.py speed s2mlpv2_nano s2mlpv2_small_7 s2mlp_deep
    python benchmarks/accuracy.py calibration ../shared/data/imagenet_sample

``table`` scores the trained nano network on all 10,000 test images, calibrated on 512 training images, by every method
and placement. float16 graphs are computed with every result rounded to float16. ``speed`` is one thread, process CPU
time, interleaved. ``calibration`` shows that memory does not grow with the number of images.
"""

from __future__ import annotations

import argparse
import functools
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from s2mlp_deploy import api
from s2mlp_deploy.artifact import read_manifest
from s2mlp_deploy.bench.timing import interleaved
from s2mlp_deploy.calibration.observe import Observer, Statistics
from s2mlp_deploy.calibration.ranges import METHODS
from s2mlp_deploy.data.caching import CachedBatches
from s2mlp_deploy.data.dataset import open_data
from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine
from s2mlp_deploy.engines.torch import TorchEngine
from s2mlp_deploy.models.registry import get_model
from s2mlp_deploy.precision.accuracy import Scorer, engine_of
from s2mlp_deploy.precision.budget import keep_budget
from s2mlp_deploy.precision.derive import derive
from s2mlp_deploy.precision.options import is_half
from s2mlp_deploy.precision.placements import PLACEMENTS, Calibrated
from s2mlp_deploy.precision.quantizable import batch_for, observed_values, select_ops
from s2mlp_deploy.precision.sensitivity import layer_sqnr
from s2mlp_deploy.preprocess import Preprocessing

CHECKPOINT = "checkpoints/s2mlpv2_nano_cifar10.safetensors"
ARCHIVE = "data/cifar10_jpeg.tar.xz"


def table(shared: Path, budget: float, images: int | None) -> None:
    source = api.load("s2mlpv2_nano", checkpoint=shared / CHECKPOINT)
    assert source.preprocessing is not None
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        manifest = api.export(source, root).manifest
        path = root / "model.fp32.onnx"
        engine = OnnxRuntimeEngine(path)
        options: dict[str, Any] = {"inputs": engine.inputs, "preprocessing": source.preprocessing}
        train = CachedBatches(open_data(shared / ARCHIVE / "train", samples=512, batch=32, **options))
        test = CachedBatches(open_data(shared / ARCHIVE / "test", samples=images, batch=50, **options))
        scorer = Scorer(engine, test, described="CIFAR-10 test", classes=source.classes)
        model = ir.load(path)
        selection = select_ops(model)
        observer, statistics = Observer(model, observed_values(selection)), Statistics()
        for feeds, _ in train:
            statistics = observer.update(statistics, feeds)
        print(
            f"{scorer.images} test images, {statistics.samples} for calibration, "
            f"{len(selection.ops)} quantizable layers\n"
        )
        print("| graph | top-1 | drop | agreement | SQNR dB | MB |")
        print("|---|---|---|---|---|---|")

        def show(name: str, candidate: Any, size: float) -> None:
            row = scorer.row(candidate, file=name, precision="", size=0, arithmetic="")
            sqnr = f"{row.sqnr:.1f}" if row.sqnr is not None else "exact"
            drop = scorer.reference_score - row.score
            print(
                f"| {name} | {row.score:.2f} | {drop:+.2f} | {row.agreement:.2f} | {sqnr} | {size / 1e6:.1f} |",
                flush=True,
            )

        def derived(precision: str, method: str, keep: frozenset[str] = frozenset()) -> tuple[Any, int]:
            graph = derive(model, precision, statistics, method=method, keep=keep).model
            size = ir.to_proto(graph).ByteSize()
            return engine_of(graph, rounded=is_half(precision)), size

        show("torch", TorchEngine(source.module, source.example_inputs, manifest.inputs, manifest.outputs), 0)
        show("fp32, ONNX Runtime", engine, path.stat().st_size)
        show("fp16", *derived("fp16", "minmax"))
        for precision in PLACEMENTS:
            for method in METHODS:
                show(f"{precision}, {method}", *derived(precision, method))
        for precision in ("int8", "int8-trt"):
            calibrated = Calibrated(statistics.histograms, "minmax")
            costs = layer_sqnr(model, PLACEMENTS[precision].scheme, calibrated, train.first(64))
            search = keep_budget(
                costs,
                lambda keep, precision=precision: scorer.score(derived(precision, "minmax", frozenset(keep))[0]),
                reference=scorer.reference_score,
                max_drop=budget,
                metric=scorer.metric,
            )
            keep = frozenset(layer.layer for layer in search.kept)
            show(f"{precision}, minmax, --max-drop {budget:g} ({len(keep)} kept)", *derived(precision, "minmax", keep))


def speed(models: list[str], layouts: list[str], batches: list[int], rounds: int) -> None:
    print("| model | layout | batch | fp32 ms | int8 ms | int8 / fp32 | int8 GEMM ceiling / fp32 | share of ceiling |")
    print("|---|---|---|---|---|---|---|---|")
    for name in models:
        for layout in layouts:
            with tempfile.TemporaryDirectory() as folder:
                root = Path(folder)
                source = api.load(name, overrides={"layout": layout})
                manifest = api.export(source, root).manifest
                path = root / "model.fp32.onnx"
                shape = [int(size) for size in manifest.inputs[0].shape[1:]]
                data = list(np.random.default_rng(0).standard_normal((16, *shape), dtype=np.float32))
                precision = api.PrecisionOptions(precisions=["int8"], data=data, eval_samples=8)
                api.quantize(root, precision)
                sessions = {file: _session(root / file) for file in ("model.fp32.onnx", "model.int8.onnx")}
                gemms = _gemms(path)
                for batch in batches:
                    image = np.random.default_rng(1).standard_normal((batch, *shape), dtype=np.float32)
                    runs: dict[str, Any] = {
                        file: functools.partial(session.run, None, {"input": image})
                        for file, session in sessions.items()
                    }
                    runs["ceiling"] = _ceiling(gemms, batch)
                    times = interleaved(runs, rounds=rounds * max(1, 8 // batch) if name.endswith("nano") else rounds)
                    fp32, int8, ceiling = (times[key].min for key in (*sessions, "ceiling"))
                    print(
                        f"| {name} | {layout} | {batch} | {fp32:.2f} | {int8:.2f} | {int8 / fp32:.3f} | "
                        f"{ceiling / fp32:.3f} | {ceiling / int8:.0%} |",
                        flush=True,
                    )


def _session(path: Path | bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _gemms(path: Path) -> list[tuple[int, int, int]]:
    """Rows per image, inputs and outputs of every GEMM and convolution."""
    found = []
    for op in select_ops(ir.load(path)).ops:
        shape = [size for size in op.output.shape or () if isinstance(size, int)]
        outputs = op.weights.shape[op.axis]
        found.append((int(np.prod(shape)) // outputs, op.weights.size // outputs, outputs))
    return found


def _ceiling(gemms: list[tuple[int, int, int]], batch: int) -> Any:
    """All GEMMs of the network as MatMulInteger of uint8 by int8, and nothing else."""
    sessions = []
    for rows, inputs, outputs in sorted(set(gemms)):
        weights = np.random.default_rng(0).integers(-127, 128, (inputs, outputs), np.int8)
        graph = helper.make_graph(
            [helper.make_node("MatMulInteger", ["x", "w", "zero"], ["y"])],
            "ceiling",
            [helper.make_tensor_value_info("x", TensorProto.UINT8, [None, inputs])],
            [helper.make_tensor_value_info("y", TensorProto.INT32, [None, outputs])],
            [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.array(128, np.uint8), "zero")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        x = np.random.default_rng(1).integers(0, 256, (rows * batch, inputs), np.uint8)
        sessions.append((gemms.count((rows, inputs, outputs)), _session(model.SerializeToString()), x))

    def run() -> None:
        for count, session, x in sessions:
            for _ in range(count):
                session.run(None, {"x": x})

    return run


def calibration(data: Path, model: str, counts: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        config = get_model(model).config
        size = config.image_size
        preprocess = root / "preprocess.json"
        preprocess.write_text(
            f'{{"size": [{size[0]}, {size[1]}], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}}'
        )
        api.export(model, root / "artifact", preprocess=preprocess)
        print("| model | images | wall s | CPU s | peak MB |\n|---|---|---|---|---|")
        for count in counts:
            start = time.monotonic()
            command = [sys.executable, __file__, "observe", str(root / "artifact"), str(data), str(count)]
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            print(f"| {model} | {count} | {time.monotonic() - start:.1f} | {cpu:.1f} | {out.strip()} |", flush=True)


def observe(artifact: Path, data: Path, count: int) -> None:
    """Calibration alone, in a process of its own whose peak memory it prints."""
    manifest = read_manifest(artifact)
    assert manifest.preprocessing is not None
    model = ir.load(artifact / "model.fp32.onnx")
    values = observed_values(select_ops(model))
    opened = open_data(
        data,
        inputs=manifest.inputs,
        preprocessing=Preprocessing.from_dict(manifest.preprocessing),
        samples=count,
        batch=batch_for(values),
    )
    observer, statistics = Observer(model, values), Statistics()
    for feeds, _ in CachedBatches(opened):
        statistics = observer.update(statistics, feeds)
    assert statistics.samples == count
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("table")
    one.add_argument("shared", type=Path)
    one.add_argument("--budget", type=float, default=0.05)
    one.add_argument("--images", type=int, help="score on so many test images; default: all 10,000")
    two = commands.add_parser("speed")
    two.add_argument("models", nargs="+")
    two.add_argument("--layouts", nargs="+", default=["channels-last", "channels-first"])
    two.add_argument("--batches", nargs="+", type=int, default=[1])
    two.add_argument("--rounds", type=int, default=12)
    three = commands.add_parser("calibration")
    three.add_argument("data", type=Path)
    three.add_argument("--model", default="s2mlpv2_small_7")
    three.add_argument("--counts", nargs="+", type=int, default=[32, 128, 256])
    four = commands.add_parser("observe")
    four.add_argument("artifact", type=Path)
    four.add_argument("data", type=Path)
    four.add_argument("count", type=int)
    args = parser.parse_args()
    if args.command == "table":
        table(args.shared, args.budget, args.images)
    elif args.command == "speed":
        speed(args.models, args.layouts, args.batches, args.rounds)
    elif args.command == "calibration":
        calibration(args.data, args.model, args.counts)
    else:
        observe(args.artifact, args.data, args.count)


if __name__ == "__main__":
    main()
