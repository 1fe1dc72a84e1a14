"""What each graph pass gains, alone and together, on both engines.

    python benchmarks/passes.py s2mlpv2_small_7 --files build/passes --seconds 90

One thread, process CPU time, candidates in turn; ratios within the run, over the graph without the passes. Files that
are in the folder already are measured as they are, so that a machine can be quiet while it measures. int8 is
``int8`` in ONNX Runtime and ``int8-trt`` in OpenVINO, calibrated on noise, which latencies do not depend on.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy import api
from s2mlp_deploy.export import canonical
from s2mlp_deploy.export.forms import FORMS
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.export.write import save_model
from s2mlp_deploy.models.registry import get_model
from s2mlp_deploy.precision.derive import derive_on

Run = Callable[[], object]
PASSES = {kind.__name__: kind for kind in canonical.FASTER}
INT8 = {"onnxruntime": "int8", "openvino": "int8-trt"}


def variants() -> Mapping[str, tuple[tuple[type, ...], str]]:
    """Passes and form by name."""
    found: dict[str, tuple[tuple[type, ...], str]] = {"without": ((), "slice-concat")}
    found.update({name: ((kind,), "slice-concat") for name, kind in PASSES.items()})
    found["row-gather"] = ((), "row-gather")
    found["all"] = (tuple(PASSES.values()), "slice-concat")
    found["all, row-gather"] = (tuple(PASSES.values()), "row-gather")
    found["all, grouped-conv"] = (tuple(PASSES.values()), "grouped-conv")
    return found


def write(model: str, layout: str, folder: Path, image: NDArray[np.float32], only: list[str]) -> None:
    """The files that are not there yet."""
    captured: dict[tuple[type, ...], api.CapturedSource] = {}
    for name, (passes, form) in variants().items():
        paths = {kind: folder / f"{model}, {layout}, {name}.{kind}.onnx" for kind in ("fp32", *INT8.values())}
        if (only and name not in only) or all(path.exists() for path in paths.values()):
            continue
        if passes not in captured:
            with mock.patch.object(canonical, "FASTER", passes):
                captured[passes] = api.capture(api.load(model, overrides={"layout": layout}))
        graph, _ = lower_shifts(captured[passes].canonical, FORMS[form])
        save_model(graph, paths["fp32"])
        for kind in INT8.values():
            save_model(derive_on(graph, kind, [{"input": image}]), paths[kind])


def opened(engine: str, path: Path, image: NDArray[np.float32]) -> Run:
    """One inference of a file, on one thread."""
    if engine == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, {"input": image})
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(core.read_model(path), "CPU", settings).create_infer_request()
    return lambda: request.infer([image])


def interleaved(runs: Mapping[str, Run], seconds: float) -> dict[str, list[float]]:
    """Milliseconds of process time."""
    times: dict[str, list[float]] = {name: [] for name in runs}
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--files", type=Path, required=True)
    parser.add_argument("--layouts", nargs="+", default=["channels-last", "channels-first"])
    parser.add_argument("--engines", nargs="+", default=list(INT8))
    parser.add_argument("--precisions", nargs="+", default=["fp32", "int8"])
    parser.add_argument("--variants", nargs="+", default=[])
    parser.add_argument("--seconds", type=float, default=90, help="For each table; 0 only writes.")
    args = parser.parse_args()
    args.files.mkdir(parents=True, exist_ok=True)
    height, width = get_model(args.model).config.image_size
    image = np.random.default_rng(0).standard_normal((1, 3, height, width), dtype=np.float32)
    for layout in args.layouts:
        write(args.model, layout, args.files, image, args.variants)
    if not args.seconds:
        return
    print("| model | engine | layout | precision | passes | min ms | median ms | min | median | paired |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for engine in args.engines:
        for layout in args.layouts:
            for precision in args.precisions:
                kind = INT8[engine] if precision == "int8" else precision
                paths = {name: args.files / f"{args.model}, {layout}, {name}.{kind}.onnx" for name in variants()}
                runs = {name: opened(engine, path, image) for name, path in paths.items() if path.exists()}
                times = interleaved(runs, args.seconds)
                base = times["without"]
                for name, taken in times.items():
                    paired = statistics.median(one / other for one, other in zip(taken, base, strict=True))
                    low, middle = min(taken), statistics.median(taken)
                    print(
                        f"| {args.model} | {engine} | {layout} | {kind} | {name} | {low:.1f} | {middle:.1f} "
                        f"| {low / min(base):.3f} | {middle / statistics.median(base):.3f} | {paired:.3f} |",
                        flush=True,
                    )
                print(f"({len(base)} rounds)", flush=True)


if __name__ == "__main__":
    main()
