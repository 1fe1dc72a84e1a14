"""What the parts of ``gpu.py`` share: the kit, how this machine is timed, the records that are written."""

from __future__ import annotations

import contextlib
import ctypes
import json
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

NONE = "no shift"
BATCHES, ROUNDS, WARMUP, REFERENCED = (1, 8, 64), 30, 10, 8
WARM_SECONDS = 0.1
"""A GPU works at least so long before it is timed: an idle one has lowered its clock, which short runs do not raise."""
_DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of Linux."""
Record = dict[str, Any]


def fact(text: str) -> Record:
    return {"kind": "fact", "text": text}


def missing(text: str) -> Record:
    return {"kind": "missing", "text": text}


def images(shape: tuple[int, ...], batch: int) -> np.ndarray:
    """The same images on every machine: float32 [batch, *shape]."""
    return np.random.default_rng(0).standard_normal((batch, *shape), dtype=np.float32)


def apart(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference over the peak, of as many images as both have."""
    count = min(len(found), len(expected))
    found, expected = found[:count].astype(np.float64), expected[:count].astype(np.float64)
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def end_with_parent() -> None:
    """Has this process killed when the one that started it dies, however it does: it would hold the GPU on."""
    with contextlib.suppress(AttributeError, OSError):  # Linux alone can.
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def warm_up(run: Callable[[], Any], wait: Callable[[], Any]) -> None:
    """Runs until libraries have settled what they do lazily and the clock is up; ``wait`` lets the device finish."""
    began, count = time.perf_counter(), 0
    while count < WARMUP or time.perf_counter() - began < WARM_SECONDS:
        run()
        wait()  # Each time: what is queued in a tenth of a second may take minutes.
        count += 1


class Bench:
    """The kit, and how this machine is timed."""

    def __init__(self, kit: Path, *, dry: bool) -> None:
        self.kit, self.dry = kit, dry
        self.contents = json.loads((kit / "kit.json").read_text())
        self.batches = BATCHES[:1] if dry else BATCHES
        self.device = "cpu" if dry else "cuda"

    def milliseconds(self, run: Callable[[], Any]) -> float:
        """The median between CUDA events on torch's current stream; of a dry run, of two calls."""
        if self.dry:
            began = time.perf_counter()
            run()
            run()
            return (time.perf_counter() - began) / 2 * 1e3
        import torch

        warm_up(run, torch.cuda.synchronize)
        times = []
        for _ in range(ROUNDS):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            run()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
        return statistics.median(times)

    def files(self) -> Iterator[tuple[Record, np.ndarray]]:
        """The ONNX files, and what a CPU makes of the first images with each; float16 first, if time runs out."""
        with np.load(self.kit / "references.npz") as references:
            for file in sorted(self.contents["files"], key=lambda file: file["precision"] != "fp16"):
                yield file, references[file["path"]]

    def result(self, file: Record, batch: int, engine: str, milliseconds: float, difference: float) -> Record:
        """One row of the table."""
        counts = {"flops": 2.0 * file["macs"] * batch, "shifted": float(file["shifted"] * batch)}
        names = {key: file[key] for key in ("model", "form", "precision")}
        measured = {"batch": batch, "engine": engine, "milliseconds": milliseconds, "difference": difference}
        return {"kind": "result", **names, **measured, **counts}


def in_full(error: BaseException) -> str:
    """All that an error says, in one line: what does not match stands below the first."""
    return f"{type(error).__name__}: {' '.join(str(getattr(error, 'problem', error)).split())}"


def first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
