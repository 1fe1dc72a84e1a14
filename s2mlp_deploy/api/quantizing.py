"""Other precisions: float16 and quantized files from a float32 one and calibration data."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
from numpy.typing import NDArray

from s2mlp_deploy.api.evidence import save_scores
from s2mlp_deploy.artifact import (
    CALIBRATION_CACHE,
    ArtifactWriter,
    CalibrationRecord,
    Manifest,
    PrecisionException,
    model_file,
    read_manifest,
    verify_file,
)
from s2mlp_deploy.calibration.ranges import check_method
from s2mlp_deploy.choices import CALIBRATION_METHOD, CALIBRATION_SAMPLES, EVAL_SAMPLES
from s2mlp_deploy.data.dataset import ModelData, open_data
from s2mlp_deploy.errors import DataError, InputError
from s2mlp_deploy.evidence.accuracy import AS_IN_THE_FILE, AccuracyReport, BudgetSearch
from s2mlp_deploy.evidence.calibration import CalibrationReport
from s2mlp_deploy.progress import ProgressCallback, no_progress

if TYPE_CHECKING:
    from s2mlp_deploy.calibration.observe import Statistics
    from s2mlp_deploy.calibration.store import Foreign
    from s2mlp_deploy.precision.accuracy import Metric, Scorer
    from s2mlp_deploy.precision.derive import Derived
    from s2mlp_deploy.preprocess import Preprocessing

LOG = logging.getLogger(__name__)

_SENSITIVITY_SAMPLES = 64
"""Samples for a layer's error: each has hundreds of cells, so the ratio of sums is settled long before."""


@dataclass(frozen=True)
class PrecisionOptions:
    """What files to make beside float32, and from what.

    Attributes:
        precisions: ``fp16``, ``int8`` (two files: for ONNX Runtime and for TensorRT), ``fp8``.
        data: What :func:`~s2mlp_deploy.data.dataset.open_data` takes. float16 alone does without.
        method: How ranges are chosen: ``minmax``, ``entropy``, ``percentile`` or ``mse``.
        samples: Measure ranges on at most so many.
        max_drop: Points that a quantized file's score may lie below float32's; None sets no budget.
        metric: A score of an engine in points, higher is better; default top-1 accuracy where there are labels,
            agreement with float32 elsewhere.
        eval_data: What to score on; default ``data``.
        eval_samples: Score on at most so many.
        cache: Where the statistics are kept; default ``calibration.npz`` in the artifact.
        half_io: Whether float16 graphs have float16 inputs and outputs.
        seed: Chooses the samples.
        threads: Of ONNX Runtime; 0 lets it choose.
    """

    precisions: Sequence[str] = ("int8",)
    data: str | Path | Iterable[Any] | None = None
    method: str = CALIBRATION_METHOD
    samples: int | None = CALIBRATION_SAMPLES
    max_drop: float | None = None
    metric: Metric | None = None
    eval_data: str | Path | Iterable[Any] | None = None
    eval_samples: int | None = EVAL_SAMPLES
    cache: str | Path | None = None
    half_io: bool = False
    seed: int = 0
    threads: int = 0

    @property
    def files(self) -> tuple[str, ...]:
        """The precisions of the files to make.

        Raises:
            InputError: An option has a value that cannot be used.
        """
        from s2mlp_deploy.precision.derive import file_precisions

        check_method(self.method)
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise InputError(f"--max-drop is {self.max_drop:g}", fix="give percentage points from 0 to 100")
        for name, number in (("--samples", self.samples), ("--eval-samples", self.eval_samples)):
            if number is not None and number < 1:
                raise InputError(f"{name} is {number}", fix="give at least 1")
        files = file_precisions(self.precisions)
        if self.data is None and any(name != "fp16" for name in files):
            raise DataError(
                "int8 and fp8 need data to measure ranges on",
                fix="--calibration-data PATH: some hundreds of pictures like those the model will see",
            )
        return files


@dataclass(frozen=True)
class Quantized:
    """What was made.

    Attributes:
        manifest: Of the artifact, with the new files.
        accuracy: What the files score; None where there was no data, or where outputs are no lists of scores and
            neither a metric nor a budget was given.
    """

    manifest: Manifest
    accuracy: AccuracyReport | None


@dataclass(frozen=True)
class Made:
    """Graphs that are not written yet, and what is known of them."""

    graphs: tuple[Derived, ...]
    exceptions: tuple[PrecisionException, ...]
    calibration: CalibrationRecord
    accuracy: AccuracyReport | None
    ranges: CalibrationReport


