"""Reading an artifact's evidence: files that were saved earlier, perhaps by a later version, perhaps damaged.

Nothing here trusts a field to be there. A file that cannot be read becomes a note that the report shows; a kind of
evidence that is not known is listed by name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from s2mlp_deploy.artifact import EVIDENCE
from s2mlp_deploy.errors import ArtifactError
from s2mlp_deploy.evidence.accuracy import AccuracyReport
from s2mlp_deploy.evidence.calibration import CalibrationReport
from s2mlp_deploy.evidence.store import decode
from s2mlp_deploy.report.format import number

ACCURACY = "accuracy.json"
CALIBRATION = "calibration.json"

State = Literal["holds", "fails", "unclear"]


@dataclass(frozen=True)
class Saved:
    """One evidence file.

    Attributes:
        name: Of the file.
        data: What it holds.
    """

    name: str
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Evidence:
    """All evidence of an artifact, in the order of the file names.

    Attributes:
        parity: Comparisons.
        builds: Engines built.
        scores: What the files score.
        calibration: What ranges were chosen from.
        others: Names of files of other kinds.
        notes: What could not be read, in words.
        damaged_parity: How many of the comparisons could not be read.
    """

    parity: tuple[Saved, ...] = ()
    builds: tuple[Saved, ...] = ()
    scores: AccuracyReport | None = None
    calibration: CalibrationReport | None = None
    others: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    damaged_parity: int = 0


def read_evidence(directory: Path) -> Evidence:
    """Reads ``evidence/`` of an artifact; a directory without one has none."""
    saved: dict[str, list[Saved]] = {"parity": [], "build": []}
    scores: AccuracyReport | None = None
    calibration: CalibrationReport | None = None
    others: list[str] = []
    notes: list[str] = []
    damaged_parity = 0
    folder = directory / EVIDENCE
    # Hidden names are files that are being written.
    paths = (path for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else ()
    for path in sorted(paths):
        kind = path.name.partition("-")[0]
        several = kind in saved and path.suffix == ".json" and "-" in path.name
        if not several and path.name not in (ACCURACY, CALIBRATION):
            others.append(path.name)
            continue
        try:
            if path.name == ACCURACY:
                scores = decode(path.read_bytes(), AccuracyReport)
            elif path.name == CALIBRATION:
                calibration = decode(path.read_bytes(), CalibrationReport)
            else:
                saved[kind].append(Saved(path.name, _read_object(path)))
        except (OSError, ValueError, RecursionError, ArtifactError) as error:
            problem = (isinstance(error, OSError) and error.strerror) or getattr(error, "problem", str(error))
            notes.append(f"{EVIDENCE}/{path.name} is damaged and was left out: {problem}")
            damaged_parity += kind == "parity"
    return Evidence(
        tuple(saved["parity"]), tuple(saved["build"]), scores, calibration, tuple(others), tuple(notes), damaged_parity
    )


def _read_object(path: Path) -> Mapping[str, Any]:
    data = json.loads(path.read_bytes())
    if not isinstance(data, dict):
        raise ValueError("it holds no JSON object")
    return data


def mapping(value: object) -> Mapping[str, Any]:
    """The value where it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def sequence(value: object) -> Sequence[Any]:
    """The value where it is a list, else an empty one."""
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()


def text(value: object, default: str = "-") -> str:
    """The value where it is text with something in it, else the default."""
    return value if isinstance(value, str) and value else default


@dataclass(frozen=True)
class Figures:
    """What a comparison measured. None: not measured. NaN: measured, and the figure is not finite.

    Attributes:
        name: The output, or empty for the worst over several.
        max_abs: Largest absolute difference.
        allowed: What it may be.
        max_rel: As a share of the reference's peak.
        cosine: Between the tensors.
        psnr: In dB; plus infinity where the tensors are equal.
        top1: Agreement on the first class.
        top5: The reference's first class among the first five.
        reference_accuracy: Share of right answers.
        candidate_accuracy: Share of right answers.
        not_finite: Values that are NaN or infinite, of both sides.
    """

    name: str
    max_abs: float | None
    allowed: float | None
    max_rel: float | None
    cosine: float | None
    psnr: float | None
    top1: float | None
    top5: float | None
    reference_accuracy: float | None
    candidate_accuracy: float | None
    not_finite: int


