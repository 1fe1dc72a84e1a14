"""What is said of hazards: three lines with the page that says what to do, however many there are."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from s2mlp_deploy.capture.axes import input_shapes  # noqa: E402
from s2mlp_deploy.capture.program import _reason  # noqa: E402
from s2mlp_deploy.export.analysis import analyze  # noqa: E402


class Racing(torch.nn.Module):
    def forward(self, x):
        x = x * 1
        x[:, 1:] = x[:, :-1]
        x[:, :, 1:] = x[:, :, :-1]
        x[:, :, :-1] = x[:, :, 1:].clone()
        x[:, :-1] = x[:, 1:].clone()
        return x


def test_many_races_are_three_lines(caplog):
    with caplog.at_level(logging.WARNING, "s2mlp_deploy"):
        analyze(Racing(), (torch.randn(2, 6, 6),))
    race, compiler = (record.getMessage() for record in caplog.records)
    first, second, third = race.splitlines()
    assert first.startswith("eager PyTorch does not define these 2 overlapping in-place copies: ")
    assert first.endswith("x[:, 1:] = x[:, :-1] and 1 more")
    assert "functional meaning" in second
    assert "docs/reference/hazards.md" in third
    assert compiler.endswith(".clone() and 1 more")
    assert "\n" not in compiler


def test_the_page_that_is_named_says_what_to_do():
    page = Path(__file__).resolve().parents[2] / "docs" / "reference" / "hazards.md"
    assert "**Mend the line" in page.read_text()


def test_free_sizes_of_several_inputs_have_names():
    class Joined(torch.nn.Module):
        def forward(self, image, other):
            return image.mean((2, 3)) + other

    known = analyze(Joined(), (torch.randn(2, 3, 8, 8), torch.randn(2, 3)), dynamic=("batch", "height", "width"))
    assert input_shapes(known.captured.program) == [("batch", 3, "height", "width"), ("batch", 3)]


def test_torchs_names_of_sizes_are_not_repeated():
    assert _reason(ValueError("Could not guard on Eq(s77, 2)")) == "Could not guard on Eq(size, 2)"
    assert _reason(ValueError("Ne(s77, s2) and s77 > 1")) == "Ne(size1, size2) and size1 > 1"
