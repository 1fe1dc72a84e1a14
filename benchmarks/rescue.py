"""ONNX files of stock exporters rescued without their source: shifts found, nodes, seconds, memory, latency.

    python benchmarks/rescue.py file stock.onnx --source s2mlpv2_small_7
    python benchmarks/rescue.py gallery --exporter torchscript

`file` rescues one file and times it beside itself and beside our own export of the source. `stock.onnx` is made by
`python benchmarks/rescue.py stock s2mlpv2_small_7 stock.onnx`: the zoo's network with its shifts written in place.
`gallery` exports every module of the test gallery by torch's own exporter and rescues the files.
"""

from __future__ import annotations

import argparse
import collections
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from gallery_case import Case, explains
from gallery_flow import NEAR_MISSES, SHIFTS, node_counts, session
from inplace import inplace_shifts

from s2mlp_deploy import api
from s2mlp_deploy.api.adopting import adopt_model
from s2mlp_deploy.bench.timing import interleaved
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.recognition.onnx_ops import MOVES
from s2mlp_deploy.sources.onnx_file import open_onnx
from s2mlp_deploy.torch_internals import quiet_exporter

COUNTED = ("ScatterND", "Transpose")


def stock(module: torch.nn.Module, inputs: Sequence[torch.Tensor], path: Path, exporter: str) -> None:
    """What a user gets who gives a module to torch.onnx.export as it is."""
    with warnings.catch_warnings(), quiet_exporter(), torch.no_grad():
        warnings.simplefilter("ignore")
        if exporter == "torchscript":
            torch.onnx.export(module.eval(), tuple(inputs), path, dynamo=False, opset_version=17)
        else:
            program = torch.onnx.export(module.eval(), tuple(inputs), dynamo=True, external_data=False, verbose=False)
            assert program is not None
            program.save(path)


def make(args: argparse.Namespace) -> None:
    source = api.load(args.source)
    started = time.perf_counter()
    with inplace_shifts():
        stock(source.module, [x[:1] for x in source.example_tensors], args.output, args.exporter)
    print(f"{args.output}: {time.perf_counter() - started:.0f} s")


def one_file(args: argparse.Namespace) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started = time.perf_counter()
    model = open_onnx(args.file, overrides={})
    found = adopt_model(model)
    rescued, records = lower_shifts(found.model, others=True)
    seconds, peak = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    graphs: dict[str, ir.Model] = {"the file": model.model, "rescued": rescued}
    if args.source:
        captured = api.capture(api.load(args.source))
        graphs["own export"], _ = lower_shifts(captured.canonical)
    print(f"{len(records)} shifts, {len(found.near_misses)} other movements; {seconds:.1f} s, ", end="")
    print(f"peak {peak:.0f} MB ({before:.0f} MB before anything was read)\n")
    sessions = {name: session(graph) for name, graph in graphs.items()}
    feeds = model.feeds(dict.fromkeys(model.sizes, 1))

    def run(name: str) -> list[Any]:
        runner = sessions[name]
        names = [value.name for value in runner.get_inputs()]
        return list(runner.run(None, dict(zip(names, feeds.values(), strict=True))))

    wanted = run("the file")[0]
    times = interleaved({name: lambda name=name: run(name) for name in graphs}, rounds=args.rounds, warmup=3)
    heads = ["graph", "nodes", *COUNTED, "largest difference", "min ms", "median ms"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name, graph in graphs.items():
        counts, timing = node_counts(graph), times[name]
        # Two exports of one network have the same weights, and other names.
        difference = float(np.abs(run(name)[0] - wanted).max())
        cells = [name, len(graph.graph), *(counts[op] for op in COUNTED), f"{difference:.1e}"]
        print(f"| {' | '.join(map(str, cells))} | {timing.min:.1f} | {timing.median:.1f} |")
    if "own export" in times:
        print(f"\nrescued over own export: {times['rescued'].min / times['own export'].min:.3f}")


def rescue(case: Case, path: Path, exporter: str) -> tuple[str, list[int]]:
    """A case's verdict, and its counted operators before and after; "wrong" where an output differs."""
    inputs = case.inputs()
    stock(case.module(), [x.clone() for x in inputs], path, exporter)
    model = open_onnx(path, overrides={})
    found = adopt_model(model)
    lowered, _ = lower_shifts(found.model, others=True)
    counts = [node_counts(graph)[op] for op in COUNTED for graph in (model.model, lowered)]
    feeds = dict(zip(model.feeds({}), (x.numpy() for x in inputs), strict=False))
    pairs = [session(graph).run(None, feeds) for graph in (model.model, lowered)]
    for a, b in zip(*pairs, strict=True):
        if not (np.array_equal(a, b) if case.exact else np.allclose(a, b, rtol=1e-5, atol=1e-5)):
            return "WRONG", counts
    specs = [shift.spec for shift in found.shifts]
    if not case.expected:
        return ("left" if not specs else "rewritten, equal"), counts
    if any(explains(specs, answer) for answer in (case.expected, *case.also)):
        return "found", counts
    if not any(node.op_type in MOVES for node in model.model.graph):
        return "lost by the exporter", counts
    return ("told otherwise, equal" if specs else "missed"), counts


def gallery(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    totals: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    sums = np.zeros(2 * len(COUNTED), int)
    print(f"onnxruntime {onnxruntime.__version__}, torch {torch.__version__}, exporter {args.exporter}\n")
    heads = [f"{op} {side}" for op in COUNTED for side in ("before", "after")]
    print(f"| module | family | verdict | {' | '.join(heads)} |\n|---|---|---|{'---|' * len(heads)}")
    with tempfile.TemporaryDirectory() as folder:
        for case in (*SHIFTS, *NEAR_MISSES):
            if args.only and case.name not in args.only:
                continue
            try:
                verdict, counts = rescue(case, Path(folder) / "stock.onnx", args.exporter)
                sums += counts
            except Exception as error:
                # Most often the exporter: of deform_conv2d, of operators that it never had.
                verdict, counts = "no file", ["-"] * len(sums)
                print(f"{case.name}: {type(error).__name__}: {str(error).splitlines()[0]}", file=sys.stderr)
            totals["shifts" if case.expected else "near misses"][verdict] += 1
            print(f"| {' | '.join(map(str, [case.name, case.family, verdict, *counts]))} |", flush=True)
    for name, verdicts in totals.items():
        told = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
        print(f"\n{sum(verdicts.values())} {name}: {told}.")
    print("\n" + ", ".join(f"{head}: {count}" for head, count in zip(heads, sums, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    made = commands.add_parser("stock")
    made.add_argument("source")
    made.add_argument("output", type=Path)
    file = commands.add_parser("file")
    file.add_argument("file", type=Path)
    file.add_argument("--source")
    file.add_argument("--rounds", type=int, default=12)
    every = commands.add_parser("gallery")
    every.add_argument("--only", nargs="+", help="names of cases")
    for command in (made, every):
        command.add_argument("--exporter", choices=("dynamo", "torchscript"), default="dynamo")
    for command, run in ((made, make), (file, one_file), (every, gallery)):
        command.set_defaults(run=run)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
