"""A file's shifts in another form are what lowering the canonical graph in that form writes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from one_shift import assert_same_bits, one_shift, runner

from s2mlp_deploy.errors import ExportError
from s2mlp_deploy.export.forms import FORMS
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.export.relower import relower
from s2mlp_deploy.shift.spec import ShiftSpec

SPEC = ShiftSpec.equal_groups(8, [(1, 0), (-1, 0), (0, 1), (0, -1)], axes=(1, 2), channel_axis=3)


def names(model: ir.Model) -> list[tuple[str, str]]:
    return [(str(node.name), node.op_type) for node in model.graph]


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("target", FORMS)
def test_a_lowered_shift_is_lowered_again(target: str, relu: bool) -> None:
    canonical = one_shift(["batch", 5, 4, 8], SPEC, relu=relu)
    x = np.random.default_rng(0).standard_normal((2, 5, 4, 8)).astype(np.float32)
    wanted, records = lower_shifts(canonical, FORMS[target])
    for first in FORMS.values():
        file, told = lower_shifts(canonical, first)
        before = names(file)
        again, found = relower(file, told, FORMS[target])
        assert found == records
        assert names(again) == names(wanted)
        assert names(file) == before, "the file itself is not changed"
        assert_same_bits(runner(again)(x), runner(file)(x))
        # Constants of the first form are gone, and none of another has their name.
        assert len(again.graph.initializers) == len(wanted.graph.initializers)


def test_nodes_that_are_not_those_of_the_manifest_are_refused() -> None:
    file, told = lower_shifts(one_shift(["batch", 5, 4, 8], SPEC, relu=True), FORMS["slice-concat"])
    with pytest.raises(ExportError, match="not the 14 nodes that the manifest names, but 13"):
        relower(file, [replace(told[0], nodes=14)], FORMS["pad-slice"])
    with pytest.raises(ExportError, match="but 0 nodes"):
        relower(file, [replace(told[0], name="elsewhere")], FORMS["pad-slice"])


def test_a_form_that_a_shift_cannot_take_is_refused() -> None:
    integers = one_shift(["batch", 5, 4, 8], SPEC, dtype=ir.DataType.INT64)
    file, told = lower_shifts(integers, FORMS["slice-concat"])
    with pytest.raises(ExportError):
        relower(file, told, FORMS["grouped-conv"])