def outputs_of(report: Mapping[str, Any]) -> tuple[Figures, ...]:
    """The figures of every output of a saved comparison."""
    limits = mapping(report.get("tolerances"))
    return tuple(_figures(mapping(output), limits) for output in sequence(report.get("outputs")))


def eager_of(report: Mapping[str, Any]) -> tuple[Figures, ...]:
    """The figures of the eager run of code that races, which no limit is held against."""
    return tuple(_figures(mapping(output), {}) for output in sequence(report.get("eager")))


def _figures(output: Mapping[str, Any], limits: Mapping[str, Any]) -> Figures:
    metrics, ranks = mapping(output.get("metrics")), mapping(output.get("ranks"))

    def metric(key: str) -> float | None:
        # JSON has no NaN and no infinity: they are saved as null, and no metric but the PSNR is ever None.
        return math.nan if key in metrics and metrics[key] is None else number(metrics.get(key))

    max_abs, peak, psnr = metric("max_abs"), metric("peak"), metric("psnr")
    if psnr is not None and not math.isfinite(psnr):
        # Equal tensors have no PSNR; a PSNR of minus infinity (a reference of zeros) is saved as null too.
        psnr = math.inf if max_abs == 0 else math.nan
    atol, rtol = number(limits.get("atol")), number(limits.get("rtol"))
    return Figures(
        name=text(output.get("name"), "unnamed"),
        max_abs=max_abs,
        allowed=None if atol is None or rtol is None or peak is None else atol + rtol * peak,
        max_rel=metric("max_rel"),
        cosine=metric("cosine"),
        psnr=psnr,
        top1=number(ranks.get("top1_agreement")),
        top5=number(ranks.get("top5_agreement")),
        reference_accuracy=number(ranks.get("reference_accuracy")),
        candidate_accuracy=number(ranks.get("candidate_accuracy")),
        not_finite=sum(_whole(metrics.get(key)) for key in ("not_finite", "reference_not_finite")),
    )


def _whole(value: object) -> int:
    amount = number(value)
    return int(amount) if amount is not None and math.isfinite(amount) else 0


def worst_of(outputs: Sequence[Figures]) -> Figures:
    """For each figure the worst over the outputs."""

    def pick(key: str, highest: bool) -> float | None:
        values = [value for output in outputs if (value := getattr(output, key)) is not None]
        if any(math.isnan(value) for value in values):
            return math.nan
        return (max if highest else min)(values, default=None)

    return Figures(
        name="",
        not_finite=sum(output.not_finite for output in outputs),
        **{key: pick(key, True) for key in ("max_abs", "max_rel")},
        **{
            key: pick(key, False)
            for key in (
                "allowed",
                "cosine",
                "psnr",
                "top1",
                "top5",
                "reference_accuracy",
                "candidate_accuracy",
            )
        },
    )


def failures_of(report: Mapping[str, Any]) -> tuple[str, ...]:
    """The limits that do not hold, in the words they were saved in."""
    return tuple(str(item) for item in sequence(report.get("failures")))


def state_of(report: Mapping[str, Any]) -> State:
    """Whether a saved comparison says that parity holds.

    An empty list of failures alone does not: a file from which figures went missing has one too.
    """
    if failures_of(report):
        return "fails"
    outputs = outputs_of(report)
    complete = bool(outputs) and all(
        output.max_abs is not None and math.isfinite(output.max_abs) and not output.not_finite for output in outputs
    )
    listed = isinstance(report.get("failures"), Sequence) and not isinstance(report.get("failures"), str)
    return "holds" if complete and listed else "unclear"
