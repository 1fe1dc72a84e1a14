"""Networks that shift: the file that `--shift-form auto` writes against the stock exporter's of the same module.

    python benchmarks/stock.py --rounds 40

ONNX Runtime's CPU provider, one thread, process CPU time, interleaved. The stock file has fixed sizes, ours a free
batch where the module allows one. Starts are the shortest of several, and read a file of each.
"""

from __future__ import annotations

import argparse
import collections
import gc
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from s2mlp_deploy.bench.timing import interleaved

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from gallery import stock
from gallery_flow import node_counts, run_program, session
from shift_families import FAMILIES, Family

from s2mlp_deploy.capture.program import capture
from s2mlp_deploy.export.canonical import to_canonical
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.export.rewrite import rewrite_shifts
from s2mlp_deploy.export.write import save_model

STARTS = 3


def start(path: Path) -> float:
    """Milliseconds of process CPU time until a session is there."""
    began = time.process_time()
    session(path)
    return (time.process_time() - began) * 1e3


def measure(family: Family, root: Path, rounds: int) -> str:
    """A row of the table."""
    module, example = family.make(family.deployed)
    captured = capture(module, example)
    rewrite_shifts(captured.program)
    expected = run_program(captured, example)
    model, records = lower_shifts(to_canonical(captured))
    paths = {"stock": root / "stock.onnx", "ours": root / "ours.onnx"}
    save_model(model, paths["ours"])
    nodes = {"ours": sum(node_counts(model).values())}
    nodes["stock"] = sum(stock(family.make(family.deployed)[0], example, paths["stock"]).values())
    starts = {name: min(start(path) for _ in range(STARTS)) for name, path in paths.items()}
    sessions = {name: session(path) for name, path in paths.items()}
    feeds = {name: {s.get_inputs()[0].name: example[0].numpy()} for name, s in sessions.items()}
    for name, runner in sessions.items():
        for got, wanted in zip(runner.run(None, feeds[name]), expected, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
    times = interleaved({n: lambda n=n: sessions[n].run(None, feeds[n]) for n in sessions}, rounds=rounds, warmup=5)
    forms = collections.Counter(record.form for record in records)
    told = ", ".join(f"{count} {form}" for form, count in forms.items())
    size = "x".join(map(str, family.deployed))
    before, after = times["stock"], times["ours"]
    return (
        f"| {family.name} | {size} | {told} | {nodes['stock']} | {nodes['ours']} | {starts['stock']:.0f} | "
        f"{starts['ours']:.0f} | {before.min:.3f} | {after.min:.3f} | {after.min / before.min:.3f} | "
        f"{after.median / before.median:.3f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--only", nargs="+", help="names of families")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"onnxruntime {onnxruntime.__version__}, torch {torch.__version__}, {args.rounds} rounds\n")
    heads = ["network", "input", "forms", "nodes stock", "ours", "start ms stock", "ours", "ms stock", "ours"]
    heads += ["ours/stock", "medians"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    with tempfile.TemporaryDirectory() as folder:
        for family in FAMILIES:
            if not args.only or family.name in args.only:
                print(measure(family, Path(folder), args.rounds), flush=True)
                gc.collect()


if __name__ == "__main__":
    main()