def quantize(
    directory: str | Path, options: PrecisionOptions, *, progress: ProgressCallback = no_progress
) -> Quantized:
    """Adds files of other precisions to an artifact; those of the same precision are replaced.

    Args:
        directory: An artifact with ``model.fp32.onnx``.
        options: What to make.
        progress: Told what is being done.

    Returns:
        The manifest as written, and the scores, which are saved under ``evidence/`` too.

    Raises:
        ArtifactError: There is no artifact, or it has no float32 file.
        DataError: The data cannot be used.
        QuantizationError: The graph cannot be quantized, or the calibration cache is of another one.
        CheckFailedError: The accuracy budget cannot be kept.
        OutputError: The artifact cannot be written.
    """
    from s2mlp_deploy.export.write import GraphFile, stage

    if not options.files:
        raise InputError("fp32 is there already", fix="ask for fp16, int8 or fp8")
    if options.data is None:
        raise DataError("there is no data to measure on", fix="--data PATH")
    root = Path(directory)
    manifest = read_manifest(root)
    path = verify_file(root, manifest.file("fp32"))
    made = make(ir.load(path), path, manifest, options, home=root, progress=progress)
    progress("writing files", 0, None)
    renewed = described(manifest, made)
    with ArtifactWriter(root, force=True) as writer:
        facts = stage(writer, renewed, [GraphFile(g.file, g.precision, g.model) for g in made.graphs])
        renewed = writer.add(lambda there: described(there, made), facts)
    return Quantized(renewed, save_scores(root, renewed, made.ranges, made.accuracy))


def make(
    model: ir.Model,
    path: Path,
    manifest: Manifest,
    options: PrecisionOptions,
    *,
    home: Path,
    noise: Iterable[tuple[dict[str, NDArray[Any]], Any]] = (),
    foreign_cache: Foreign = "refuse",
    progress: ProgressCallback = no_progress,
) -> Made:
    """Measures a float32 graph and makes the graphs of other precisions.

    Args:
        model: The graph.
        path: Its file.
        manifest: What is known of it.
        options: What to make.
        home: Where the statistics are kept.
        noise: Batches to measure on where there is no data.
        foreign_cache: What to do with statistics of another graph: ``refuse`` or ``ignore``.
        progress: Told what is being done.
    """
    from s2mlp_deploy.calibration.measure import cache_key, known_statistics, measure
    from s2mlp_deploy.calibration.observe import Observer, Statistics
    from s2mlp_deploy.data.caching import CachedBatches
    from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine
    from s2mlp_deploy.precision.derive import check_opset, derive
    from s2mlp_deploy.precision.placements import PLACEMENTS, Calibrated
    from s2mlp_deploy.precision.quantizable import OpSelection, batch_for, observed_values, select_ops
    from s2mlp_deploy.precision.report import calibration_report
    from s2mlp_deploy.precision.sensitivity import layer_sqnr

    wanted = options.files
    check_opset(wanted, manifest.opset)
    quantized = [precision for precision in wanted if precision != "fp16"]
    scored, options = _scored(manifest, options), _walked_once(options)
    sites = select_ops(model) if quantized else OpSelection((), {})
    values = observed_values(sites)
    preprocessing = _preprocessing(manifest)
    scorer: Scorer | None = None
    samples: CachedBatches | None = None
    if options.data is not None:
        data = _open(options.data, manifest, preprocessing, options.samples, batch_for(values), options, progress)
        cache = Path(options.cache) if options.cache is not None else home / CALIBRATION_CACHE
        # A cache that was named on purpose is never silently replaced.
        foreign: Foreign = "refuse" if options.cache is not None else foreign_cache
        samples = CachedBatches(data)
        key = cache_key(path, data, preprocessing)
        statistics, complete = known_statistics(values, cache, key, foreign)
        # Data that cannot be scored on is refused before time goes into ranges.
        if scored:
            scorer = _scorer(
                OnnxRuntimeEngine(path, threads=options.threads), manifest, preprocessing, options, progress
            )
        else:
            LOG.warning(
                "the output %s is no list of scores per image, so the files are not scored; "
                "for a score of your own: api.quantize with PrecisionOptions(metric=...)",
                manifest.outputs[0].name,
            )
        if complete:
            progress("calibrating", data.count, data.count)
        else:
            statistics = measure(
                model, values, data, samples, cache, key, statistics, threads=options.threads, progress=progress
            )
        for warning in data.warnings:
            LOG.warning("%s", warning)
        record = CalibrationRecord(
            data.described,
            data.content_hash,
            statistics.samples,
            statistics.skipped,
            data.duplicates,
            options.method if quantized else "maxima",
            (),
        )
    else:
        observer, statistics = Observer(model, values, threads=options.threads), Statistics()
        for feeds, _ in noise:
            statistics = observer.update(statistics, feeds)
        record = CalibrationRecord("seeded noise", "", statistics.samples, 0, 0, "maxima", ())
        LOG.warning("float16 ranges were measured on noise; give --calibration-data to measure them on real pictures")
    graphs: list[Derived] = []
    searches: dict[str, BudgetSearch] = {}
    sqnr: dict[str, dict[str, float | None]] = {}
    for precision in wanted:
        progress(f"making {precision}", 0, None)
        keep: AbstractSet[str] = frozenset()
        if precision in quantized and scorer is not None:
            costs = layer_sqnr(
                model,
                PLACEMENTS[precision].scheme,
                Calibrated(statistics.histograms, options.method),
                samples.first(_SENSITIVITY_SAMPLES) if samples is not None else (),
                threads=options.threads,
            )
            sqnr[precision] = dict(costs)
            if options.max_drop is not None:
                search = _climb(model, precision, statistics, costs, scorer, options, progress)
                searches[precision], keep = search, {layer.layer for layer in search.kept}
        graphs.append(derive(model, precision, statistics, method=options.method, keep=keep, half_io=options.half_io))
    record = replace(record, files=tuple(graph.file for graph in graphs))
    accuracy = _accuracy(scorer, graphs, path, sqnr, searches, options, progress) if scorer is not None else None
    exceptions = tuple(item for graph in graphs for item in graph.exceptions)
    ranges = calibration_report(record, sites, statistics, quantized)
    return Made(tuple(graphs), exceptions, record, accuracy, ranges)


