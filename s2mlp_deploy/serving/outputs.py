"""What the outputs of a model are: which one is a list of scores, and what can be told of the others."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.artifact import TensorInfo, is_scores
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.metrics import top_k
from s2mlp_deploy.text import join_names

LOG = logging.getLogger(__name__)

_SUMS_TO_ONE = 5e-3
"""How far the sum of probabilities may be from 1: float16 keeps three digits."""


@dataclass(frozen=True)
class OutputSummary:
    """What is told of an output that is no list of scores.

    Attributes:
        name: Of the output.
        dtype: NumPy's name of its element type.
        shape: For one image.
        min: The smallest of its finite values; None where there is none, or where it has no numbers.
        max: The largest.
        not_finite: How many values are NaN or infinite.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    min: float | None
    max: float | None
    not_finite: int


def summary_of(name: str, array: NDArray[Any]) -> OutputSummary:
    """Sums up an output of one image."""
    if array.dtype.kind not in "biuf":
        return OutputSummary(
            name, "text" if array.dtype.kind in "OSU" else str(array.dtype), array.shape, None, None, 0
        )
    finite = array[np.isfinite(array)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (None, None)
    return OutputSummary(name, str(array.dtype), array.shape, low, high, int(array.size - finite.size))


def find_scores(outputs: Sequence[TensorInfo], classes: Sequence[str] | None, wanted: str | None) -> str | None:
    """The output that is a list of scores for each image.

    That is the only one of the shape [N, C]; among several the only one with as many columns as there are class names.

    Args:
        outputs: Of the model.
        classes: Names of its classes, where known.
        wanted: The name of the output that is meant; None: find it.

    Returns:
        Its name; None where no output, or more than one, can be meant.

    Raises:
        InputError: There is no output of that name, or it is no list of scores.
    """
    fitting = [info for info in outputs if is_scores(info)]
    if wanted is not None:
        return _chosen(outputs, wanted).name
    if classes is not None and len(fitting) > 1:
        fitting = [info for info in fitting if info.shape[1] == len(classes)] or fitting
    if len(fitting) > 1:
        LOG.warning(
            "the outputs %s can all be scores; choose one with --output NAME (Predictor(..., output=NAME))",
            join_names((info.name for info in fitting), last="and"),
        )
    return fitting[0].name if len(fitting) == 1 else None


def _chosen(outputs: Sequence[TensorInfo], wanted: str) -> TensorInfo:
    info = next((info for info in outputs if info.name == wanted), None)
    scores = [info.name for info in outputs if is_scores(info)]
    # An output of other shapes is not asked for as scores: it is told of anyway.
    fix = f"choose {join_names(scores, last='or')}" if scores else "leave --output out: what the outputs are is told"
    if info is None:
        raise InputError(
            f"the model has no output {wanted!r}, only {join_names(item.name for item in outputs)}", fix=fix
        )
    if not is_scores(info):
        shape = "x".join(map(str, info.shape)) or "a single number"
        raise InputError(f"the output {wanted} is {info.dtype} {shape}, which is no list of scores", fix=fix)
    return info


def probabilities_of(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Softmax of the finite scores [C] of an image; scores that are probabilities already stay as they are."""
    if (scores >= 0).all() and abs(float(scores.sum()) - 1) < _SUMS_TO_ONE:
        return scores
    weights = np.exp(scores - scores.max())
    return np.asarray(weights / weights.sum())


def best_classes(
    scores: NDArray[np.float64], top: int, names: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """The best classes, best first, and their probabilities; indices as text where there are no names for them all."""
    probabilities = probabilities_of(scores)
    best = top_k(scores[None], top)[0]
    known = names is not None and len(names) == len(scores)
    return (
        tuple(names[index] if known and names is not None else str(index) for index in best),
        tuple(float(probabilities[index]) for index in best),
    )
