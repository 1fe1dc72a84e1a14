"""Limits of a file that come from what its own making measured, instead of from its precision alone.

One constant for all int8 files is too wide for most and too narrow for some: it passes a weight scale that is a tenth
off in a file that was 40 dB from float32, and fails a sound file of a deep network. What a file may differ by is what
it did differ by when it was made, and a margin.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

from s2mlp_deploy.evidence.accuracy import ACCURACY, AGREEMENT, AccuracyReport, AccuracyRow, BudgetSearch
from s2mlp_deploy.evidence.parity import OutputParity, Tolerances

MARGIN = 6.0
"""Decibels: twice the error. Another processor, another engine and other data of the same kind stay within."""

SPREAD = 15.0
"""Decibels by which the error of one sample may differ from the mean: three deviations of the digit network in int8,
whose rare outliers are clipped. Means of N and of M samples differ by this times the root of 1/N + 1/M."""

LEAST = 6.0
"""Decibels below which nothing holds: an error of half the signal tells nothing of the file."""

_PEAK = 2.0
"""Factor of the largest difference besides the margin: it is one element's, unlike a mean."""

NOISE_SAMPLES = 16
"""Of the noise that files are compared on when they are made."""


class OwnLimits(NamedTuple):
    """The limits of a file and where they come from.

    Attributes:
        tolerances: By output, for those that were measured.
        basis: In words.
    """

    tolerances: dict[str, Tolerances]
    basis: str


def own_limits(
    made: AccuracyReport, row: AccuracyRow, base: Tolerances, *, images: int, on_noise: bool, beside: str = ""
) -> OwnLimits | None:
    """The limits of a file by its own figures.

    Args:
        made: What was measured when the file was made.
        row: The file's part of it.
        base: The limits of its precision; ``atol`` stays.
        images: How many samples it is judged on now.
        on_noise: Whether those are seeded noise: it is judged by its figures on noise then.
        beside: The file that the figures are of, where they are another one's.

    Returns:
        None where it was not measured on such inputs.
    """
    figures = {output.name: output for output in (row.on_noise if on_noise else row.outputs)}
    then = NOISE_SAMPLES if on_noise else made.images
    margin = MARGIN + SPREAD * math.sqrt(1 / max(images, 1) + 1 / max(then, 1))
    tolerances: dict[str, Tolerances] = {}
    worst, kept = math.inf, ""
    budget = None if on_noise else made.searches.get(row.precision)
    for name, output in figures.items():
        sqnr, largest = output.metrics.sqnr, output.metrics.max_rel
        # Whole numbers, equal and not finite outputs, and figures that cannot be, have the limits of the precision.
        if sqnr is None or largest is None or output.metrics.not_finite or output.metrics.unequal is not None:
            continue
        if largest < 0 or (output.ranks is not None and not 0 <= output.ranks.top1_agreement <= 1):
            continue
        worst = min(worst, sqnr)
        least = max(sqnr - margin, LEAST)
        tolerances[name] = replace(
            base,
            rtol=_PEAK * 10 ** (margin / 20) * largest,
            # That follows from the SQNR: the error is no longer than its root, and turns the output by no more.
            min_cosine=math.floor(1e7 * math.sqrt(1 - 10 ** (-least / 10))) / 1e7,
            min_top1_agreement=_agreement(output, images),
            min_sqnr=least,
        )
        if budget is not None and name == made.output:
            judged = _by_budget(tolerances[name], budget, output, images)
            kept = (
                f"; its accuracy budget of {budget.max_drop:g} points, and what chance adds"
                if judged != tolerances[name]
                else ""
            )
            tolerances[name] = judged
    if not tolerances:
        return None
    where = "seeded noise" if on_noise else made.data
    whose = f"the figures of {beside}, which it was compared with" if beside else "its own figures"
    several = "at least " if len(tolerances) > 1 else ""
    basis = (
        f"{whose}: {several}{worst:.1f} dB on {where} when {'that' if beside else 'it'} was made, less {margin:.1f} dB"
    )
    return OwnLimits(tolerances, basis + kept)


def _agreement(output: OutputParity, images: int) -> float:
    """The smallest share of images that may agree: as many as when it was made, but for chance (a Poisson count)."""
    if output.ranks is None or images < 1:
        return 0.0
    expected = images * (1 - output.ranks.top1_agreement)
    return max(0.0, (images - expected - _by_chance(expected)) / images)


def _by_chance(expected: float) -> float:
    """Images by which a count of that expectation may be larger: three deviations and one."""
    return 3 * math.sqrt(expected) + 1


def _by_budget(limits: Tolerances, budget: BudgetSearch, output: OutputParity, images: int) -> Tolerances:
    """Limits of a file whose accuracy budget was kept: its score may drop by that, whatever agrees."""
    if budget.max_drop is None or not 0 <= budget.max_drop <= 100 or output.ranks is None:
        return limits
    differing = images * (1 - output.ranks.top1_agreement)
    points = budget.max_drop + 100 * _by_chance(differing) / max(images, 1)
    if budget.metric == ACCURACY:
        return replace(limits, max_drop=points)
    if budget.metric == AGREEMENT:
        return replace(limits, min_top1_agreement=max(0.0, 1 - points / 100))
    return limits
