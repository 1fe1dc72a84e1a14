"""Shifts found, missed and wrongly rewritten over the test gallery, against the stock exporter of the same modules.

    python benchmarks/gallery.py --rounds 30

ONNX Runtime's CPU provider, one thread, process CPU time, interleaved; ratios hold within the run. A module whose
example is tiny is timed at a size that deployed networks have, where it takes one (marked *).
"""

from __future__ import annotations

import argparse
import collections
import inspect
import statistics
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn

from s2mlp_deploy.bench.timing import interleaved

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from gallery_case import Array, Case, explains, numbers
from gallery_flow import NEAR_MISSES, SHIFTS, node_counts, run_program, session

from s2mlp_deploy.capture.program import capture
from s2mlp_deploy.export.canonical import to_canonical
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.export.rewrite import rewrite_shifts
from s2mlp_deploy.torch_internals import quiet_exporter

COUNTED = ("ScatterND", "Transpose")


@dataclass(frozen=True)
class Row:
    """What happened to one module."""

    case: Case
    verdict: str
    before: collections.Counter[str] | None = None
    after: collections.Counter[str] | None = None
    milliseconds: tuple[float, float] | None = None
    enlarged: bool = False


def stock(
    module: nn.Module, inputs: Sequence[torch.Tensor], path: Path, *, free_batch: bool = False
) -> collections.Counter[str]:
    """What a user gets who gives the module to torch.onnx.export as it is, or asks it for a free batch too.

    Args:
        module: The module.
        inputs: Its example.
        path: Where the file goes.
        free_batch: Whether the first axis of every input may have other sizes; torch takes an example of 1 for fixed.
    """
    shapes: tuple[Any, ...] | None = tuple({0: torch.export.Dim.AUTO} for _ in inputs) if free_batch else None
    (first, *_) = inspect.signature(module.forward).parameters.values()
    if shapes is not None and first.kind is first.VAR_POSITIONAL:
        shapes = (shapes,)
    with warnings.catch_warnings(), quiet_exporter(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(), tuple(inputs), dynamo=True, dynamic_shapes=shapes, external_data=False, verbose=False
        )
        assert program is not None
        program.save(path)
    return node_counts(program.model)


def alike(left: Sequence[Array], right: Sequence[Array], *, exact: bool) -> bool:
    return len(left) == len(right) and all(
        np.array_equal(a, b) if exact else np.allclose(a, b, rtol=1e-5, atol=1e-5)
        for a, b in zip(left, right, strict=True)
    )


def assess(case: Case, root: Path, rounds: int) -> Row:
    """Recognition at the example's size, files and times at the deployed one."""
    inputs = case.inputs()
    captured = capture(case.module(), inputs)
    functional = run_program(captured, inputs)
    found = [shift.spec for shift in rewrite_shifts(captured.program).shifts]
    if not alike(run_program(captured, inputs), functional, exact=case.exact):
        return Row(case, "WRONG")
    if not case.expected:
        verdict = "left" if not found else "rewritten, equal"
    elif any(explains(found, answer) for answer in (case.expected, *case.also)):
        verdict = "found"
    else:
        verdict = "told otherwise, equal" if found else "missed"
    large = numbers(*case.large) if case.large else inputs
    try:
        if case.large:
            captured = capture(case.module(), large)
            functional = run_program(captured, large)
            rewrite_shifts(captured.program)
        model, _ = lower_shifts(to_canonical(captured))
        after = node_counts(model)
        ours = session(model)
        before = stock(case.module(), large, root / "stock.onnx")
        theirs = session(root / "stock.onnx")
    except Exception as error:
        print(f"{case.name}: {type(error).__name__}: {str(error).splitlines()[0]}", file=sys.stderr)
        return Row(case, verdict)

    def run(runner: onnxruntime.InferenceSession) -> list[Array]:
        names = [value.name for value in runner.get_inputs()]
        return list(runner.run(None, dict(zip(names, (x.numpy() for x in large), strict=True))))

    if not alike(run(ours), functional, exact=case.exact):
        return Row(case, "WRONG", before, after)
    times = interleaved({"stock": lambda: run(theirs), "ours": lambda: run(ours)}, rounds=rounds, warmup=5)
    pair = (times["stock"].min, times["ours"].min)
    return Row(case, verdict, before, after, pair, bool(case.large))


def show(row: Row) -> str:
    if row.before is None or row.after is None:
        counts = ["-"] * (2 * len(COUNTED))
    else:
        counts = [str(side[op]) for op in COUNTED for side in (row.before, row.after)]
    times = ["-", "-", "-"]
    if row.milliseconds:
        before, after = row.milliseconds
        times = [f"{before:.3f}", f"{after:.3f}", f"{after / before:.2f}{'*' if row.enlarged else ''}"]
    return f"| {' | '.join([row.case.name, row.case.family, row.verdict, *counts, *times])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--only", nargs="+", help="names of cases")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for case in (*SHIFTS, *NEAR_MISSES):
            if args.only and case.name not in args.only:
                continue
            try:
                rows.append(assess(case, Path(folder), args.rounds))
            except Exception as error:
                print(f"{case.name}: {type(error).__name__}: {str(error).splitlines()[0]}", file=sys.stderr)
                rows.append(Row(case, "fails"))
    print(f"onnxruntime {onnxruntime.__version__}, torch {torch.__version__}, {args.rounds} rounds, auto\n")
    heads = [f"{op} {side}" for op in COUNTED for side in ("before", "after")]
    print("| module | family | verdict | " + " | ".join(heads) + " | ms before | ms after | after/before |")
    print("|---|---|---|" + "---|" * (len(heads) + 3))
    for row in rows:
        print(show(row))
    totals(rows)


def totals(rows: Sequence[Row]) -> None:
    for title, chosen in (
        ("shifts", [row for row in rows if row.case.expected]),
        ("near misses", [row for row in rows if not row.case.expected]),
    ):
        verdicts = collections.Counter(row.verdict for row in chosen)
        print(
            f"\n{len(chosen)} {title}: " + ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items()) + "."
        )
        print(f"Wrongly rewritten: {verdicts['WRONG']}.", end=" ")
        pairs = [(row.before, row.after) for row in chosen if row.before is not None and row.after is not None]
        for op in COUNTED:
            print(f"{op}: {sum(b[op] for b, _ in pairs)} before, {sum(a[op] for _, a in pairs)} after.", end=" ")
        for what, timed in (
            ("all", [row.milliseconds for row in chosen if row.milliseconds]),
            ("deployed sizes", [row.milliseconds for row in chosen if row.milliseconds and row.enlarged]),
        ):
            if timed:
                ratio = statistics.geometric_mean(after / before for before, after in timed)
                print(f"Latency after/before, geometric mean over {what} ({len(timed)}): {ratio:.2f}.", end=" ")
        print()


if __name__ == "__main__":
    main()
