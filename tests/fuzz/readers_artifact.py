"""An artifact's manifest, the description within its ONNX files, and every kind of evidence, read and shown."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import report_samples
from fuzzing import Reader
from mutating import json_text
from rich.console import Console

from s2mlp_deploy.api.inspecting_artifacts import inspect_artifact
from s2mlp_deploy.api.inspection_tables import print_artifact
from s2mlp_deploy.artifact import (
    DEFAULT_FILES,
    METADATA_KEY,
    Manifest,
    SizeLimit,
    check_sizes,
    file_for_engine,
    fitting_batch,
    read_description,
    read_limits,
    read_manifest,
)
from s2mlp_deploy.artifact.ownership import own_sidecar
from s2mlp_deploy.errors import S2MLPDeployError
from s2mlp_deploy.evidence.bench import BenchReport
from s2mlp_deploy.evidence.store import KINDS, decode, read_evidence
from s2mlp_deploy.files import to_json
from s2mlp_deploy.preprocess import Preprocessing
from s2mlp_deploy.report.bench import print_bench
from s2mlp_deploy.report.html import render_report
from s2mlp_deploy.report.notebook import shown_of
from s2mlp_deploy.report.opening import opening
from s2mlp_deploy.serving.plan import plan_run

_SAMPLES: dict[str, Callable[[], Any]] = {
    "parity": report_samples.report,
    "accuracy": report_samples.accuracy,
    "layers": report_samples.layers,
    "modules": report_samples.modules,
    "calibration": report_samples.calibration,
    "build": report_samples.build,
    "bench": report_samples.bench,
    "tune": report_samples.tune,
}
"""A record of each kind, in whose artifact others are put."""


def _console() -> Console:
    return Console(file=io.StringIO(), width=100)


def _manifest(data: bytes, folder: Path) -> None:
    (folder / "manifest.json").write_bytes(data)
    (folder / report_samples.FILE).write_bytes(report_samples.ONNX)
    found = read_manifest(folder)
    _use_limits(found.limits)
    for record in found.files:
        found.timeless(record.precision)
    print_artifact(_console(), inspect_artifact(folder), folder)
    render_report(folder)
    for engine in DEFAULT_FILES:
        with contextlib.suppress(S2MLPDeployError):
            file_for_engine(found, engine)
    plan_run(folder, allow_unproven=True)
    if found.preprocessing is not None:
        Preprocessing.from_dict(found.preprocessing)


def _use_limits(limits: tuple[SizeLimit, ...]) -> None:
    fitting_batch(limits, 8)
    for limit in limits:
        str(limit)
        with contextlib.suppress(S2MLPDeployError):
            check_sizes([limit], {limit.input: (2, 3, 224, 224)})


def _description(data: bytes, folder: Path) -> None:
    text = data.decode("utf-8", "replace")
    _use_limits(read_limits({METADATA_KEY: text}))
    read_description(text, folder / "model.onnx")


def _evidence(kind: str, data: bytes, folder: Path) -> None:
    described = (
        report_samples.quantized_manifest()
        if kind in ("accuracy", "calibration", "bench", "tune")
        else report_samples.manifest()
    )
    (folder / "manifest.json").write_bytes(_whole(kind, described))
    name = next(item for item in KINDS if item.name == kind).file_name("x")
    (folder / "evidence").mkdir()
    (folder / "evidence" / name).write_bytes(data)
    own_sidecar(folder / "evidence" / name)
    found = read_evidence(folder)
    render_report(folder)
    if found.unreadable:
        # What the page tells is told by whoever asks for the one document, too.
        decode(data, found.unreadable[0].record)
    for saved in found.saved:
        shown_of(saved.record)
        if isinstance(saved.record, BenchReport):
            print_bench(_console(), saved.record)
    opening(described, found, "out")
    plan_run(folder, allow_unproven=True)


_written: dict[str, bytes] = {}


def _whole(kind: str, described: Manifest) -> bytes:
    return _written.setdefault(kind, to_json(described))


_PLACES = frozenset({"manifest.json", "evidence", report_samples.FILE})
READERS = (
    Reader("artifact/manifest", _manifest, json_text, leaves=_PLACES, largest=32_768),
    Reader("artifact/description", _description, json_text, leaves=frozenset()),
    *(Reader(f"artifact/{kind}", partial(_evidence, kind), json_text, leaves=_PLACES) for kind in _SAMPLES),
)


def seeds() -> dict[str, dict[str, bytes]]:
    """By reader and name the files to begin with."""
    from s2mlp_deploy.evidence.store import encode

    small = report_samples.manifest(
        shifts=report_samples.shifts()[:2], limits=(SizeLimit("image", 0, "batch", 2, 64, 2),)
    )
    made = {f"artifact/{kind}": {"whole": encode(sample())} for kind, sample in _SAMPLES.items()}
    made["artifact/manifest"] = {
        "whole": to_json(small),
        "quantized": to_json(report_samples.quantized_manifest()),
    }
    made["artifact/description"] = {"fp32": small.timeless("fp32").encode()}
    return made
