"""What a calibration saw and chose, small enough to be kept and drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from s2mlp_deploy.artifact import CalibrationRecord
from s2mlp_deploy.calibration.histogram import BINS, Histogram
from s2mlp_deploy.calibration.observe import Statistics
from s2mlp_deploy.calibration.ranges import NumberType, choose_range
from s2mlp_deploy.evidence.calibration import ActivationRange, CalibrationReport
from s2mlp_deploy.evidence.machine import environment_here
from s2mlp_deploy.precision.placements import PLACEMENTS
from s2mlp_deploy.precision.quantizable import OpSelection, observed_values

_DRAWN = 64


def calibration_report(
    record: CalibrationRecord, selection: OpSelection, statistics: Statistics, quantized: Sequence[str]
) -> CalibrationReport:
    """What was seen and chosen.

    Args:
        record: On what, and by which method.
        selection: The quantizable ops of the graph.
        statistics: Of its values.
        quantized: The precisions of the quantized files.
    """
    layers: dict[str, list[str]] = {str(value.name): [] for value in observed_values(selection)}
    for op in selection.ops:
        if op.layer not in layers[str(op.activation.name)]:  # A layer may be several products.
            layers[str(op.activation.name)].append(op.layer)
    number_types = {PLACEMENTS[precision].scheme.number_type for precision in quantized}
    return CalibrationReport(
        record,
        tuple(
            _activation(name, tuple(readers), statistics.histograms[name], record.method, number_types)
            for name, readers in layers.items()
        ),
        environment_here(),
        sum(statistics.subnormal.values()),
    )


def _activation(
    name: str, layers: tuple[str, ...], histogram: Histogram, method: str, number_types: set[NumberType]
) -> ActivationRange:
    filled = np.flatnonzero(histogram.counts)
    first, last = (int(filled[0]), int(filled[-1])) if filled.size else (BINS // 2, BINS // 2)
    step = max(1, -(-(last + 1 - first) // _DRAWN))
    cut = np.zeros(step * _DRAWN, np.int64)
    inside = histogram.counts[first : first + step * _DRAWN]
    cut[: len(inside)] = inside
    ranges: dict[str, tuple[float | None, float | None]] = {}
    for number_type in sorted(number_types, key=lambda item: item.value):
        chosen = choose_range(histogram, method, number_type)
        ranges[number_type.value] = (chosen.low, chosen.high)
    return ActivationRange(
        name,
        layers,
        float(histogram.minimum),
        float(histogram.maximum),
        tuple(int(count) for count in cut.reshape(_DRAWN, step).sum(axis=1)),
        (first - BINS / 2) * histogram.width,
        step * histogram.width,
        ranges,
    )
