"""The examples from the field: our file of each against the stock exporter's of the same module.

    python benchmarks/examples.py --rounds 40 --update benchmarks/examples.md

ONNX Runtime's CPU provider, one thread, process CPU time, interleaved, batch as the example has it. The stock file has
fixed sizes, ours a free batch where the module allows one. "No file" is where the stock exporter has none.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from gallery import stock
from gallery_flow import node_counts, session
from torchvision_ops import torchvision_ops

from s2mlp_deploy import api
from s2mlp_deploy.bench.timing import interleaved
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.export.write import save_model

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- table -->", "<!-- end of table -->"
HEADS = ("example", "inputs", "shifts", "nodes stock", "ours", "ms stock", "ours", "ours/stock", "medians")
TOLERANCE = 2e-3
"""Of the peak of an output: the same numbers added in another order."""


@dataclass(frozen=True)
class Example:
    """An example at the size at which it is timed.

    Attributes:
        name: Of its row.
        reference: Its factory, beneath ``examples/``.
        settings: Keyword arguments of the factory.
    """

    name: str
    reference: str
    settings: dict[str, str] = field(default_factory=dict)


EXAMPLES = (
    Example("detector neck", "bring_your_own/detector.py:make", {"width": "32", "size": "320"}),
    Example("UNeXt", "unext.py:make"),
    Example("temporal shift, clips", "video/temporal_shift.py:make"),
    Example("temporal shift, causal", "video/temporal_shift.py:make_causal"),
    Example("temporal shift, online", "video/temporal_shift.py:make_online"),
    Example("CycleMLP", "cycle_mlp.py:make"),
    Example("volume", "volume.py:make"),
    Example("shifted windows", "shifted_windows.py:make"),
)


def measure(example: Example, root: Path, rounds: int) -> str:
    """A row of the table."""
    found = api.capture(api.load(f"{ROOT / 'examples' / example.reference}", overrides=example.settings))
    inputs = tuple(found.source.example_tensors)
    model, records = lower_shifts(found.canonical)
    paths = {"stock": root / "stock.onnx", "ours": root / "ours.onnx"}
    save_model(model, paths["ours"])
    nodes = {"ours": sum(node_counts(model).values())}
    try:
        nodes["stock"] = sum(stock(found.source.module, inputs, paths["stock"]).values())
    except Exception as error:
        print(f"{example.name}: {type(error).__name__}: {str(error).splitlines()[0]}", file=sys.stderr)
        del paths["stock"]
    sessions = {name: session(path) for name, path in paths.items()}
    names = {name: [info.name for info in runner.get_inputs()] for name, runner in sessions.items()}
    feeds = {name: dict(zip(names[name], (x.numpy() for x in inputs), strict=True)) for name in sessions}
    outputs = [runner.run(None, feeds[name]) for name, runner in sessions.items()]
    for first, second in zip(outputs[0], outputs[-1], strict=True):
        np.testing.assert_allclose(second, first, atol=TOLERANCE * float(np.abs(first).max()), rtol=0)
    times = interleaved({n: lambda n=n: sessions[n].run(None, feeds[n]) for n in sessions}, rounds=rounds, warmup=5)
    shapes = [tuple(x.shape) for x in inputs]
    told = "x".join(map(str, shapes[0])) + (f" and {len(shapes) - 1} more" if len(shapes) > 1 else "")
    ours, other = times["ours"], times.get("stock")
    last = [f"{ours.min:.3f}", "-", "-"]
    if other is not None:
        last = [f"{ours.min:.3f}", f"{ours.min / other.min:.3f}", f"{ours.median / other.median:.3f}"]
    before = "no file" if other is None else f"{other.min:.3f}"
    cells = [example.name, told, len(records), nodes.get("stock", "-"), nodes["ours"], before, *last]
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--only", nargs="+", help="parts of names")
    parser.add_argument("--update", type=Path, help="the page whose table is replaced")
    args = parser.parse_args()
    torch.set_num_threads(1)
    lines = [f"onnxruntime {onnxruntime.__version__}, torch {torch.__version__}, {args.rounds} rounds", ""]
    if importlib.util.find_spec("torchvision") is None:
        lines[0] += "; torchvision's operator was registered by the tests' stand-in"
    lines += [f"| {' | '.join(HEADS)} |", "|---" * len(HEADS) + "|"]
    with tempfile.TemporaryDirectory() as folder, torchvision_ops():
        for example in EXAMPLES:
            if not args.only or any(part in example.name for part in args.only):
                lines.append(measure(example, Path(folder), args.rounds))
                print(lines[-1], flush=True)
                gc.collect()
    if args.update is None:
        print("\n".join(lines))
        return
    before, _, rest = args.update.read_text().partition(BEGIN)
    text = "\n".join(lines)
    args.update.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
