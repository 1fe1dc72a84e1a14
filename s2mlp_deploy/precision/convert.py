"""The whole way from a float32 graph to the graphs of other precisions, and what is known of them."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import onnx_ir as ir
from numpy.typing import NDArray

from s2mlp_deploy.artifact import (
    CALIBRATION_CACHE,
    CalibrationRecord,
    Manifest,
    PrecisionException,
    fitting_batch,
    model_file,
)
from s2mlp_deploy.calibration.measure import cache_key, known_statistics, measure
from s2mlp_deploy.calibration.observe import Observer, Statistics
from s2mlp_deploy.calibration.store import Foreign, Key
from s2mlp_deploy.choices import MIN_SAMPLES
from s2mlp_deploy.data.caching import CachedBatches
from s2mlp_deploy.data.dataset import ModelData, open_data
from s2mlp_deploy.evidence.accuracy import AS_IN_THE_FILE, AccuracyReport, BudgetSearch
from s2mlp_deploy.evidence.calibration import CalibrationReport
from s2mlp_deploy.precision.accuracy import Scorer, engine_of
from s2mlp_deploy.precision.budget import keep_budget
from s2mlp_deploy.precision.derive import Derived, derive
from s2mlp_deploy.precision.options import PrecisionOptions, check_opset, is_half
from s2mlp_deploy.precision.placements import Calibrated, placement_of
from s2mlp_deploy.precision.quantizable import OpSelection, batch_for, observed_values, quantizable_ops, select_ops
from s2mlp_deploy.precision.report import calibration_report
from s2mlp_deploy.precision.scoring import make_scorer, noise_scorer, scored_output
from s2mlp_deploy.precision.sensitivity import layer_sqnr
from s2mlp_deploy.preprocess import Preprocessing
from s2mlp_deploy.progress import ProgressCallback, no_progress

LOG = logging.getLogger(__name__)

Batch: TypeAlias = tuple[dict[str, NDArray[Any]], Any]
"""Inputs by name, and labels."""

_SENSITIVITY_SAMPLES = 64
"""Samples for a layer's error: each has hundreds of elements, so the ratio of sums is settled long before."""


@dataclass(frozen=True)
class Converted:
    """Graphs that are not written yet, and what is known of them.

    Attributes:
        graphs: One a file.
        exceptions: Layers in higher precision than their file's.
        calibration: What the ranges were measured on.
        accuracy: How near the graphs are to float32, and what they score where there was something to score.
        ranges: What the calibration saw and chose.
        shapes: Of the inputs in a batch that was measured, by name.
    """

    graphs: tuple[Derived, ...]
    exceptions: tuple[PrecisionException, ...]
    calibration: CalibrationRecord
    accuracy: AccuracyReport
    ranges: CalibrationReport
    shapes: Mapping[str, tuple[int, ...]]


def convert(
    model: ir.Model,
    path: Path,
    manifest: Manifest,
    options: PrecisionOptions,
    *,
    home: Path,
    noise: Iterable[Batch] = (),
    foreign_cache: Foreign = "refuse graph",
    progress: ProgressCallback = no_progress,
) -> Converted:
    """Measures a float32 graph and derives the graphs of other precisions.

    Args:
        model: The graph.
        path: Its file.
        manifest: What is known of it.
        options: What is wanted; :meth:`PrecisionOptions.check` has passed.
        home: Where the statistics are kept.
        noise: Batches to measure on where there is no data.
        foreign_cache: What to do with statistics of another graph or other data; those in a cache that was named are
            never replaced.
        progress: Told what is being done.

    Raises:
        InputError: An exclusion matches nothing, the opset is too old, or there is no output of the name to score.
        DataError: The data cannot be used.
        QuantizationError: The graph cannot be quantized, or the calibration cache is of another one.
        CheckFailedError: The accuracy budget cannot be kept.
    """
    check_opset(options.files, manifest.opset)
    half = "fp16" in options.files  # There every node can be excluded, elsewhere what would be quantized.
    options.exclusion.check(model.graph if half else [op.node for op in quantizable_ops(model)])
    # A generator that serves both steps is no request to score on it.
    conversion = _Conversion(model, path, manifest, _walked_once(options), options.score_asked, progress)
    return conversion.run(home, noise, foreign_cache)


def with_precisions(manifest: Manifest, converted: Converted) -> Manifest:
    """A manifest with what is known of new graphs; what was said of files they replace goes.

    Args:
        manifest: As it is on the disk now: another command may have renewed it since the graphs were begun.
        converted: The graphs.
    """
    files = {graph.file for graph in converted.graphs}
    older = tuple(item for item in manifest.precision_exceptions if item.file not in files)
    return replace(manifest, precision_exceptions=older + converted.exceptions, calibration=converted.calibration)


