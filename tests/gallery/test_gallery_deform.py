"""Deformable convolutions that are no shift: why not, and what they become."""

from __future__ import annotations

import pytest
from gallery_flow import CASES, flow, lowered, node_counts

from s2mlp_deploy.capture.program import capture
from s2mlp_deploy.errors import ExportError
from s2mlp_deploy.export.canonical import to_canonical


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("deform-rows", "its offsets differ between elements of one group"),
        ("deform-half", "its offsets are no whole steps, so that it interpolates"),
        ("deform-padded", "it samples by whole steps along an axis that it pads too"),
        ("deform-masked", "its mask is not 1 everywhere"),
        ("deform-learned", "its offsets depend on the input, or are learned by a layer"),
    ],
)
def test_near_miss_says_why(name: str, reason: str) -> None:
    (miss,) = flow(name).near_misses
    assert miss.reason.startswith(reason)
    assert miss.origin.idiom == "deformable convolution"
    assert miss.origin.line.startswith("gallery_deform.py:")


def test_what_samples_in_place_is_an_ordinary_convolution() -> None:
    result = flow("deform-nowhere")
    assert result.operators["conv2d"] == 1
    assert "deform_conv2d" not in result.operators
    assert not result.near_misses


def test_others_become_deform_conv() -> None:
    model, _ = lowered("deform-rows")
    assert node_counts(model)["DeformConv"] == 1


def test_opset_without_deform_conv_is_refused_with_the_line() -> None:
    case = CASES["deform-half"]
    captured = capture(case.module(), case.inputs())
    with pytest.raises(ExportError, match="deform_conv2d needs opset 19 or later, and 18 was asked for") as raised:
        to_canonical(captured, opset=18)
    assert raised.value.where is not None
    assert "gallery_deform.py" in raised.value.where
    assert raised.value.fix
