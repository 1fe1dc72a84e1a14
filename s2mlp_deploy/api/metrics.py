"""The user's own score of a network's outputs: a function in a file of theirs, which runs their code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.errors import SourceError
from s2mlp_deploy.precision.accuracy import OutputMetric
from s2mlp_deploy.sources.importing import find_function, told
from s2mlp_deploy.sources.isolation import isolated

_CONTRACT = "it takes (outputs, labels) and returns one number, in points, higher is better"


def load_metric(reference: str) -> OutputMetric:
    """Imports ``file.py:function`` or ``package.module:function``, which runs the user's code.

    The function gets the output that is scored, or, where a network has several and none was chosen, a dict of all by
    name: arrays of all samples; and the labels, int64 [N], -1 where a sample has none, or None where none has one. What
    it changes of the process is put back, as after a factory.

    Args:
        reference: The place and the function's name.

    Returns:
        For :class:`PrecisionOptions(metric=...) <s2mlp_deploy.precision.options.PrecisionOptions>`.

    Raises:
        SourceError: The module or function is not there or fails. The metric itself raises one where the function
            fails or returns no finite number.
    """
    place, colon, name = reference.rpartition(":")
    if not colon or not place or not name:
        raise SourceError(
            f"{reference!r} names no function",
            where="--metric",
            fix="write file.py:function or package.module:function",
        )
    folder = Path(place).parent.resolve() if place.endswith(".py") else Path.cwd()
    with isolated(folder, 0):
        function = find_function(place, name)

    def measure(outputs: NDArray[Any] | dict[str, NDArray[Any]], labels: NDArray[np.int64] | None) -> float:
        with isolated(folder, 0):
            try:
                points = float(function(outputs, labels))
            except (Exception, SystemExit) as error:
                raise SourceError(f"the metric raised {told(error)}", where=reference, fix=_CONTRACT) from error
        if not np.isfinite(points):
            raise SourceError(f"the metric returned {points}", where=reference, fix=_CONTRACT)
        return points

    return OutputMetric(name, measure)