def with_calibration_of_quantized(manifest: Manifest, earlier: CalibrationRecord | None) -> Manifest:
    """A manifest with the earlier calibration where its quantized files stay and the new one quantized nothing.

    float16 takes only the largest magnitudes from a calibration, quantized files take their ranges: those are what a
    reader of the manifest asks for.

    Args:
        manifest: With the new calibration.
        earlier: What the manifest said before.
    """
    new = manifest.calibration
    half = model_file("fp16")
    if new is None or earlier is None or set(new.files) != {half}:
        return manifest
    staying = tuple(file for file in earlier.files if file != half)
    return replace(manifest, calibration=replace(earlier, files=staying)) if staying else manifest


def _walked_once(options: PrecisionOptions) -> PrecisionOptions:
    """Options whose data can be calibrated and scored on, also where it is a generator that serves both."""
    if options.eval_data is not None or not isinstance(options.data, Iterator):
        return options
    data, eval_data = ((item for item in copy) for copy in itertools.tee(options.data))
    return replace(options, data=data, eval_data=eval_data)


@dataclass
class _Conversion:
    """One run of :func:`convert`: what its steps share."""

    model: ir.Model
    path: Path
    manifest: Manifest
    options: PrecisionOptions
    score_asked: bool
    progress: ProgressCallback
    sqnr: dict[str, Mapping[str, float]] = field(default_factory=dict)
    searches: dict[str, BudgetSearch] = field(default_factory=dict)
    scoring: str = "scoring fp32"
    """What progress says while samples are scored."""

    def run(self, home: Path, noise: Iterable[Batch], foreign_cache: Foreign) -> Converted:
        options, files = self.options, self.options.files
        quantized = [precision for precision in files if precision != "fp16"]
        for precision in quantized:
            # A file that cannot be made is refused before time goes into the others.
            dtype = placement_of(precision, reduce_range=options.reduce_range).scheme.weight_dtype()
            select_ops(self.model, options.exclusion, dtype=dtype)
        scored_output(self.manifest, options)  # A name that is no output's is refused before anything is read.
        # What fp8 selects is among it.
        selection = select_ops(self.model, options.exclusion) if quantized else OpSelection((), {})
        values = observed_values(selection)
        batches: CachedBatches | None = None
        feeds: Mapping[str, NDArray[Any]]
        if options.data is None:
            feeds = next(inputs for inputs, _ in noise)
            statistics, record = self._measured_on_noise(values, noise)
            scorer = noise_scorer(self.path, record.data, list(noise), options.threads)
        else:
            data = self._open(options.data, options.samples, batch_for(values))
            batches = CachedBatches(data)
            cache = Path(options.cache) if options.cache is not None else home / CALIBRATION_CACHE
            key = cache_key(self.path, data, self._preprocessing)
            # A cache that was named on purpose is never silently replaced; what cannot be used is refused at once.
            known = known_statistics(values, cache, key, "refuse" if options.cache is not None else foreign_cache)
            # Data that cannot be scored on is refused before time goes into ranges.
            scorer = self._scorer(data, batches)
            statistics = self._measured(data, batches, values, cache, key, known)
            scorer.check_finite()
            feeds = next(batches.first(1))
            _tell_subnormals(statistics)
            record = CalibrationRecord(
                data.described,
                data.content_hash,
                statistics.samples,
                statistics.skipped,
                data.duplicates,
                options.method if quantized else "maxima",
                (),
            )
        graphs = []
        for precision in files:
            self.progress(f"converting to {precision}", 0, None)
            keep: AbstractSet[str] = frozenset()
            if precision in quantized and batches is not None:
                keep = self._kept(precision, statistics, scorer)
            graphs.append(self._derive(precision, statistics, keep, half_io=options.half_io))
        record = replace(record, files=tuple(graph.file for graph in graphs))
        return Converted(
            tuple(graphs),
            tuple(item for graph in graphs for item in graph.exceptions),
            record,
            self._accuracy(scorer, graphs),
            calibration_report(record, selection, statistics, quantized),
            {name: tuple(array.shape) for name, array in feeds.items()},
        )

    @property
    def _preprocessing(self) -> Preprocessing | None:
        described = self.manifest.preprocessing
        return Preprocessing.from_dict(described) if described is not None else None

    def _open(self, data: str | Path | Iterable[Any], samples: int | None, batch: int) -> ModelData:
        batch, whole = fitting_batch(self.manifest.limits, batch)
        return open_data(
            data,
            inputs=self.manifest.inputs,
            preprocessing=self._preprocessing,
            classes=self.manifest.classes,
            samples=samples,
            seed=self.options.seed,
            batch=batch,
            whole=whole,
            minimum=MIN_SAMPLES,
            progress=self.progress,
        )

    def _measured_on_noise(
        self, values: tuple[ir.Value, ...], noise: Iterable[Batch]
    ) -> tuple[Statistics, CalibrationRecord]:
        observer, statistics = Observer(self.model, values, threads=self.options.threads), Statistics()
        for feeds, _ in noise:
            statistics = observer.update(statistics, feeds)
        LOG.warning("float16 ranges were measured on noise; give --calibration-data to measure them on real images")
        return statistics, CalibrationRecord("seeded noise", "", statistics.samples, 0, 0, "maxima", ())

    def _measured(
        self,
        data: ModelData,
        batches: CachedBatches,
        values: tuple[ir.Value, ...],
        cache: Path,
        key: Key,
        known: tuple[Statistics, bool],
    ) -> Statistics:
        statistics, complete = known
        if complete:
            self.progress("calibrating", data.count, data.count)
        else:
            statistics = measure(
                self.model,
                values,
                data,
                batches,
                cache,
                key,
                statistics,
                threads=self.options.threads,
                progress=self.progress,
            )
        for warning in data.warnings:
            LOG.warning("%s", warning)
        return statistics

    def _scorer(self, data: ModelData, batches: CachedBatches) -> Scorer:
        chosen = self.options.eval_data if self.options.eval_data is not None else self.options.data
        assert chosen is not None
        return make_scorer(
            self.path,
            self.manifest,
            self.options,
            (data, batches),
            self.score_asked,
            lambda: self._open(chosen, self.options.eval_samples, 16),
            lambda done, total: self.progress(self.scoring, done, total),
        )

    def _derive(self, precision: str, statistics: Statistics, keep: AbstractSet[str], *, half_io: bool) -> Derived:
        options = self.options
        return derive(
            self.model,
            precision,
            statistics,
            method=options.method,
            keep=keep,
            exclusion=options.exclusion,
            reduce_range=options.reduce_range,
            half_io=half_io,
        )

    def _kept(self, precision: str, statistics: Statistics, scorer: Scorer) -> AbstractSet[str]:
        """Measures what each layer costs, and searches those that the budget keeps in higher precision."""
        options = self.options
        costs = layer_sqnr(
            self.model,
            placement_of(precision, reduce_range=options.reduce_range).scheme,
            Calibrated(statistics.histograms, options.method),
            # Of what ranges were measured on, nothing is clipped: only other data tells which layer minds them.
            scorer.inputs(_SENSITIVITY_SAMPLES),
            exclusion=options.exclusion,
            threads=options.threads,
        )
        self.sqnr[precision] = costs
        max_drop, reference = options.limits_of(precision).max_drop, scorer.reference_score
        if max_drop is None or reference is None:
            return frozenset()

        def evaluate(keep: AbstractSet[str]) -> float:
            self._begin_scoring(f"scoring {precision} with {len(keep)} layers kept")
            graph = self._derive(precision, statistics, keep, half_io=False).model
            return scorer.score(engine_of(graph, rounded=is_half(precision), threads=options.threads))

        search = keep_budget(costs, evaluate, reference=reference, max_drop=max_drop, metric=scorer.metric)
        self.searches[precision] = search
        return {layer.layer for layer in search.kept}

    def _begin_scoring(self, what: str) -> None:
        self.scoring = what
        self.progress(what, 0, None)

    def _accuracy(self, scorer: Scorer, graphs: Iterable[Derived]) -> AccuracyReport:
        rows = [scorer.reference_row(model_file("fp32"), self.path.stat().st_size)]
        for graph in graphs:
            self._begin_scoring(f"scoring {graph.precision}")
            rounded = is_half(graph.precision)
            rows.append(
                scorer.row(
                    engine_of(graph.model, rounded=rounded, threads=self.options.threads),
                    file=graph.file,
                    precision=graph.precision,
                    size=0,
                    arithmetic="rounded to float16" if rounded else AS_IN_THE_FILE,
                )
            )
        report = scorer.report(rows, self.sqnr, self.searches)
        judged = (
            replace(row, failures=self.options.limits_of(row.precision).unmet(row, report.drop(row)))
            for row in report.rows[1:]
        )
        return replace(report, rows=(report.rows[0], *judged))


def _tell_subnormals(statistics: Statistics) -> None:
    """Warns of activations below the smallest normal float32, with which processors compute many times slower."""
    if not statistics.subnormal:
        return
    most = max(statistics.subnormal, key=lambda name: statistics.subnormal[name])
    LOG.warning(
        "%s values of %d activations are subnormal on this data, most of them in %s: processors may compute with them "
        "many times slower; `predict --flush-denormals` takes them for 0",
        f"{sum(statistics.subnormal.values()):,}",
        len(statistics.subnormal),
        most,
    )
