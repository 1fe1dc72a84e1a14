"""What the files that are made must reach, as the user set it: by precision, or for all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from s2mlp_deploy.errors import InputError
from s2mlp_deploy.evidence.accuracy import AccuracyRow
from s2mlp_deploy.files import from_json, read_file
from s2mlp_deploy.text import join_names

_LARGEST = 2**53
"""Of a limit. JSON has whole numbers that are no floats."""

_EXAMPLE = 'write {"min_cosine": 0.99, "int8": {"max_drop": 0.5}}, with names of precisions or without'


class _Range(NamedTuple):
    least: float
    most: float
    unit: str


_RANGES = {
    "min_cosine": _Range(-1, 1, "a number"),
    "min_top1": _Range(0, 100, "percent"),
    "max_drop": _Range(0, 100, "percentage points"),
}
_ROUNDING = 1e-9
"""A budget was kept in the arithmetic of the row that is judged, so only this can come between the two."""

_PRECISIONS = {"fp16": "fp16", "int8": "int8", "int8-trt": "int8", "fp8": "fp8", "fp8-trt": "fp8"}
"""What a limits file may name, and the precision of the command line that it belongs to."""


@dataclass(frozen=True)
class FileLimits:
    """What one file must reach; None sets no limit.

    Attributes:
        min_cosine: Smallest cosine of every output beside float32's.
        min_top1: Smallest score in percent: top-1 accuracy, or agreement with float32 where there are no labels.
        max_drop: Points that the score may lie below float32's.
    """

    min_cosine: float | None = None
    min_top1: float | None = None
    max_drop: float | None = None

    def check(self, where: str = "") -> None:
        """Refuses a limit that nothing could keep or that is none.

        Args:
            where: In the user's words; default the option's name.

        Raises:
            InputError: A value lies outside its range.
        """
        for name, (least, most, unit) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                shown = f"--{name.replace('_', '-')}" if not where else f"{where}: {name}"
                raise InputError(f"{shown} is {value:g}", fix=f"give {unit} from {least:g} to {most:g}")

    def over(self, other: FileLimits) -> FileLimits:
        """These limits, and the other's where there are none."""
        mine = {item.name: getattr(self, item.name) for item in fields(self)}
        return FileLimits(**{k: getattr(other, k) if v is None else v for k, v in mine.items()})

    def unmet(self, row: AccuracyRow, drop: float | None) -> tuple[str, ...]:
        """Every limit that a file's figures do not reach, in words.

        Args:
            row: Its figures.
            drop: Points below float32; None where nothing was scored.
        """
        failures = []
        for output in row.outputs or row.on_noise:
            if self.min_cosine is None:
                break
            metrics, problem = output.metrics, ""
            # "Not within", so that a figure that is no number holds no limit.
            if metrics.not_finite:
                problem = f"{metrics.not_finite} of {metrics.elements} values are NaN or infinite"
            elif metrics.cosine is None:
                problem = "cosine is not finite"
            elif not metrics.cosine >= self.min_cosine:
                problem = f"cosine {metrics.cosine:.7f} < {self.min_cosine:.15g}"
            if problem:
                failures.append(f"output {output.name!r}: {problem}")
        score = math.nan if row.score is None else row.score
        if self.min_top1 is not None and not score >= self.min_top1:
            failures.append(f"top-1 {score:.2f} % < {self.min_top1:g} %")
        if self.max_drop is not None and drop is not None and not drop <= self.max_drop + _ROUNDING:
            failures.append(f"{drop:.2f} points below fp32, where {self.max_drop:g} may be lost")
        return tuple(failures)


@dataclass(frozen=True)
class Limits:
    """Limits of the files of several precisions.

    Attributes:
        general: For all files.
        named: By a name of :data:`_PRECISIONS`, for some.
    """

    general: FileLimits = FileLimits()
    named: Mapping[str, FileLimits] | None = None

    def of(self, precision: str) -> FileLimits:
        """The limits of a file.

        What names its own precision goes before what names both files of int8, and that before what is for all.

        Args:
            precision: Of the file: ``int8-trt``, for example.
        """
        named = self.named or {}
        nothing = FileLimits()
        own, both = named.get(precision, nothing), named.get(_PRECISIONS.get(precision, ""), nothing)
        return own.over(both).over(self.general)


def read_limits(path: str | Path) -> Limits:
    """Reads a limits file: a JSON object of limits, and of objects of limits by precision.

    ``int8`` stands for both files of it, ``int8-trt`` for the one for TensorRT.

    Args:
        path: The file.

    Raises:
        InputError: It cannot be read, or holds something else; says what and where.
    """
    where = str(path)
    try:
        document = from_json(read_file(Path(path), "description"))
    except OSError as error:
        raise InputError(
            f"the limits file cannot be read: {error.strerror or error}", where=where, fix="check the path"
        ) from error
    except ValueError as error:
        raise InputError(f"the limits file is no JSON: {error}", where=where, fix=_EXAMPLE) from error
    if not isinstance(document, dict) or not document:
        raise InputError("the limits file holds no limits", where=where, fix=_EXAMPLE)
    general, named = {}, {}
    for name, value in document.items():
        if name in _PRECISIONS:
            if not isinstance(value, dict) or not value:
                raise InputError(f"{name} holds no limits", where=where, fix=_EXAMPLE)
            named[name] = _read(value, where, f"{name}: ")
        else:
            general[name] = value
    return Limits(_read(general, where, ""), named)


def _read(values: Mapping[str, Any], where: str, inside: str) -> FileLimits:
    for name, value in values.items():
        if name not in _RANGES:
            known = [*_RANGES, *(() if inside else _PRECISIONS)]
            raise InputError(
                f"{inside}{name!r} is no limit", where=where, fix=f"known are {join_names(known, limit=None)}"
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
            raise InputError(f"{inside}{name} is {value!r}, and no number", where=where, fix=_EXAMPLE)
    limits = FileLimits(**{name: float(value) for name, value in values.items()})
    limits.check(f"{where}: {inside}".removesuffix(": "))
    return limits
