"""Latency of every shift form and layout, against the same network without its shifts and against the stock exporter.

    python benchmarks/forms.py s2mlpv2_small_7 --rounds 15

ONNX Runtime's CPU provider, batch 1, one thread, process CPU time, interleaved; ratios hold within the run.
"""

from __future__ import annotations

import argparse
import collections
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from inplace import inplace_shifts

from s2mlp_deploy import api
from s2mlp_deploy.bench.timing import interleaved
from s2mlp_deploy.export.forms import FORMS
from s2mlp_deploy.models.registry import get_model

NO_SHIFT = {"s2mlp": {"directions": "none"}, "s2mlpv2": {"shift1": "none", "shift2": "none"}}
COUNTED = ("Transpose", "ScatterND", "Slice", "Concat", "Pad", "Conv", "Gather")


def stock_export(model: str, path: Path, opset: int) -> None:
    """What a user gets who gives the in-place network to torch.onnx.export."""
    with inplace_shifts(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = api.load(model, overrides={"layout": "channels-last"})
        with torch.no_grad():
            torch.onnx.export(
                source.module,
                source.example_inputs,
                path,
                dynamo=True,
                opset_version=opset,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                external_data=False,
                verbose=False,
                input_names=["input"],
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--layouts", nargs="+", default=["channels-last", "channels-first"])
    parser.add_argument("--forms", nargs="+", default=list(FORMS))
    parser.add_argument("--no-stock", action="store_true", help="Leave the stock exporter out: it takes minutes.")
    parser.add_argument("--opset", type=int, default=20)
    args = parser.parse_args()

    family = get_model(args.model).config.family
    height, width = get_model(args.model).config.image_size
    image = np.random.default_rng(0).standard_normal((1, 3, height, width), dtype=np.float32)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions: dict[str, onnxruntime.InferenceSession] = {}
    nodes: dict[str, tuple[int, collections.Counter[str]]] = {}

    def add(name: str, path: Path) -> None:
        import onnx

        graph = onnx.load(path, load_external_data=False).graph
        nodes[name] = (len(graph.node), collections.Counter(node.op_type for node in graph.node))
        sessions[name] = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for layout in args.layouts:
            bare = api.capture(api.load(args.model, overrides={"layout": layout, **NO_SHIFT[family]}), opset=args.opset)
            api.export(bare, root / layout)
            add(f"{layout}, no shift", root / layout / "model.fp32.onnx")
            captured = api.capture(api.load(args.model, overrides={"layout": layout}), opset=args.opset)
            for form in args.forms:
                api.export(captured, root / layout / form, shift_form=form)
                add(f"{layout}, {form}", root / layout / form / "model.fp32.onnx")
        if not args.no_stock:
            stock_export(args.model, root / "stock.onnx", args.opset)
            add("channels-last, stock exporter on in-place code", root / "stock.onnx")

    times = interleaved({n: lambda s=s: s.run(None, {"input": image}) for n, s in sessions.items()}, rounds=args.rounds)
    print(f"{args.model}, onnxruntime {onnxruntime.__version__}, torch {torch.__version__}, {args.rounds} rounds\n")
    print("| graph | nodes | " + " | ".join(COUNTED) + " | min ms | median ms | over no shift |")
    print("|---|---|" + "---|" * len(COUNTED) + "---|---|---|")
    for name, timing in times.items():
        base = times[f"{name.split(',')[0]}, no shift"]
        total, counts = nodes[name]
        ops = " | ".join(str(counts[op]) for op in COUNTED)
        ratio = timing.min / base.min
        print(f"| {name} | {total} | {ops} | {timing.min:.1f} | {timing.median:.1f} | {ratio:.3f} |")


if __name__ == "__main__":
    main()
