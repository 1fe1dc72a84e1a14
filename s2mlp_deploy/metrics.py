"""Comparing two tensors: accumulators that see batch after batch and keep only sums.

Sums are float64. Nothing here knows where the tensors come from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.errors import InputError


@dataclass(frozen=True)
class TensorMetrics:
    """How far a tensor is from its reference, over all batches. A figure that is not finite is None.

    Attributes:
        max_abs: Largest absolute difference.
        peak: Largest absolute value of the reference.
        max_rel: ``max_abs`` over ``peak``. (Element by element the ratio says nothing near zero.)
        cosine: Cosine of the angle between the two, all elements as one vector. 1 when both are zero.
        psnr: Peak signal-to-noise ratio in dB; None when the tensors are equal, or the reference is zero.
        elements: How many elements were compared.
        not_finite: How many elements of the candidate are NaN or infinite; the other figures leave them out.
        reference_not_finite: The same of the reference.
        unequal: Of whole numbers and booleans, how many differ; None for floats.
        sqnr: Energy of the reference over that of the difference, in dB; None when the tensors are equal, or the
            reference is zero. Unlike the cosine it sees a factor.
    """

    max_abs: float | None
    peak: float | None
    max_rel: float | None
    cosine: float | None
    psnr: float | None
    elements: int
    not_finite: int = 0
    reference_not_finite: int = 0
    unequal: int | None = None
    sqnr: float | None = None

    @property
    def equal(self) -> bool:
        """Whether every value is finite and equal to the reference's."""
        return self.max_abs == 0 and not self.not_finite and not self.reference_not_finite


class TensorComparison:
    """Accumulates :class:`TensorMetrics`."""

    def __init__(self) -> None:
        self._max_abs = self._peak = 0.0
        self._dot = self._reference = self._candidate = self._error = 0.0
        self._elements = self._compared = self._bad = self._reference_bad = 0
        self._unequal: int | None = None

    def update(self, reference: NDArray[Any], candidate: NDArray[Any]) -> None:
        """Adds a batch.

        Raises:
            InputError: The shapes differ.
        """
        if reference.shape != candidate.shape:
            raise InputError(f"shapes differ: reference {reference.shape}, candidate {candidate.shape}")
        if not np.issubdtype(reference.dtype, np.floating):
            self._unequal = (self._unequal or 0) + int((reference != candidate).sum())
        a, b = reference.astype(np.float64).ravel(), candidate.astype(np.float64).ravel()
        fine_a, fine_b = np.isfinite(a), np.isfinite(b)
        self._elements += a.size
        self._bad += int((~fine_b).sum())
        self._reference_bad += int((~fine_a).sum())
        both = fine_a & fine_b
        if not both.all():
            a, b = a[both], b[both]
        self._compared += a.size
        if a.size == 0:
            return
        difference = a - b
        self._max_abs = max(self._max_abs, float(np.abs(difference).max()))
        self._peak = max(self._peak, float(np.abs(a).max()))
        self._dot += float(a @ b)
        self._reference += float(a @ a)
        self._candidate += float(b @ b)
        self._error += float(difference @ difference)

    def result(self) -> TensorMetrics:
        """The figures so far."""
        norms = math.sqrt(self._reference) * math.sqrt(self._candidate)
        psnr = None
        if self._error > 0 and self._peak > 0:
            psnr = _finite(20 * math.log10(self._peak) - 10 * math.log10(self._error / self._compared))
        sqnr = 10 * math.log10(self._reference / self._error) if self._error > 0 and self._reference > 0 else math.inf
        equal_zero = self._reference == 0 and self._candidate == 0
        return TensorMetrics(
            max_abs=_finite(self._max_abs),
            peak=_finite(self._peak),
            max_rel=_finite(self._max_abs / self._peak) if self._peak > 0 else (0.0 if self._max_abs == 0 else None),
            cosine=1.0 if equal_zero else (_finite(self._dot / norms) if norms > 0 else 0.0),
            psnr=psnr,
            elements=self._elements,
            not_finite=self._bad,
            reference_not_finite=self._reference_bad,
            unequal=self._unequal,
            sqnr=_finite(sqnr),
        )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def top_k(scores: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Indices of the ``k`` largest scores of each row, best first; ties go to the lower index."""
    return np.argsort(-scores.astype(np.float64), axis=1, kind="stable")[:, :k].astype(np.int64)


@dataclass(frozen=True)
class RankMetrics:
    """How classification results compare, as fractions of the images.

    Attributes:
        images: How many were seen.
        top1_agreement: Both name the same class first.
        top5_agreement: The reference's first class is among the candidate's first five (fewer with fewer classes).
        reference_accuracy: Of the reference, where labels are known.
        candidate_accuracy: Of the candidate, where labels are known.
    """

    images: int
    top1_agreement: float
    top5_agreement: float
    reference_accuracy: float | None = None
    candidate_accuracy: float | None = None

    @property
    def drop(self) -> float | None:
        """Points of accuracy that the candidate loses; None without labels."""
        if self.reference_accuracy is None or self.candidate_accuracy is None:
            return None
        return 100 * (self.reference_accuracy - self.candidate_accuracy)


class RankComparison:
    """Accumulates :class:`RankMetrics` over batches of scores [N, classes]."""

    def __init__(self) -> None:
        self._images = self._top1 = self._top5 = self._labelled = self._right_a = self._right_b = 0

    def update(self, reference: NDArray[Any], candidate: NDArray[Any], labels: NDArray[np.int64] | None = None) -> None:
        """Adds a batch; a label of −1 is an image without one."""
        first = top_k(reference, 1)
        best = top_k(candidate, 5)
        self._images += len(reference)
        self._top1 += int((first[:, 0] == best[:, 0]).sum())
        self._top5 += int((first == best).any(axis=1).sum())
        if labels is not None:
            known = labels >= 0
            self._labelled += int(known.sum())
            self._right_a += int(((first[:, 0] == labels) & known).sum())
            self._right_b += int(((best[:, 0] == labels) & known).sum())

    def result(self) -> RankMetrics:
        """The figures so far."""
        images = max(self._images, 1)
        accuracy = self._labelled > 0
        return RankMetrics(
            images=self._images,
            top1_agreement=self._top1 / images,
            top5_agreement=self._top5 / images,
            reference_accuracy=self._right_a / self._labelled if accuracy else None,
            candidate_accuracy=self._right_b / self._labelled if accuracy else None,
        )
