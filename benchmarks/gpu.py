"""Everything that a GPU can tell of this package, in one run of less than eight minutes that survives what is missing.

    python benchmarks/gpu_kit.py KIT --shared ../shared      beforehand, anywhere
    python benchmarks/gpu.py KIT --output RESULTS            on the machine with the GPU

Every part runs in a process of its own with a limit of its own, and writes each figure when it has it; every second
``gpu.json`` and ``gpu.md`` are written anew. So a part that crashes, hangs or lacks a package costs its own figures
alone, and a run that is cut off or killed keeps what it has and leaves nothing running. What a kit holds and how it
gets there: ``benchmarks/gpu-kit.md``.

Without a GPU it writes nothing and exits with 2. ``--dry-run`` goes through all parts on the CPU with tiny sizes, to
see that they run; its figures mean nothing, and no table is written. A figure that is wrong exits with 1.

Written on a machine without a GPU: it has never run on one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # A bare machine has no package installed.

from s2mlp_deploy.gpu import gpus

WORKER = Path(__file__).with_name("gpu_parts.py")
NONE = "no shift"
MINUTES = 7.5
TOLD_EVERY = 1.0
"""Seconds between two writings of what a part has so far."""
LIMITS = {"fp32": 1e-4, "fp16": 2e-2, "int8": 1e-1, "int8-trt": 1e-1}
"""Largest difference over the reference's peak. int8 is compared with int8: rounding may turn at a tie."""
BYTES = {"fp16": 2, "int8-trt": 2}
"""Of an element that a shift moves; the int8 files of ONNX Runtime compute in float32 around their GEMMs."""
UNITS = {"copy": (1e9, "GB/s"), "int8": (1e12, "TOP/s")}
"""Of ceilings that are not in 10^12 floating-point operations a second."""
COLUMNS = (
    "model",
    "batch",
    "engine",
    "precision",
    "form",
    "median ms",
    "shift tax",
    "copy of the shifts",
    "of GEMM ceiling",
    "max rel",
)


@dataclass(frozen=True)
class Part:
    """One process: its name, what it does, and the seconds that it may take."""

    name: str
    does: str
    seconds: float


PARTS = (
    Part("device", "the device and what is installed", 20),
    Part("ceilings", "matrix products and a copy", 40),
    Part("execution", "the state machine with a real kernel", 60),
    Part("accuracy", "float16 against its simulation", 60),
    Part("torch", "torch, eager", 60),
    Part("onnxruntime", "ONNX Runtime, every form", 150),
    Part("tensorrt", "TensorRT and TensorRT-RTX", 120),
    Part("compiled", "torch.compile", 120),
)
"""What is worth most comes first: the whole has a limit too."""


@dataclass(frozen=True)
class Result:
    """One measurement. ``shifted``: elements that the shifts of the network write. Both counts are of a batch."""

    model: str
    batch: int
    engine: str
    precision: str
    form: str
    milliseconds: float
    difference: float
    flops: float
    shifted: float


