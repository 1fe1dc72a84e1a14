"""What the files of a conversion are measured on, and by which score."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from s2mlp_deploy.artifact import Manifest, TensorInfo, fitting_batch, is_scores
from s2mlp_deploy.data.caching import Batch, CachedBatches
from s2mlp_deploy.data.dataset import ModelData
from s2mlp_deploy.data.noise import NOISE_SAMPLES, NoiseBatches
from s2mlp_deploy.engines.onnxruntime import OnnxRuntimeEngine
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.precision.accuracy import Scorer
from s2mlp_deploy.precision.options import PrecisionOptions
from s2mlp_deploy.preprocess import Preprocessing
from s2mlp_deploy.text import join_names

LOG = logging.getLogger(__name__)

_COMPARED_SAMPLES = 64
"""Samples that outputs are compared on where nothing is scored: maps have thousands of elements each."""


def scored_output(manifest: Manifest, options: PrecisionOptions) -> TensorInfo | None:
    """The output that is scored: the user's choice, or the first that is a list of scores.

    One with as many scores as there are names of classes goes first, as it does for ``predict``.

    Returns:
        None where no output is a list of scores, or a metric of the user's own takes what it likes.

    Raises:
        InputError: There is no output of the name that the user gave.
    """
    infos = {info.name: info for info in manifest.outputs}
    chosen = options.score_output
    if chosen is None:
        scores = [] if options.metric is not None else [info for info in infos.values() if is_scores(info)]
        named = [info for info in scores if manifest.classes and info.shape[1] == len(manifest.classes)]
        return next(iter(named or scores), None)
    if chosen not in infos:
        raise InputError(
            f"the model has no output {chosen!r}", where="--score-output", fix=f"choose {join_names(infos, last='or')}"
        )
    return infos[chosen]


def make_scorer(
    path: Path,
    manifest: Manifest,
    options: PrecisionOptions,
    calibration: tuple[ModelData, CachedBatches],
    asked: bool,
    open_scored: Callable[[], ModelData],
    progress: Callable[[int, int], None],
) -> Scorer:
    """What measures the files of an artifact beside its float32 file: scores, or where there are none distances.

    Args:
        path: The float32 file.
        manifest: What is known of it.
        options: What is wanted.
        calibration: The data that ranges are measured on.
        asked: Whether the user asked for a score: no list of scores is an error then.
        open_scored: Opens what is scored on.
        progress: Told, while a file is measured, how many samples are done, and how many there are.

    Raises:
        DataError: What the user wants scored is no list of scores, or a label is no class of the model.
        InputError: There is no output of the name that the user gave.
    """
    output = scored_output(manifest, options)
    scored = output is not None or asked
    data = open_scored() if scored else calibration[0]
    if not scored:
        LOG.warning(
            "%s no list of scores per image, so the files are not scored, only compared with fp32; "
            "for a score of your own: --metric FILE.py:FUNCTION, or PrecisionOptions(metric=...)",
            f"the output {manifest.outputs[0].name} is" if len(manifest.outputs) == 1 else "the outputs are",
        )
    # What is hashed first would be told as the last thing that was done, for as long as float32 runs.
    data_sha256, total = data.content_hash, data.count if scored else min(data.count, _COMPARED_SAMPLES)
    scorer = Scorer(
        OnnxRuntimeEngine(path, threads=options.threads),
        CachedBatches(data) if scored else _First(calibration[1], _COMPARED_SAMPLES),
        described=data.described,
        classes=manifest.classes,
        preprocessing=Preprocessing.from_dict(manifest.preprocessing) if manifest.preprocessing is not None else None,
        metric=options.metric,
        data_sha256=data_sha256,
        output=output.name if output is not None else None,
        scored=scored,
        noise=_noise_like(manifest, calibration[1], options.seed),
        names=data.name_of,
        on_samples=lambda done: progress(min(done, total), total),
    )
    _warn_of_fine_budgets(options, scorer)
    return scorer


def _warn_of_fine_budgets(options: PrecisionOptions, scorer: Scorer) -> None:
    if options.metric is not None or not scorer.counted:
        return
    one_image = 100 / scorer.counted
    drops = [options.limits_of(precision).max_drop for precision in options.files]
    finest = min((drop for drop in drops if drop), default=one_image)
    if finest < one_image:
        LOG.warning(
            "--max-drop %g is finer than %d images can tell: each is worth %.2g points, so no image may be lost; "
            "score on more (--eval-data, --eval-samples)",
            finest,
            scorer.counted,
            one_image,
        )


def noise_scorer(path: Path, described: str, noise: NoiseBatches | list[Batch], threads: int) -> Scorer:
    """The same where there is no data: outputs are compared on noise.

    Args:
        path: The float32 file.
        described: The noise in words.
        noise: Batches.
        threads: Of ONNX Runtime; 0 lets it choose.
    """
    return Scorer(OnnxRuntimeEngine(path, threads=threads), None, described=described, noise=noise)


def _noise_like(manifest: Manifest, batches: CachedBatches, seed: int) -> NoiseBatches | None:
    """What parity compares on without data; None for files that take decoded images, of which noise is none."""
    if manifest.preprocessing_in_graph:
        return None
    feeds = next(batches.first(1))
    examples = [np.asarray(array) for array in feeds.values()]
    batch, whole = fitting_batch(manifest.limits, 8)
    return NoiseBatches(manifest.inputs, examples, samples=NOISE_SAMPLES, batch=batch, whole=whole, seed=seed)


class _First:
    """The first batches of data, without their labels."""

    def __init__(self, batches: CachedBatches, samples: int) -> None:
        self._batches = batches
        self._samples = samples

    def __iter__(self) -> Iterator[Batch]:
        """Feeds by input name."""
        return ((feeds, None) for feeds in self._batches.first(self._samples))
