"""The main job, end to end, on a trained network and labelled images."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from PIL import Image

from s2mlp_deploy import api
from s2mlp_deploy.api.refusals import check_data, check_export
from s2mlp_deploy.artifact import FileRecord, Manifest
from s2mlp_deploy.bench.timing import interleaved
from s2mlp_deploy.choices import MIN_SAMPLES, ShiftFormName
from s2mlp_deploy.demo.digits import load_digits, weights_path, write_pngs
from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine
from s2mlp_deploy.engines.tensorrt.flavours import check_targets, flavour
from s2mlp_deploy.errors import MissingDependencyError
from s2mlp_deploy.evidence.build import BuildRecord
from s2mlp_deploy.evidence.parity import ParityReport
from s2mlp_deploy.progress import ProgressCallback, no_progress
from s2mlp_deploy.report.format import figure, integer, percent, size
from s2mlp_deploy.report.html import check_page, write_overview

_CALIBRATION = 256
"""Training digits that int8 is calibrated on."""

DEFAULT_FORM: ShiftFormName = "slice-concat"
"""What ``auto`` is for this network."""

_TIMED_BATCH = 8
_FOR_TENSORRT = ("fp32", "fp16", "int8-trt")


@dataclass(frozen=True)
class DemoResult:
    """What the demo made.

    Attributes:
        output: Where everything is.
        images: The folder that parity was measured on.
        artifacts: Directory of the artifact of each form; the first is the default form's.
        manifests: What was exported, by form.
        parity: The comparison with torch, by form.
        precisions: The comparison with torch of the first artifact's files, by precision.
        latency: Milliseconds per image of those that ONNX Runtime is meant to run, by precision: process CPU time of
            one thread.
        engines: The engines built from the first artifact, by precision; empty where the builder is not there.
        engine_missing: Why there are none.
        report: The page that shows all of it.
    """

    output: Path
    images: Path
    artifacts: dict[ShiftFormName, Path]
    manifests: dict[ShiftFormName, Manifest]
    parity: dict[ShiftFormName, ParityReport]
    precisions: dict[str, ParityReport]
    latency: dict[str, float]
    engines: dict[str, BuildRecord]
    engine_missing: str
    report: Path

    @property
    def passed(self) -> bool:
        """Whether parity holds in every form and precision."""
        return all(report.passed for report in (*self.parity.values(), *self.precisions.values()))


def run_demo(
    output: Path,
    *,
    images: Path | None = None,
    targets: Sequence[str] = ("sm89",),
    progress: ProgressCallback = no_progress,
) -> DemoResult:
    """Exports the digit network in every form and precision, proves parity, builds engines, writes a report.

    Args:
        output: Where to write; an earlier demo there is replaced.
        images: A folder of images to compare on; default the 1,000 held-out digits.
        targets: Compute capabilities of the engine.
        progress: Told what is being done.

    Raises:
        S2MLPDeployError: What the API's functions raise.
    """
    check_targets(flavour("tensorrt-rtx"), tuple(targets))
    page = output / "report.html"
    check_page(page)
    if images is not None:
        # A folder without images, or with too few of them, is refused now, not after the exports.
        check_data(images, minimum=MIN_SAMPLES)
    for path in _artifacts(output).values():
        check_export(path, force=True)
    if images is None:
        progress("writing the held-out digits", 0, None)
        images = output / "images"
        write_pngs(load_digits()[1], images)
    artifacts = _artifacts(output)
    precision = api.PrecisionOptions(
        precisions=["fp16", "int8"], data=_training_digits(), samples=_CALIBRATION, eval_data=images
    )
    source = api.load("s2mlpv2_nano", checkpoint=weights_path())
    # It imports torch: where that is missing, the line above has said with which extra it comes.
    from s2mlp_deploy.api.checking import check_data_fits

    check_data_fits(precision, source, with_preprocessing=False)
    captured = api.capture(source, progress=progress)
    manifests = {
        name: api.export(
            captured,
            path,
            shift_form=name,
            precision=precision if name == DEFAULT_FORM else None,
            force=True,
            progress=progress,
        ).manifest
        for name, path in artifacts.items()
    }
    first = artifacts[DEFAULT_FORM]
    derived = [record for record in manifests[DEFAULT_FORM].files if record.precision != "fp32"]
    files = [path / manifests[name].files[0].path for name, path in artifacts.items()]
    reports = api.parity(
        captured, [*files, *(first / record.path for record in derived)], data=images, batch=50, progress=progress
    )
    forms_reports, precision_reports = reports[: len(files)], reports[len(files) :]
    engines, missing = _build(
        first, [r for r in manifests[DEFAULT_FORM].files if r.precision in _FOR_TENSORRT], targets, progress
    )
    write_overview(page, dict(artifacts.items()), title="s2mlp-deploy demo: handwritten digits")
    return DemoResult(
        output,
        images,
        artifacts,
        manifests,
        dict(zip(artifacts, forms_reports, strict=True)),
        {record.precision: report for record, report in zip(derived, precision_reports, strict=True)},
        _latency(first, manifests[DEFAULT_FORM], progress),
        engines,
        missing,
        page,
    )


def _artifacts(output: Path) -> dict[ShiftFormName, Path]:
    """Where the artifact of each form goes, the default form first."""
    others = (name for name in get_args(ShiftFormName) if name not in ("auto", DEFAULT_FORM))
    return {DEFAULT_FORM: output / "artifact"} | {name: output / "forms" / name for name in others}


def _training_digits() -> list[tuple[Image.Image, int]]:
    """Digits that the network was trained on, and none of the held-out ones."""
    digits = load_digits()[0]
    return [(Image.fromarray(image), int(label)) for image, label in zip(digits.images, digits.labels, strict=True)]


def _latency(directory: Path, manifest: Manifest, progress: ProgressCallback) -> dict[str, float]:
    """Milliseconds per image, in batches, of the files that ONNX Runtime runs as they are meant to be run."""
    progress("timing", 0, None)
    engines = {
        record.precision: OnnxRuntimeEngine(directory / record.path, threads=1)
        for record in manifest.files
        if record.precision in ("fp32", "int8")
    }
    shape = [size for size in manifest.inputs[0].shape if isinstance(size, int)]
    batch = np.zeros((_TIMED_BATCH, *shape), np.float32)
    feeds = {manifest.inputs[0].name: batch}
    runs = {precision: functools.partial(engine.run, feeds) for precision, engine in engines.items()}
    return {name: time.min / _TIMED_BATCH for name, time in interleaved(runs, rounds=20).items()}


def _build(
    directory: Path, files: Sequence[FileRecord], targets: Sequence[str], progress: ProgressCallback
) -> tuple[dict[str, BuildRecord], str]:
    """Builds the engines where the builder is installed; there is no wheel of it for every platform."""
    built = {}
    for index, record in enumerate(files):
        progress("building engines", index, len(files))
        try:
            built[record.precision] = api.build(directory / record.path, targets=targets)
        except MissingDependencyError as error:
            return {}, f"{error.problem}; {error.fix}"
    return built, ""


def table(result: DemoResult) -> tuple[Sequence[str], list[Sequence[str]]]:
    """The demo's comparison of forms: column names and rows of text."""
    columns = (
        "form",
        "nodes",
        "max abs",
        "same top-1",
        "torch",
        "ONNX",
        "parity",
    )
    rows: list[Sequence[str]] = []
    for form, report in result.parity.items():
        file, output = result.manifests[form].files[0], report.outputs[0]
        ranks = output.ranks
        rows.append(
            (
                form,
                integer(file.nodes),
                figure(output.metrics.max_abs),
                percent(ranks.top1_agreement) if ranks else "",
                percent(ranks.reference_accuracy) if ranks and ranks.reference_accuracy is not None else "no labels",
                percent(ranks.candidate_accuracy) if ranks and ranks.candidate_accuracy is not None else "no labels",
                "holds" if report.passed else "FAILS",
            )
        )
    return columns, rows


