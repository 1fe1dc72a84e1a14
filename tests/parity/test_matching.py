"""Inputs and outputs find each other by name, and by position only where names differ."""

from __future__ import annotations

import numpy as np
import pytest

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.parity.compare import compare
from s2mlp_deploy.parity.matching import match_names

SIDES = ("the model", "model.onnx")


@pytest.mark.parametrize(
    ("wanted", "given", "matched"),
    [
        (["a", "b"], ["a", "b"], {"a": "a", "b": "b"}),
        (["a", "b"], ["b", "a"], {"a": "a", "b": "b"}),
        (["a", "b"], ["x", "y"], {"a": "x", "b": "y"}),
        (["image", "mask"], ["mask", "x"], {"image": "x", "mask": "mask"}),
        (["a", "b", "c"], ["y", "b", "x"], {"a": "y", "b": "b", "c": "x"}),
        ([], [], {}),
    ],
)
def test_names_come_first_and_positions_of_the_rest_second(wanted, given, matched):
    assert match_names(wanted, given, what="input", sides=SIDES) == matched


@pytest.mark.parametrize(("wanted", "given"), [(["a"], ["a", "b"]), (["a", "b"], ["a"]), ([], ["a"])])
def test_another_number_names_both_sides(wanted, given):
    with pytest.raises(InputError, match="number of inputs differs: the model has") as caught:
        match_names(wanted, given, what="input", sides=SIDES)
    assert "model.onnx has" in caught.value.problem
    for name in (*wanted, *given):
        assert name in caught.value.problem


class TwoSided:
    """``sum`` and ``difference`` of ``left`` and ``right``, under any names and in any order."""

    name = "fake"

    def __init__(self, inputs=("left", "right"), outputs=("sum", "difference"), meaning=("left", "right"), swap=False):
        self.inputs = tuple(TensorInfo(name, "float32", ("batch", 3)) for name in inputs)
        self.outputs = tuple(TensorInfo(name, "float32", ("batch", 3)) for name in outputs)
        self._meaning = dict(zip(meaning, inputs, strict=True))
        self._swap = swap

    def run(self, feeds):
        assert set(feeds) == {info.name for info in self.inputs}
        left, right = feeds[self._meaning["left"]], feeds[self._meaning["right"]]
        values = [left + right, left - right]
        return dict(zip((i.name for i in self.outputs), values[::-1] if self._swap else values, strict=True))


def feeds():
    random = np.random.default_rng(0)
    return [({name: random.standard_normal((4, 3)).astype(np.float32) for name in ("left", "right")}, None)]


@pytest.mark.parametrize(
    "candidate",
    [
        TwoSided(inputs=("right", "left"), meaning=("right", "left")),
        TwoSided(outputs=("difference", "sum"), swap=True),
        TwoSided(inputs=("x", "y"), outputs=("p", "q")),
        TwoSided(inputs=("right", "x"), meaning=("right", "left")),
    ],
    ids=["inputs in another order", "outputs in another order", "other names", "one name and one not"],
)
def test_two_tensors_of_one_shape_are_not_mixed_up(candidate):
    outputs = compare(TwoSided(), {"candidate": candidate}, feeds()).figures
    assert [(output.name, output.metrics.max_abs) for output in outputs["candidate"]] == [("sum", 0), ("difference", 0)]


def test_names_that_lie_are_found_out():
    swapped = TwoSided(meaning=("right", "left"))
    outputs = compare(TwoSided(), {"candidate": swapped}, feeds()).figures
    assert outputs["candidate"][1].metrics.max_abs > 0.1


@pytest.mark.parametrize("what", ["input", "output"])
def test_a_candidate_with_more_is_refused_before_anything_runs(what):
    candidate = TwoSided()
    setattr(candidate, f"{what}s", (*getattr(candidate, f"{what}s"), TensorInfo("extra", "float32", ())))
    with pytest.raises(InputError, match=rf"number of {what}s differs: candidate has 3 .*extra.*, the reference has 2"):
        compare(TwoSided(), {"candidate": candidate}, feeds())