def of_kind(records: Sequence[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    return [record for record in records if record["kind"] == kind]


def results_of(records: Sequence[Mapping[str, Any]]) -> list[Result]:
    names = [field.name for field in fields(Result)]
    return [Result(**{name: record[name] for name in names}) for record in of_kind(records, "result")]


def ceilings_of(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Operations a second by precision, and bytes a second under ``copy``."""
    return {record["of"]: record["per_second"] for record in of_kind(records, "ceiling")}


def table(results: Sequence[Result], ceilings: Mapping[str, float]) -> list[str]:
    """The rows in Markdown: the tax is over the same engine without shifts."""
    plain = {(r.model, r.batch, r.engine, r.precision): r.milliseconds for r in results if r.form == NONE}
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    for r in results:
        base = plain.get((r.model, r.batch, r.engine, r.precision))
        tax = copies = share = ""
        if r.form != NONE:
            tax = f"{r.milliseconds / base - 1:+.1%}" if base is not None else ""
            if "copy" in ceilings:
                moved = 2 * r.shifted * BYTES.get(r.precision, 4)
                copies = f"{moved / ceilings['copy'] * 1e3:.3f} ms"
        if ceiling := ceilings.get(r.precision.removesuffix("-trt")):
            share = f"{r.flops / (r.milliseconds / 1e3) / ceiling:.0%}"
        cells = (r.model, r.batch, r.engine, r.precision, r.form, f"{r.milliseconds:.3f}", tax, copies, share)
        lines.append(f"| {' | '.join(map(str, cells))} | {r.difference:.1e} |")
    return lines


def wrong(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is not as it should be: outputs too far off (NaN among them), and parts whose check failed."""
    found = [f"{r['part']}: {r['text']}" for r in of_kind(records, "failure")]
    for r in results_of(records):
        if not r.difference <= LIMITS[r.precision]:
            name = f"{r.model} {r.engine} {r.precision} {r.form}, batch {r.batch}"
            found.append(f"parity: {name}: {r.difference:.2g}, and {LIMITS[r.precision]:g} is allowed")
    return found


def page(records: Sequence[Mapping[str, Any]], device: str) -> str:
    """The page in Markdown."""
    lines = [f"# Figures of {device}", "", "    python benchmarks/gpu.py KIT --output RESULTS", ""]
    lines += [f"- {r['part']}: {r['text']}" for r in of_kind(records, "fact")]
    for name, rate in ceilings_of(records).items():
        size, unit = UNITS.get(name, (1e12, "TFLOP/s"))
        lines.append(f"- ceiling, {name}: {rate / size:.0f} {unit}")
    lines += ["", *table(results_of(records), ceilings_of(records)), ""]
    for title, found in (
        ("Not as it should be", wrong(records)),
        ("Missing", [f"{r['part']}: {r['text']}" for r in of_kind(records, "missing")]),
        ("Seconds", [f"{r['part']}: {r['seconds']:.0f}, {r['end']}" for r in of_kind(records, "part")]),
    ):
        lines += [f"## {title}", "", *(f"- {item}" for item in found or ["nothing"]), ""]
    return "\n".join(lines)


def run_part(
    part: Part,
    command: Sequence[str],
    seconds: float,
    tell: Callable[[list[dict[str, Any]]], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """The records of one process, whatever becomes of it, and one of how it ended.

    Args:
        part: What it is.
        command: Runs it; the file to write records to is appended, one JSON object a line.
        seconds: After so many it is killed, with all that it started.
        tell: Gets what there is so far, now and then.
    """
    began = time.monotonic()

    def ended(how: str) -> dict[str, Any]:
        return {"kind": "part", "part": part.name, "seconds": time.monotonic() - began, "end": how}

    with tempfile.TemporaryDirectory() as folder:
        written, errors = Path(folder) / "records", Path(folder) / "errors"
        with errors.open("wb") as stream:
            process = subprocess.Popen(
                [*command, str(written)], stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
            )
            end = f"cut off at its limit of {seconds:.0f} s"
            try:
                while (left := began + seconds - time.monotonic()) > 0:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        status = process.wait(timeout=min(left, TOLD_EVERY))
                        end = "finished" if status == 0 else f"ended with status {status}"
                        break
                    tell([*records_in(written, part), ended("still running")])
            finally:
                # The session of the process is its group: compilers that it started go too.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        records, last = records_in(written, part), ended(end)
        if end != "finished":
            last["output"] = errors.read_text(errors="replace")[-2000:]
            if not end.startswith("cut off"):
                said = (last["output"].strip().splitlines() or ["it said nothing"])[-1]
                records.append({"kind": "missing", "part": part.name, "text": said})
        return [*records, last]


def records_in(written: Path, part: Part) -> list[dict[str, Any]]:
    """What a part has written so far."""
    records: list[dict[str, Any]] = []
    for line in written.read_text().splitlines() if written.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):  # Cut off in the middle.
            records.append({"part": part.name, **json.loads(line)})
    return records


def write(output: Path, records: Sequence[Mapping[str, Any]], device: str | None) -> None:
    """Both files, each whole at any time. A table of no GPU is not written."""
    output.mkdir(parents=True, exist_ok=True)
    texts = {"gpu.json": json.dumps({"device": device, "records": list(records)}, indent=1)}
    if device is not None:
        texts["gpu.md"] = page(records, device)
    for name, text in texts.items():
        draft = output / f"{name}.part"
        draft.write_text(text)
        draft.replace(output / name)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kit", type=Path, help="what gpu_kit.py made")
    parser.add_argument("--output", type=Path, default=Path("gpu-results"), help="a directory for gpu.json and gpu.md")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of the whole run")
    parser.add_argument("--parts", nargs="+", choices=[part.name for part in PARTS], help="default: all")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, with tiny sizes; figures mean nothing")
    args = parser.parse_args(arguments)
    # As nvidia-smi counts, here and in every part: CUDA's own order is by speed, and the table would name another GPU.
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    found = () if args.dry_run else gpus()
    if not found and not args.dry_run:
        print("error: this benchmark needs an NVIDIA GPU, and there is none here; no table is written", file=sys.stderr)
        return 2
    if not (args.kit / "kit.json").is_file():
        print(f"error: {args.kit} is no kit; make one with benchmarks/gpu_kit.py", file=sys.stderr)
        return 2
    device = found[0].name if found else None
    deadline = time.monotonic() + args.minutes * 60
    records: list[dict[str, Any]] = []
    chosen = [part for part in PARTS if not args.parts or part.name in args.parts]
    # Fewer parts, or more minutes, are more of them for each.
    share = max(1.0, args.minutes * 60 / sum(part.seconds for part in chosen))
    for part in chosen:
        seconds = min(part.seconds * share, deadline - time.monotonic())
        if seconds < 1:
            records.append({"kind": "missing", "part": part.name, "text": "no time was left"})
        else:
            print(f"{part.does} ...", file=sys.stderr, flush=True)
            command = [sys.executable, str(WORKER), *(["--dry-run"] if args.dry_run else []), part.name, str(args.kit)]
            records.extend(
                run_part(part, command, seconds, lambda so_far: write(args.output, [*records, *so_far], device))
            )
        write(args.output, records, device)
    for line in wrong(records):
        print(line, file=sys.stderr)
    print(args.output / ("gpu.json" if device is None else "gpu.md"))
    return 1 if wrong(records) else 0


if __name__ == "__main__":
    # As a status, so that what is running is killed on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