def described(manifest: Manifest, made: Made) -> Manifest:
    """The manifest with what is known of new graphs; what was said of files they replace goes."""
    files = {graph.file for graph in made.graphs}
    older = tuple(item for item in manifest.precision_exceptions if item.file not in files)
    return replace(manifest, precision_exceptions=older + made.exceptions, calibration=made.calibration)


def _preprocessing(manifest: Manifest) -> Preprocessing | None:
    from s2mlp_deploy.preprocess import Preprocessing

    return Preprocessing.from_dict(manifest.preprocessing) if manifest.preprocessing is not None else None


def _walked_once(options: PrecisionOptions) -> PrecisionOptions:
    """Options whose data can be calibrated and scored on, also where it is a generator that serves both."""
    if options.eval_data is not None or not isinstance(options.data, Iterator):
        return options
    data, eval_data = ((item for item in copy) for copy in itertools.tee(options.data))
    return replace(options, data=data, eval_data=eval_data)


def _scored(manifest: Manifest, options: PrecisionOptions) -> bool:
    """Whether files are scored: where outputs are lists of scores, or where somebody asked for it."""
    shape = manifest.outputs[0].shape
    asked = options.metric is not None or options.max_drop is not None or options.eval_data is not None
    return asked or (len(shape) == 2 and shape[1] != 1)


def _open(
    data: str | Path | Iterable[Any],
    manifest: Manifest,
    preprocessing: Preprocessing | None,
    samples: int | None,
    batch: int,
    options: PrecisionOptions,
    progress: ProgressCallback,
) -> ModelData:
    from s2mlp_deploy.calibration.measure import MIN_SAMPLES

    return open_data(
        data,
        inputs=manifest.inputs,
        preprocessing=preprocessing,
        classes=manifest.classes,
        samples=samples,
        seed=options.seed,
        batch=batch,
        minimum=MIN_SAMPLES,
        progress=progress,
    )


def _scorer(
    reference: Any,
    manifest: Manifest,
    preprocessing: Preprocessing | None,
    options: PrecisionOptions,
    progress: ProgressCallback,
) -> Scorer:
    from s2mlp_deploy.data.caching import CachedBatches
    from s2mlp_deploy.precision.accuracy import Scorer

    chosen = options.eval_data if options.eval_data is not None else options.data
    assert chosen is not None
    data = _open(chosen, manifest, preprocessing, options.eval_samples, 16, options, progress)
    progress("scoring fp32", 0, None)
    return Scorer(
        reference,
        CachedBatches(data),
        described=data.described,
        classes=manifest.classes,
        preprocessing=preprocessing,
        metric=options.metric,
    )


def _climb(
    model: ir.Model,
    precision: str,
    statistics: Statistics,
    costs: dict[str, float],
    scorer: Scorer,
    options: PrecisionOptions,
    progress: ProgressCallback,
) -> BudgetSearch:
    from s2mlp_deploy.precision.accuracy import engine_of
    from s2mlp_deploy.precision.budget import keep_budget
    from s2mlp_deploy.precision.derive import derive, is_half

    assert options.max_drop is not None

    def evaluate(keep: AbstractSet[str]) -> float:
        progress(f"scoring {precision} with {len(keep)} layers kept", 0, None)
        graph = derive(model, precision, statistics, method=options.method, keep=keep).model
        return scorer.score(engine_of(graph, rounded=is_half(precision), threads=options.threads))

    return keep_budget(
        costs, evaluate, reference=scorer.reference_score, max_drop=options.max_drop, metric=scorer.metric
    )


def _accuracy(
    scorer: Scorer,
    graphs: Sequence[Derived],
    path: Path,
    sqnr: dict[str, dict[str, float | None]],
    searches: dict[str, BudgetSearch],
    options: PrecisionOptions,
    progress: ProgressCallback,
) -> AccuracyReport:
    from s2mlp_deploy.precision.accuracy import engine_of
    from s2mlp_deploy.precision.derive import is_half

    rows = [scorer.reference_row(model_file("fp32"), path.stat().st_size)]
    for graph in graphs:
        progress(f"scoring {graph.precision}", 0, None)
        rounded = is_half(graph.precision)
        rows.append(
            scorer.row(
                engine_of(graph.model, rounded=rounded, threads=options.threads),
                file=graph.file,
                precision=graph.precision,
                size=0,
                arithmetic="rounded to float16" if rounded else AS_IN_THE_FILE,
            )
        )
    return AccuracyReport(scorer.metric, scorer.described, scorer.images, tuple(rows), sqnr, searches)
