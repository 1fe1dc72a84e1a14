"""What is done with one module, and what came of each step."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from s2mlp_deploy import api
from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine
from s2mlp_deploy.errors import S2MLPDeployError
from s2mlp_deploy.precision.options import file_precisions
from wild_modules.registry import WildCase, noise

RIGHT, REFUSED, TOLD, WRONG, TRACEBACK, ALARM, NONE = "right", "refused", "told", "WRONG", "TRACEBACK", "ALARM", "-"
"""What a step can come to. *told*: parity itself says that the file differs; *ALARM*: it says so of a right one."""

LIMITS = {"fp32": 90.0, "fp16": 40.0, "int8": 12.0, "int8-trt": 12.0}
"""Signal to noise that a right file has at least, decibels."""

BATCHES = (1, 2, 3, 5)
CALIBRATION = 32
TARGET = "sm89"


@dataclass
class Outcome:
    """What came of a step.

    Attributes:
        verdict: One of the constants above.
        words: What was said, or how far off a wrong result is.
        at: How many sizes were right.
    """

    verdict: str = NONE
    words: str = ""
    at: int = 0


@dataclass
class Row:
    """All steps of one module."""

    name: str
    family: str
    shape: str
    there: int | None
    found: int | None = None
    races: int = 0
    steps: dict[str, Outcome] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """For a line of a file."""
        return asdict(self)


def attempt(work: Callable[[], Outcome]) -> Outcome:
    """What a step comes to: words of our own are a refusal, everything else that is raised is a traceback."""
    try:
        return work()
    except S2MLPDeployError as error:
        return Outcome(REFUSED, str(error))
    except Exception:
        return Outcome(TRACEBACK, traceback.format_exc()[-1500:])


def decibels(got: Sequence[NDArray[Any]], wanted: Sequence[NDArray[Any]]) -> float:
    """The smallest signal to noise of the outputs; -inf where shapes, or what is not finite, differ."""
    worst = float("inf")
    if len(got) != len(wanted):
        return -worst
    for one, other in zip(got, wanted, strict=True):
        if one.shape != other.shape or not np.array_equal(np.isnan(one), np.isnan(other)):
            return -float("inf")
        a, b = np.nan_to_num(one.astype(np.float64)), np.nan_to_num(other.astype(np.float64))
        power, error = float((b**2).sum()), float(((a - b) ** 2).sum())
        # Results that vanish are compared with one rounding of a number around 1.
        worst = min(worst, 10 * np.log10(max(power, 1e-10) / error) if error > 0 else float("inf"))
    return worst


def run_eager(module: nn.Module, inputs: Sequence[Tensor]) -> list[NDArray[Any]] | None:
    """What the module computes, in its own precision; None where it does not take such inputs."""
    kinds = {parameter.dtype for parameter in module.parameters() if parameter.is_floating_point()}
    try:
        with torch.no_grad():
            out = module(*(x.clone().to(next(iter(kinds), x.dtype)) for x in inputs))
    except Exception:
        return None
    return [value.float().numpy() for value in (out if isinstance(out, tuple | list) else (out,))]


def shapes_to_try(case: WildCase, *, free: bool) -> list[tuple[tuple[int, ...], ...]]:
    """Of all inputs: other batches, and other heights and widths where they are free."""
    first, *others = case.shapes
    bases = [first, *case.free] if free else [first]
    tried = []
    for base in bases:
        batches = sorted({base[0], *BATCHES, 2 * base[0], 3 * base[0]})
        tried += [((batch, *base[1:]), *((batch, *other[1:]) for other in others)) for batch in batches]
    return tried


def compare(path: Path, case: WildCase, precision: str, *, free: bool) -> Outcome:
    """Runs a file beside the module at many sizes, on noise and on zeros."""
    engine = OnnxRuntimeEngine(path, threads=1)
    module = case.reference()
    at, words = 0, ""
    for shapes in shapes_to_try(case, free=free):
        batches = [noise(shapes)] if precision != "fp32" else [noise(shapes), tuple(torch.zeros(s) for s in shapes)]
        for inputs in batches:
            wanted = run_eager(module, inputs)
            if wanted is None:
                break
            feeds = {info.name: x.float().numpy() for info, x in zip(engine.inputs, inputs, strict=True)}
            try:
                got = list(engine.run(feeds).values())
            except S2MLPDeployError as error:
                if shapes == case.shapes:
                    return Outcome(WRONG, f"the example itself is refused: {error}")
                words = str(error)
                break
            level = decibels([np.asarray(value, np.float32) for value in got], wanted)
            if level < LIMITS[precision]:
                return Outcome(WRONG, f"{level:.0f} dB at {shapes}", at)
            at += 1
    return Outcome(RIGHT if at else REFUSED, words, at)


def judged(reports: Sequence[Any], name: str, own: Outcome) -> Outcome:
    """A file's verdict: the independent one, and whether the product's parity agrees with it."""
    report = next((item for item in reports if item.file == name), None)
    if report is None or own.verdict == TRACEBACK:
        return own
    if own.verdict == WRONG and not report.passed:
        return Outcome(TOLD, f"{own.words}; {'; '.join(report.failures)}", own.at)
    if own.verdict == RIGHT and not report.passed:
        return Outcome(ALARM, "; ".join(report.failures), own.at)
    return own


def work_through(case: WildCase, root: Path, stages: Sequence[str]) -> Row:
    """All steps of a module.

    Args:
        case: The module.
        root: Where its artifact goes; what was there is replaced.
        stages: ``export``, ``precision``, ``build``.
    """
    row = Row(case.name, case.family, "x".join(map(str, case.shapes[0])), case.shifts)
    home, beside = root / case.name.replace(" ", "-"), root / f"{case.name.replace(' ', '-')}-free"
    for folder in (home, beside):
        shutil.rmtree(folder, ignore_errors=True)
    captured: list[Any] = []

    def export(folder: Path, dynamic: tuple[str, ...]) -> Callable[[], Outcome]:
        def work() -> Outcome:
            source = api.from_module(case.module(), case.example(), name=case.name)
            captured.append(api.capture(source, dynamic=dynamic))
            result = api.export(captured[-1], folder)
            if folder == home:
                row.found, row.races = len(result.manifest.shifts), len(result.manifest.hazards)
            own = compare(result.file(), case, "fp32", free="height" in dynamic)
            return judged(api.parity(captured[-1], [result.file()]), result.file().name, own)

        return work

    row.steps["export"] = attempt(export(home, ("batch",)))
    if case.free:
        row.steps["free"] = attempt(export(beside, ("batch", "height", "width")))
    if not captured or not (home / "model.fp32.onnx").is_file():
        return row
    if "precision" in stages:
        precisions(case, row, home, captured[0])
    if "build" in stages:
        for precision in ("fp32", "fp16", "int8-trt"):
            path = home / f"model.{precision}.onnx"
            if path.is_file():
                row.steps[f"rtx {precision}"] = attempt(lambda path=path: built(path))
    return row


def precisions(case: WildCase, row: Row, home: Path, captured: Any) -> None:
    """float16 and int8, calibrated on noise."""
    data = calibration(case, captured)
    for asked in ("fp16", "int8"):

        def work(asked: str = asked) -> Outcome:
            api.quantize(home, api.PrecisionOptions(precisions=(asked,), data=data, threads=1))
            return Outcome(RIGHT)

        outcome = attempt(work)
        for precision in file_precisions((asked,)):
            path = home / f"model.{precision}.onnx"
            if outcome.verdict != RIGHT or not path.is_file():
                row.steps[precision] = outcome
                continue

            def check(path: Path = path, precision: str = precision) -> Outcome:
                own = compare(path, case, precision, free=False)
                return judged(api.parity(captured, [path]), path.name, own)

            row.steps[precision] = attempt(check)


def calibration(case: WildCase, captured: Any) -> Any:
    """Noise: a row a sample, by input name where there are several."""
    names = [value.name for value in captured.canonical.graph.inputs]
    shapes = [tuple(tensor.shape) for tensor in case.example()]
    rows = -(-CALIBRATION // shapes[0][0]) * shapes[0][0]
    arrays = {
        name: tensor.numpy()
        for name, tensor in zip(names, noise([(rows, *shape[1:]) for shape in shapes]), strict=True)
    }
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    return [{name: array[i] for name, array in arrays.items()} for i in range(rows)]


def built(path: Path) -> Outcome:
    """A TensorRT-RTX engine, for which no GPU is needed."""
    api.build(path, engine="tensorrt-rtx", targets=[TARGET])
    return Outcome(RIGHT)
