"""One shift alone, in every form, at many sizes: what it takes, and what the model behind ``auto`` says that it takes.

    python benchmarks/shift_cost.py --rounds 20

ONNX Runtime's CPU provider, one thread, process CPU time, interleaved, the shortest run. ``auto`` is the form that is
chosen for code that copies; its loss is against the fastest form that copies. A session's own time is taken off.
"""

from __future__ import annotations

import argparse
import functools
import gc
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime

from s2mlp_deploy.bench.timing import interleaved

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from gallery_flow import session
from one_shift import one_shift

from s2mlp_deploy.export.forms import FORMS, choose
from s2mlp_deploy.export.forms.cost import cost_of
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.graph.opsets import DEFAULT_OPSET
from s2mlp_deploy.shift.spec import Border, ShiftGroup, ShiftSpec

SIZES = ((192, 32), (384, 16), (384, 14), (96, 56), (64, 128), (64, 16), (64, 8), (24, 8), (8, 6))
"""Channels, and rows as well as columns."""
FOUR = [(1, 0), (-1, 0), (0, 1), (0, -1)]
Steps = tuple[int, int]
Case = tuple[str, tuple[int, ...], ShiftSpec]
FLOAT = ir.DataType.FLOAT


def case(name: str, layout: str, channels: int, side: int, groups: Sequence[tuple[int, Steps]], border: Border) -> Case:
    first = layout == "NCHW"
    shape = (1, channels, side, side) if first else (1, side, side, channels)
    axes, channel_axis = ((2, 3), 1) if first else ((1, 2), 3)
    spec = ShiftSpec(tuple(ShiftGroup(count, steps) for count, steps in groups), axes, channel_axis, border)
    return f"{name}, {layout}", shape, spec


def cases() -> Iterator[Case]:
    for channels, side in SIZES:
        each = range(channels)
        shifts: list[tuple[str, list[tuple[int, Steps]], Border]] = [
            ("four directions, keep", [(channels // 4, steps) for steps in FOUR], "keep"),
            ("four directions, zero", [(channels // 4, steps) for steps in FOUR], "zero"),
            ("eight steps along columns", [(channels // 8, (0, k - 4)) for k in range(8)], "zero"),
            ("rows by c % 7", [(1, (c % 7 - 3, 0)) for c in each], "zero"),
            ("columns by c % 7", [(1, (0, c % 7 - 3)) for c in each], "zero"),
            ("neighbours by c % 5", [(1, (*FOUR, (0, 0))[c % 5]) for c in each], "circular"),
            ("columns by c", [(1, (0, c)) for c in each], "circular"),
        ]
        for name, groups, border in shifts:
            for layout in ("NCHW", "NHWC"):
                yield case(name, layout, channels, side, groups, border)
    yield case("32 groups", "NCHW", 192, 28, [(6, (0, k % 5 - 2)) for k in range(32)], "edge")
    yield case("one group rolled", "NCHW", 128, 28, [(128, (1, 0))], "circular")
    frames = ShiftSpec((ShiftGroup(32, (-1,)), ShiftGroup(32, (1,)), ShiftGroup(192, (0,))), (1,), 2, "zero")
    yield "frames of a clip", (1, 8, 256, 14, 14), frames


def milliseconds(graphs: Mapping[str, ir.Model], shape: Sequence[int], rounds: int) -> dict[str, float]:
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    runs = {name: functools.partial(session(model).run, None, {"input": x}) for name, model in graphs.items()}
    return {name: timing.min for name, timing in interleaved(runs, rounds=rounds).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    still = ShiftSpec((ShiftGroup(1, (0,)),), (1,), 0)
    own = milliseconds({"own": lower_shifts(one_shift((1, 1), still))[0]}, (1, 1), 200)["own"]
    print(f"onnxruntime {onnxruntime.__version__}, {rounds} rounds; microseconds: measured (by the model)\n")
    print(f"| shift | tensor | {' | '.join(FORMS)} | auto | loss |")
    print("|---|---|" + "---|" * (len(FORMS) + 2))
    losses, ratios = [], []
    for name, shape, spec in cases():
        canonical = one_shift(("batch", *shape[1:]), spec)
        took = milliseconds({n: lower_shifts(canonical, form)[0] for n, form in FORMS.items()}, shape, rounds)
        took = {n: (value - own) * 1e3 for n, value in took.items()}
        told = {n: cost_of(form, spec, shape, FLOAT, DEFAULT_OPSET).microseconds for n, form in FORMS.items()}
        auto = choose(spec, shape, FLOAT).name
        losses.append(took[auto] / min(value for n, value in took.items() if n != "grouped-conv"))
        ratios += [told[n] / took[n] for n in FORMS]
        figures = " | ".join(f"{took[n]:.0f} ({told[n]:.0f})" for n in FORMS)
        print(f"| {name} | {'x'.join(map(str, shape))} | {figures} | {auto} | {losses[-1]:.2f} |", flush=True)
        gc.collect()
    low, *_, high = statistics.quantiles(ratios, n=20)
    mean = statistics.geometric_mean(losses)
    print(f"\n{len(losses)} shifts. Auto over the fastest form that copies: {mean:.3f} in the mean,")
    print(f"{max(losses):.2f} at most. The model over the measurement: {low:.2f} to {high:.2f} in nine of ten,")
    print(f"median {statistics.median(ratios):.2f}.")


if __name__ == "__main__":
    main()
