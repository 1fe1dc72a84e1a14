"""How well a graph of another precision does: its score on data, the error of its outputs, the images it gets wrong."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from PIL import Image

from s2mlp_deploy.artifact import is_scores
from s2mlp_deploy.data.caching import Batches, first_inputs
from s2mlp_deploy.engines.base import Engine, FileEngine
from s2mlp_deploy.engines.of_graph import open_graph
from s2mlp_deploy.errors import DataError
from s2mlp_deploy.evidence.accuracy import (
    ACCURACY,
    AGREEMENT,
    AS_IN_THE_FILE,
    AccuracyReport,
    AccuracyRow,
    BudgetSearch,
    Guess,
    WorstImage,
)
from s2mlp_deploy.evidence.machine import environment_here
from s2mlp_deploy.metrics import top_k
from s2mlp_deploy.precision.fidelity import Beside
from s2mlp_deploy.precision.rounding import round_like_half
from s2mlp_deploy.preprocess import Preprocessing

Metric = Callable[[Engine], float]
"""A user's own score of an engine, in points, higher is better: mAP of a detector on its own data, for example."""


@dataclass(frozen=True)
class OutputMetric:
    """A user's own score of outputs, in points, higher is better.

    Attributes:
        name: Of the score.
        measure: Takes the output that is scored, or where a network has several and none was chosen a dict of all by
            name, each of all samples; and the labels, int64 [N], -1 where a sample has none, or None without any.
    """

    name: str
    measure: Callable[[NDArray[Any] | dict[str, NDArray[Any]], NDArray[np.int64] | None], float]


WORST = 6
"""Images that are shown with both predictions."""

_THUMBNAIL, _PNG_LIMIT, _QUALITY = 96, 4096, 75
"""Longest side of a thumbnail; bytes up to which it is a PNG; quality of a larger one, a JPEG of some 3 kB then."""


