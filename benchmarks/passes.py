"""What the graph passes gain, one after the other, on both engines.

    python benchmarks/passes.py s2mlpv2_small_7 --files build/passes --seconds 60

One thread, process CPU time, candidates in turn; ratios within the run, over the float32 graph without passes. Files
in the folder are measured as they are, so that a machine can be quiet while it measures. int8 files are calibrated
on noise, which latencies do not depend on. The engines are set as the toolkit sets them: exact where a processor
without VNNI would cut sums of int8 products off.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from unittest import mock

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from s2mlp_deploy import api
from s2mlp_deploy.calibration.observe import Observer, Statistics
from s2mlp_deploy.engines.registry import open_graph_file
from s2mlp_deploy.export import faster
from s2mlp_deploy.export.forms import FORMS
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.export.write import save_model
from s2mlp_deploy.models.registry import get_model
from s2mlp_deploy.precision.derive import derive
from s2mlp_deploy.precision.quantizable import observed_values, select_ops

Run = Callable[[], object]
KINDS = ("fp32", "int8", "int8 --reduce-range")
FIRST = "without"


def graphs(model: str, layout: str) -> Iterator[tuple[str, ir.Model]]:
    """The float32 graph without passes, and with one more each time; steps that change nothing are left out."""
    with mock.patch.object(faster, "FASTER", ()):
        captured = api.capture(api.load(model, overrides={"layout": layout}))
    graph = captured.canonical.clone()
    forms = ("slice-concat", "row-gather" if layout == "channels-last" else "grouped-conv")
    steps = [FIRST]
    yield FIRST, lower_shifts(graph, FORMS[forms[0]])[0]
    if layout == "channels-first":
        yield forms[1], lower_shifts(graph, FORMS[forms[1]])[0]
    for kind in faster.FASTER:
        if kind()(graph).modified:
            steps.append(f"+ {kind.__name__}")
            yield steps[-1], lower_shifts(graph, FORMS[forms[0]])[0]
    if len(steps) > 1:
        yield f"all, {forms[1]}", lower_shifts(graph, FORMS[forms[1]])[0]


def write(model: str, layout: str, folder: Path, image: NDArray[np.float32]) -> None:
    """The files of a model and layout, unless there are some."""
    if any(folder.glob(f"{model}, {layout}, *.onnx")):
        return
    for number, (name, graph) in enumerate(graphs(model, layout)):
        observer = Observer(graph, observed_values(select_ops(graph)), threads=1)
        seen = observer.update(Statistics(), {"input": image})
        for kind in KINDS:
            made = graph
            if kind != "fp32":
                made = derive(graph, "int8", seen, method="minmax", reduce_range=kind != "int8").model
            save_model(made, folder / f"{model}, {layout}, {number} {name}.{kind}.onnx")


def interleaved(runs: Mapping[Path, Run], seconds: float) -> dict[Path, list[float]]:
    """Milliseconds of process time."""
    times: dict[Path, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        for _ in range(3):
            run()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name, run in runs.items():
            start = time.process_time()
            run()
            times[name].append(1e3 * (time.process_time() - start))
    return times


def measure(paths: list[Path], engine: str, image: NDArray[np.float32], seconds: float) -> None:
    """Prints a line for each file."""
    opened = {path: open_graph_file(path, engine, threads=1) for path in paths}
    runs: dict[Path, Run] = {path: lambda one=one: one.run({"input": image}) for path, one in opened.items()}
    times = interleaved(runs, seconds)
    base = times[paths[0]]
    for path, taken in times.items():
        model, layout, name = path.stem.split(", ", 2)
        name, kind = name.split(" ", 1)[1].rsplit(".", 1)
        paired = statistics.median(one / other for one, other in zip(taken, base, strict=True))
        low, middle = min(taken), statistics.median(taken)
        print(
            f"| {model} | {engine} | {layout} | {kind} | {name} | {low:.1f} | {middle:.1f} "
            f"| {low / min(base):.3f} | {middle / statistics.median(base):.3f} | {paired:.3f} |",
            flush=True,
        )
    print(f"({len(base)} rounds)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--files", type=Path, required=True)
    parser.add_argument("--layouts", nargs="+", default=["channels-last", "channels-first"])
    parser.add_argument("--engines", nargs="+", default=["onnxruntime", "openvino"])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument("--seconds", type=float, default=60, help="For each engine and layout; 0 only writes.")
    args = parser.parse_args()
    args.files.mkdir(parents=True, exist_ok=True)
    height, width = get_model(args.model).config.image_size
    image = np.random.default_rng(0).standard_normal((1, 3, height, width), dtype=np.float32)
    for layout in args.layouts:
        write(args.model, layout, args.files, image)
    if not args.seconds:
        return
    print("| model | engine | layout | precision | passes | min ms | median ms | min | median | paired |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for engine in args.engines:
        for layout in args.layouts:
            found = [sorted(args.files.glob(f"{args.model}, {layout}, *.{kind}.onnx")) for kind in args.kinds]
            measure([path for paths in found for path in paths], engine, image, args.seconds)


if __name__ == "__main__":
    main()
