"""What trtexec measured, beside a benchmark of our own: ``--exportTimes`` and ``--exportProfile``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from s2mlp_deploy.bench.profile import profile_of
from s2mlp_deploy.engines.tensorrt.layer_file import is_layers, is_times, read_times
from s2mlp_deploy.errors import ArtifactError
from s2mlp_deploy.evidence.bench import BenchReport, BenchResult, MeasuredElsewhere
from s2mlp_deploy.files import from_json, read_file
from s2mlp_deploy.text import command_line, problem_of

_EXPORT = "name what `trtexec --loadEngine=FILE --exportTimes=TIMES.json` (or --exportProfile) wrote"


def is_measurement(path: str | Path) -> bool:
    """Whether a path is to be read as a measurement, by its suffix."""
    return Path(path).suffix == ".json"


def read_elsewhere(path: Path) -> MeasuredElsewhere:
    """Reads what ``trtexec --exportTimes`` or ``--exportProfile`` of TensorRT 10, 11 or RTX wrote.

    Raises:
        ArtifactError: It is neither, damaged, or cut off.
    """
    try:
        raw = read_file(path, "profile")
        document = from_json(raw)
        if is_times(document):
            return _of_times(document, path, hashlib.sha256(raw).hexdigest())
        if _is_profile(document):
            return _of_profile(path, hashlib.sha256(raw).hexdigest())
        raise ArtifactError(f"no times of trtexec: {_what(document)}", where=str(path), fix=_fix(document, path))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"no times of trtexec: {problem_of(error)}", where=str(path), fix=_EXPORT) from error


def beside(report: BenchReport, found: tuple[MeasuredElsewhere, ...]) -> BenchReport:
    """Adds them to a benchmark, with the ratio to its first candidate where all candidates have one batch."""
    first = next(iter(report.measured), None)
    one_batch = len({result.candidate.batch for result in report.results}) == 1
    if first is None or not one_batch:
        return replace(report, elsewhere=found)
    return replace(report, elsewhere=tuple(_over(first, item) for item in found))


def _over(first: BenchResult, item: MeasuredElsewhere) -> MeasuredElsewhere:
    """A measurement with its ratio to a candidate, of times that hold the same: none where there are no such."""
    time: float | None
    # Layers are computing alone; so is a run of many without waiting, whose copies stand beside the computing.
    if first.gpu_ms is not None and (item.profile is not None or first.latency is None):
        of, mine, time = "computing", item.gpu_ms, first.gpu_ms
    elif item.profile is not None:
        return item
    else:
        of, mine, time = "runs", item.p50, first.latency.p50 if first.latency is not None else first.wall_ms
    return replace(item, over=first.candidate.name, ratio=mine / time, of=of) if time else item


def _of_times(document: list[Any], path: Path, sha256: str) -> MeasuredElsewhere:
    spreads = {item.name: item for item in read_times(document, path.name).spreads}
    run = spreads.get("latency", spreads["compute"])
    return MeasuredElsewhere(str(path), sha256, len(document), run.median, run.p90, run.p99, spreads["compute"].median)


def _of_profile(path: Path, sha256: str) -> MeasuredElsewhere:
    profile = profile_of(path)
    return MeasuredElsewhere(str(path), sha256, profile.runs, profile.ms, None, None, profile.ms, profile=profile)


def _is_profile(document: Any) -> bool:
    first = document[0] if isinstance(document, list) and document else None
    return isinstance(first, Mapping) and "count" in first


def _what(document: Any) -> str:
    if isinstance(document, Mapping) and isinstance(document.get("kind"), str):
        return f"it is of this package, of the kind {document['kind']}"
    if not document:
        return "it is empty"
    return "it has layers" if is_layers(document) else "it is of another tool"


def _fix(document: Any, path: Path) -> str:
    if isinstance(document, Mapping) and document.get("kind") == "bench":
        return f"--compare {path} compares with a saved run"
    return f"`{command_line('inspect', path)}` shows layers; {_EXPORT}" if is_layers(document) else _EXPORT