def precision_table(result: DemoResult) -> tuple[Sequence[str], list[Sequence[str]]]:
    """The demo's comparison of precisions: column names and rows of text."""
    columns = ("file", "size", "accuracy", "same top-1", "ms", "engine", "parity")
    form, artifact = next(iter(result.manifests.items()))
    rows: list[Sequence[str]] = []
    for record in artifact.files:
        report = result.parity[form] if record.precision == "fp32" else result.precisions[record.precision]
        ranks = report.outputs[0].ranks
        engine, latency = result.engines.get(record.precision), result.latency.get(record.precision)
        rows.append(
            (
                record.path,
                size(record.bytes),
                percent(ranks.candidate_accuracy) if ranks and ranks.candidate_accuracy is not None else "no labels",
                percent(ranks.top1_agreement) if ranks else "",
                f"{latency:.2f}" if latency is not None else "-",
                size(engine.bytes) if engine is not None else "-",
                "holds" if report.passed else "FAILS",
            )
        )
    return columns, rows


def written_files(result: DemoResult) -> Mapping[str, Path]:
    """What a user should look at, by what it is."""
    files = {"report": result.report, "artifact": next(iter(result.artifacts.values()))}
    for precision, engine in result.engines.items():
        files[f"{precision} engine"] = files["artifact"] / engine.engine
    return files
