"""Special values: what differs there is a fault, but where rounding alone moves the source by as much."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.parity.probes import Probe, Tried, try_probes
from s2mlp_deploy.parity.tolerances import TOLERANCES


class Function:
    """An engine that computes a function of numpy."""

    name = "numpy"
    inputs = (TensorInfo("x", "float32", (2, 3)),)
    outputs = (TensorInfo("y", "float32", (2, 3)),)
    limits = ()

    def __init__(self, function: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        self._function = function

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {"y": self._function(feeds["x"]).astype(np.float32)}


def tried(reference: Callable, candidate: Callable, *, half: bool = False) -> Tried:
    precision = "fp16" if half else "fp32"
    return try_probes(
        Function(reference),
        {"file": Function(candidate)},
        {"file": {"y": TOLERANCES[precision]}},
        iter([Probe("zeros", {"x": np.zeros((2, 3), np.float32)})]),
        float32=[] if half else ["file"],
    )["file"]


def steep(x: NDArray[Any]) -> NDArray[Any]:
    return 1 + 1e4 * x


def test_what_rounding_moves_the_source_by_is_no_fault_of_the_file_and_is_told():
    found = tried(steep, lambda x: steep(x) + 0.05)
    assert found.failures == ()
    assert found.names[0].startswith("zeros (rounding moves the source by 0.")
    assert tried(steep, steep).names == ("zeros",)


@pytest.mark.parametrize(
    ("reference", "off"),
    [
        (steep, 0.5),  # More than that.
        (lambda x: 1 + x, 0.05),  # Well-conditioned.
        (np.sign, 1.0),  # A step, which rounding does not amplify: the source says what it is at 0.
        (lambda x: np.abs(x) > 1e-5, 0.5),  # One beside it, which less does not reach.
    ],
)
def test_any_other_difference_is_a_fault(reference, off):
    found = tried(reference, lambda x: reference(x) + off)
    assert found.names == ("zeros",)
    (failure,) = found.failures
    assert failure.startswith("on zeros: output 'y' differs by")


def test_float16_rounds_more():
    assert tried(lambda x: 1 + 100 * x, lambda x: 1.05 + 100 * x, half=True).failures == ()
    assert tried(lambda x: 1 + 100 * x, lambda x: 1.05 + 100 * x).failures
