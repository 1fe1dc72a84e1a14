"""Blocks of the networks that shift, from the module to ONNX Runtime, with the forms that `auto` chooses."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from gallery_flow import node_counts, run_onnx
from shift_families import FAMILIES, Family

from s2mlp_deploy.capture.program import capture
from s2mlp_deploy.export.canonical import to_canonical
from s2mlp_deploy.export.forms import FORMS
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.export.rewrite import rewrite_shifts

CONVOLVED = {"pixelmixer"}
IN_THE_GALLERY = {"shiftvit", "tsm", "hire-mlp"}
"""Other modules of these run always."""


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(family, id=family.name, marks=[pytest.mark.slow] if family.name in IN_THE_GALLERY else [])
        for family in FAMILIES
    ],
)
def test_a_family_is_found_and_computed(family: Family) -> None:
    module, example = family.make(family.small)
    with torch.no_grad():
        expected = module(*example).numpy()
    captured = capture(module, example)
    found = rewrite_shifts(captured.program)
    assert (len(found.shifts), found.near_misses) == (family.shifts, ())
    canonical = to_canonical(captured)
    inputs = [x.numpy() for x in example]
    for form in (None, FORMS["row-gather"]):
        model, records = lower_shifts(canonical, form)
        assert not {"ScatterND", "ScatterElements"} & node_counts(model).keys()
        np.testing.assert_allclose(run_onnx(model, inputs)[0], expected, rtol=1e-5, atol=1e-5)
        if form is None:
            convolved = Counter(record.form for record in records)["grouped-conv"]
            assert convolved == (family.shifts if family.name in CONVOLVED else 0)
