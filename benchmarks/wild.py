"""Modules that nothing here was tuned for: right, refused in words, wrong or a traceback; latency over the stock file.

    python benchmarks/wild.py run
    python benchmarks/wild.py latency
    python benchmarks/wild.py table --update benchmarks/wild.md

`run` exports each module with a free batch and, where its code takes other heights and widths, with those free too;
compares with the module (or, where it races, with one that computes what it means) at sizes that the example did not
have, on noise and zeros, and asks `parity` for its own verdict; makes float16 and int8 files, calibrated on noise, and
builds TensorRT-RTX engines. It goes on where it was stopped. `latency` times the files of `run` beside what
`torch.onnx.export` makes of the same functional code: ONNX Runtime, one thread, process CPU time, interleaved. Both
write into `build/wild`, from which `table` makes the page's table. Seeds are fixed.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import json
import logging
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import onnxruntime
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from gallery import stock
from gallery_flow import session
from wild_modules import CASES
from wild_modules.registry import WildCase
from wild_modules.specimens import specimens
from wild_modules.steps import ALARM, NONE, REFUSED, RIGHT, TOLD, TRACEBACK, WRONG, work_through

from s2mlp_deploy.bench.timing import interleaved

STAGES = ("export", "precision", "build")
COLUMNS = ("export", "free", "fp16", "int8", "int8-trt", "rtx fp32", "rtx fp16", "rtx int8-trt")
HEADS = ("module", "family", "input", "shifts", *COLUMNS, "ms", "/ fixed", "median", "/ free", "median")
BEGIN, END = "<!-- table -->", "<!-- end of table -->"
LIMIT = 1.02
SECONDS, ROUNDS = 0.6, (40, 1500)
NOISE = 0.05
"""Milliseconds below which two sessions of one and the same file differ by more than two percent."""


def everything() -> dict[str, WildCase]:
    return {**specimens(), **CASES}


def chosen(only: Sequence[str] | None) -> Iterable[WildCase]:
    return (case for name, case in everything().items() if not only or any(part in name for part in only))


def read(path: Path) -> dict[str, Any]:
    """The last line of each name."""
    if not path.is_file():
        return {}
    return {row["name"]: row for row in map(json.loads, path.read_text().splitlines())}


def run(args: argparse.Namespace) -> None:
    results = args.root / "results.jsonl"
    done = {} if args.again else read(results)
    for case in chosen(args.only):
        if case.name in done:
            continue
        row = work_through(case, args.root, args.stages).json()
        with results.open("a") as file:
            file.write(json.dumps(row) + "\n")
        told = ", ".join(f"{step} {outcome['verdict']}" for step, outcome in row["steps"].items())
        print(f"{case.name}: {row['found']} of {row['there']} shifts; {told}", flush=True)
        for step, outcome in row["steps"].items():
            if outcome["verdict"] not in (RIGHT, NONE):
                print(f"    {step}: {outcome['words']}", flush=True)


def stock_files(case: WildCase, root: Path) -> dict[str, Path]:
    """The stock exporter's files of a case by what it was asked for, made where they are not there."""
    example = case.example()
    wide = tuple(torch.cat([x] * 2) if len(x) == 1 else x for x in example)
    asked = {"stock": (example, False), "stock, free batch": (wide, True)}
    files = {}
    for number, (name, (inputs, free)) in enumerate(asked.items()):
        path = root / f"{case.name.replace(' ', '-')}.stock{number}.onnx"
        if not path.is_file():
            try:
                stock(case.reference(), inputs, path, free_batch=free)
            except Exception:
                path.touch()  # It has no translation for some; then there is nothing to compare.
        files |= {name: path} if path.stat().st_size else {}
    return files