class Scorer:
    """Measures graphs of one network beside its float32 graph, whose outputs are computed once.

    Args:
        reference: The float32 file.
        data: What to score on; None where there is only noise.
        described: That in words.
        classes: Names of the classes, where known.
        preprocessing: For the thumbnails.
        metric: A user's own score; default is top-1 accuracy where there are labels, agreement with float32 elsewhere.
        data_sha256: Of the samples and their labels.
        output: The output that is scored; default the first.
        scored: Whether there is a score. Where there is none, outputs are compared and nothing else.
        noise: Seeded noise to compare outputs on as well, as parity does without data.
        names: What the samples of ``data`` are called, by their number; asked after they were gone through.
        on_samples: Told, while an engine goes through ``data``, how many samples are done.

    Raises:
        DataError: There is no metric, and the output is no list of scores; or a label is no class of the model.
    """

    def __init__(
        self,
        reference: Engine,
        data: Batches | None,
        *,
        described: str,
        classes: tuple[str, ...] | None = None,
        preprocessing: Preprocessing | None = None,
        metric: Metric | OutputMetric | None = None,
        data_sha256: str = "",
        output: str | None = None,
        scored: bool = True,
        noise: Batches | None = None,
        names: Callable[[int], str] | None = None,
        on_samples: Callable[[int], None] | None = None,
    ) -> None:
        self._data = data
        self._names = names
        self._data_sha256 = data_sha256
        self.described = described
        self._classes = classes
        self._preprocessing = preprocessing
        self._metric = metric
        self._beside = Beside(reference, data, on_samples) if data is not None else None
        self._on_noise = Beside(reference, noise) if noise is not None else None
        infos = {info.name: info for info in reference.outputs}
        self._output = output or next(iter(infos))
        self._scored = scored and data is not None
        self._expected: NDArray[Any] | None = None
        self._labels: NDArray[np.int64] | None = None
        self.images = self.counted = 0
        self.reference_score: float | None = None
        if not self._scored or self._beside is None:
            self._kept: tuple[str, ...] = ()
            return
        info = infos[self._output]
        if metric is None and not is_scores(info):
            raise DataError(
                f"the output {self._output} is {list(info.shape[1:])} per image, which is no list of scores",
                fix="score it with a metric of your own: --metric FILE.py:FUNCTION, or PrecisionOptions(metric=...)",
            )
        if isinstance(metric, OutputMetric):
            self._kept = tuple(infos) if output is None else (output,)
        else:
            self._kept = (self._output,) if is_scores(info) else ()
        run = self._beside.reference(self._kept)
        known = run.labels[run.labels >= 0]
        self._expected = run.outputs[self._output] if is_scores(info) else None
        classes_known = self._expected.shape[1] if self._expected is not None else 0
        if metric is None and known.size and known.max() >= classes_known:
            raise DataError(
                f"the data has the label {known.max()}, and the model has {classes_known} classes",
                fix="use data whose classes are the model's",
            )
        self._labels = run.labels if known.size else None
        self.images = len(run.labels)
        # Images without a label count in no accuracy.
        self.counted = int(known.size) if self._labels is not None and metric is None else self.images
        self.reference_score = self._points(run.outputs) if not callable(metric) else metric(reference)

    def inputs(self, samples: int) -> Iterator[dict[str, NDArray[Any]]]:
        """Inputs by name of the first samples that are scored on; none where there is only noise."""
        return first_inputs(self._data if self._data is not None else (), samples)

    def check_finite(self) -> None:
        """Refuses a reference that says nothing of some images.

        After the calibration, which names the first tensor that is not finite.

        Raises:
            DataError: float32 itself gives NaN or infinite scores.
        """
        if self._metric is not None or self._expected is None:
            return
        if broken := int((first_class(self._expected) < 0).sum()):
            raise DataError(
                f"float32 itself gives NaN or infinite scores on {broken} of {len(self._expected)} images, so nothing "
                "can be compared with it",
                where=self.described,
                fix="check the weights and the preprocessing, or leave these images out",
            )

    @property
    def metric(self) -> str:
        """What the score is; empty where there is none."""
        if not self._scored:
            return ""
        if isinstance(self._metric, OutputMetric):
            return self._metric.name
        if self._metric is not None:
            return getattr(self._metric, "__name__", "the given metric")
        return ACCURACY if self._labels is not None else AGREEMENT

    def score(self, engine: Engine) -> float:
        """The score of an engine, in points; only where there is one."""
        if callable(self._metric):
            return self._metric(engine)
        assert self._beside is not None
        return self._points(self._beside.run(engine, self._kept).outputs)

    def reference_row(self, file: str, size: int) -> AccuracyRow:
        """The float32 file's own figures."""
        agreement = 100.0 if self._expected is not None else None
        return AccuracyRow(file, "fp32", size, self.reference_score, agreement, None, AS_IN_THE_FILE)

    def row(self, engine: Engine, *, file: str, precision: str, size: int, arithmetic: str) -> AccuracyRow:
        """All figures of an engine."""
        run = self._beside.run(engine, self._kept) if self._beside is not None else None
        noise = self._on_noise.run(engine).figures if self._on_noise is not None else ()
        score = agreement = None
        worst: tuple[WorstImage, ...] = ()
        if run is not None:
            self.images = len(run.labels)
            found = run.outputs.get(self._output)
            if self._expected is not None and found is not None and found.shape == self._expected.shape:
                same = first_class(found) == self._expected.argmax(axis=1)
                agreement = float(same.mean() * 100)
                worst = self._worst(found.astype(np.float32))
            if self._scored:
                score = self._metric(engine) if callable(self._metric) else self._points(run.outputs)
        figures = run.figures if run is not None else ()
        of_output = next((o.metrics for o in figures or noise if o.name == self._output), None)
        return AccuracyRow(
            file,
            precision,
            size,
            score,
            agreement,
            # Figures leave out what is not finite.
            None if of_output is None or of_output.not_finite else of_output.sqnr,
            arithmetic,
            worst,
            figures,
            noise,
        )

    def report(
        self,
        rows: Sequence[AccuracyRow],
        sqnr: Mapping[str, Mapping[str, float]],
        searches: Mapping[str, BudgetSearch],
    ) -> AccuracyReport:
        """The evidence of graphs that were measured here.

        Args:
            rows: Their figures, float32 first.
            sqnr: By precision, every layer's signal-to-quantization-noise ratio in dB.
            searches: By precision, how a budget was kept.
        """
        return AccuracyReport(
            self.metric,
            self.described,
            self.images,
            tuple(rows),
            {name: dict(layers) for name, layers in sqnr.items()},
            dict(searches),
            data_sha256=self._data_sha256,
            output=self._output if self._scored else "",
            environment=environment_here(),
        )

    def _points(self, outputs: Mapping[str, NDArray[Any]]) -> float:
        if isinstance(self._metric, OutputMetric):
            several = len(self._kept) > 1
            return self._metric.measure(dict(outputs) if several else outputs[self._kept[0]], self._labels)
        assert self._expected is not None
        first = first_class(outputs[self._output])
        if self._labels is None:
            return float((first == top_k(self._expected, 1)[:, 0]).mean() * 100)
        known = self._labels >= 0
        return float((first == self._labels)[known].mean() * 100)

    def _worst(self, outputs: NDArray[np.float32]) -> tuple[WorstImage, ...]:
        """Images with another first class come first, then by distance."""
        assert self._expected is not None
        peak = max(float(np.abs(self._expected).max()), 1e-30)
        distance = np.abs(outputs - self._expected).max(axis=1) / peak
        differs = outputs.argmax(axis=1) != self._expected.argmax(axis=1)
        chosen = np.lexsort((-distance, ~differs))[:WORST]
        thumbnails = self._thumbnails({int(index) for index in chosen})
        return tuple(
            WorstImage(
                thumbnails.get(index, ""),
                self._name(int(self._labels[index])) if self._labels is not None and self._labels[index] >= 0 else "",
                self._guess(self._expected[index]),
                self._guess(outputs[index]),
                float(distance[index]),
                index,
                self._names(index) if self._names is not None else "",
            )
            for index in map(int, chosen)
        )

    def _guess(self, scores: NDArray[np.float32]) -> Guess:
        with np.errstate(invalid="ignore"):  # Scores that are not finite have no probability: NaN.
            weights = np.exp(scores.astype(np.float64) - float(scores.max()))
        best = int(scores.argmax())
        return Guess(self._name(best), float(weights[best] / weights.sum()))

    def _name(self, index: int) -> str:
        return self._classes[index] if self._classes and index < len(self._classes) else str(index)

    def _thumbnails(self, wanted: set[int]) -> dict[int, str]:
        found: dict[int, str] = {}
        start = 0
        for feeds, _ in self._data or ():
            array = next(iter(feeds.values()))
            for index in wanted & set(range(start, start + len(array))):
                found[index] = thumbnail(array[index - start], self._preprocessing)
            start += len(array)
            if len(found) == len(wanted):
                break
        return found


