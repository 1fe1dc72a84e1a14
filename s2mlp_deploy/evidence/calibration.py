"""Calibration: what the values of every activation were, and which ranges were chosen for them."""

from __future__ import annotations

from dataclasses import dataclass

from s2mlp_deploy.artifact import CalibrationRecord
from s2mlp_deploy.evidence.machine import Environment
from s2mlp_deploy.evidence.notebook import ShownInNotebooks


@dataclass(frozen=True)
class ActivationRange:
    """An activation's values and the ranges that were chosen for them.

    Attributes:
        name: Of the value.
        layers: The quantized layers that read it; none where it is only the result of one.
        min: Smallest value seen.
        max: Largest value seen.
        counts: A histogram of 64 bins from ``start`` on.
        start: Where the first bin begins.
        width: Of a bin.
        ranges: Lowest and highest value that is kept, by number type: ``uint8``, ``int8``, ``float8e4m3fn``.
    """

    name: str
    layers: tuple[str, ...]
    min: float | None
    max: float | None
    counts: tuple[int, ...]
    start: float | None
    width: float | None
    ranges: dict[str, tuple[float | None, float | None]]


@dataclass(frozen=True)
class CalibrationReport(ShownInNotebooks):
    """A calibration: the histogram of every activation and the ranges that were chosen.

    Attributes:
        calibration: On what the ranges were measured.
        activations: In graph order.
        environment: When, where and with what the ranges were chosen.
        subnormal: Values of activations below the smallest normal float32, all together.
    """

    calibration: CalibrationRecord
    activations: tuple[ActivationRange, ...]
    environment: Environment | None = None
    subnormal: int = 0