def latency(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    for case in chosen(args.only):
        ours = args.root / case.name.replace(" ", "-") / "model.fp32.onnx"
        if not ours.is_file():
            continue
        row: dict[str, Any] = {"name": case.name}
        calls = {}
        for name, path in {"ours": ours, **stock_files(case, args.root)}.items():
            runner = session(path)
            feeds = {
                info.name: (x.double() if "double" in info.type else x.float()).numpy()
                for info, x in zip(runner.get_inputs(), case.example(), strict=True)
            }
            call = functools.partial(runner.run, None, feeds)
            with contextlib.suppress(Exception):  # A batch of 1 was told to be free and is not.
                call()
                calls[name] = call
        first = interleaved(calls, rounds=5)
        slower = max(timing.min for timing in first.values())
        rounds = int(min(max(SECONDS * 500 / slower, ROUNDS[0]), ROUNDS[1]))
        times = interleaved(calls, rounds=rounds, warmup=5)
        row |= {key: [timing.min, timing.median] for key, timing in times.items()}
        with (args.root / "latency.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)
    if args.update:
        table(args)


def cells(row: dict[str, Any], times: dict[str, Any]) -> list[str]:
    there = "?" if row["there"] is None else row["there"]
    found = NONE if row["found"] is None else f"{row['found']} of {there}"
    steps = row["steps"]
    verdicts = []
    for step in COLUMNS:
        outcome = steps.get(step, {"verdict": NONE, "at": 0})
        count = f" ({outcome['at']})" if outcome["verdict"] == RIGHT and outcome["at"] else ""
        verdicts.append(outcome["verdict"] + count)
    last = [f"{times['ours'][0]:.3f}" if times else NONE]
    for key in ("stock", "stock, free batch"):
        for position in (0, 1):
            if key in times:
                tiny = "*" if max(times["ours"][0], times[key][0]) < NOISE else ""
                last.append(f"{times['ours'][position] / times[key][position]:.3f}{tiny}")
            else:
                last.append(NONE)
    return [row["name"], row["family"], row["shape"], found, *verdicts, *last]


def table(args: argparse.Namespace) -> None:
    rows, times = read(args.root / "results.jsonl"), read(args.root / "latency.jsonl")
    kept = [rows[name] for name in everything() if name in rows]
    lines = [f"onnxruntime {onnxruntime.__version__}, torch {torch.__version__}", ""]
    lines += [f"| {' | '.join(HEADS)} |", "|---" * len(HEADS) + "|"]
    lines += [f"| {' | '.join(cells(row, times.get(row['name'], {})))} |" for row in kept]
    lines += ["", *totals(kept, times)]
    text = "\n".join(lines)
    if args.update is None:
        print(text)
        return
    before, _, rest = args.update.read_text().partition(BEGIN)
    args.update.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


def totals(rows: Sequence[dict[str, Any]], times: dict[str, Any]) -> list[str]:
    lines = [f"{len(rows)} modules, {sum(row['name'] in CASES for row in rows)} of them written for this page.", ""]
    lines += ["| step | right | refused | told | wrong | traceback | false alarm |", "|---" * 7 + "|"]
    for step in COLUMNS:
        count = collections.Counter(row["steps"].get(step, {"verdict": NONE})["verdict"] for row in rows)
        shown = (count[verdict] for verdict in (RIGHT, REFUSED, TOLD, WRONG, TRACEBACK, ALARM))
        lines.append(f"| {step} | {' | '.join(map(str, shown))} |")
    known = [row for row in rows if row["there"] is not None and row["found"] is not None]
    lines += ["", f"Shifts found: {sum(min(row['found'], row['there']) for row in known)} of "]
    lines[-1] += f"{sum(row['there'] for row in known)}."
    for key, name in (("stock", "a fixed batch"), ("stock, free batch", "a free batch")):
        ratios = {
            row["name"]: row["ours"][0] / row[key][0]
            for row in times.values()
            if key in row and max(row["ours"][0], row[key][0]) >= NOISE
        }
        told = ", ".join(f"{module} {ratio:.3f}" for module, ratio in ratios.items() if ratio > LIMIT)
        count = sum(ratio > LIMIT for ratio in ratios.values())
        lines.append("")
        lines.append(
            f"Above {LIMIT} of the stock exporter's file of {name}: {count} of {len(ratios)} ({told or 'none'})."
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("run", "latency", "table"))
    parser.add_argument("--root", type=Path, default=Path("build/wild"))
    parser.add_argument("--only", nargs="+", help="parts of names")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--again", action="store_true", help="what was run is run again")
    parser.add_argument("--update", type=Path, help="the page whose table is replaced")
    args = parser.parse_args()
    args.root.mkdir(parents=True, exist_ok=True)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    {"run": run, "latency": latency, "table": table}[args.step](args)


if __name__ == "__main__":
    main()