def first_class(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """The class with the largest score of each row of [N, classes]; −1 where a score is NaN or the largest infinite.

    Such a row names no class: a search for the largest would return some index all the same.
    """
    return np.where(np.isfinite(scores.max(axis=1)), top_k(scores, 1)[:, 0], -1)


def thumbnail(array: NDArray[Any], preprocessing: Preprocessing | None) -> str:
    """A model's input as a small PNG or JPEG in a ``data:`` address; empty where it is no image.

    Evidence and the page carry these: a PNG keeps a small image as it is, of a photograph it would be 20 kB.

    Args:
        array: uint8 [H, W, 3], or float [C, H, W] that ``preprocessing`` made.
        preprocessing: What is undone.
    """
    if array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3:
        pixels = array
    elif preprocessing is not None and array.ndim == 3 and array.shape[0] == preprocessing.channels:
        mean, std = (np.asarray(v, np.float32)[:, None, None] for v in (preprocessing.mean, preprocessing.std))
        pixels = np.clip((array * std + mean) / preprocessing.scale, 0, 255).astype(np.uint8).transpose(1, 2, 0)
        pixels = pixels[..., ::-1] if preprocessing.color == "BGR" else pixels
    else:
        return ""
    image = Image.fromarray(np.ascontiguousarray(pixels if pixels.shape[2] == 3 else pixels[..., 0]))
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    stream, kind = io.BytesIO(), "png"
    image.save(stream, "PNG", optimize=True)
    if stream.tell() > _PNG_LIMIT:
        stream, kind = io.BytesIO(), "jpeg"
        image.save(stream, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/{kind};base64," + base64.b64encode(stream.getvalue()).decode()


def engine_of(model: ir.Model, *, rounded: bool, threads: int = 0) -> FileEngine:
    """An engine of a graph that is not on the disk.

    Args:
        model: The graph.
        rounded: Whether float16 results are really rounded to float16 (:mod:`s2mlp_deploy.precision.rounding`).
        threads: Of ONNX Runtime; 0 lets it choose.
    """
    return open_graph(round_like_half(model) if rounded else model, threads=threads)
